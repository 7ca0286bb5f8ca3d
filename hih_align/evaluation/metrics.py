"""NME, failure rate, AUC and the cumulative error distribution, as Sec. IV-A.2 uses them.

The paper normalises by the outer eye corners on WFLW and 300W ("inter-ocular") and, on COFW, by the pupils as well.
The index pairs are in `schemes.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def point_errors(pred: ArrayLike, target: ArrayLike, norm: ArrayLike) -> NDArray[np.float64]:
    """(N, K, 2), (N, K, 2) -> (N, K): distance of each landmark in percent of ``norm``, see `nme`."""
    p, t = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if p.ndim != 3 or p.shape[-1] != 2 or p.shape != t.shape:
        raise ValueError(f"pred has shape {p.shape} and target {t.shape}, expected the same (N, K, 2)")
    n = np.asarray(norm)
    # two integers are a pair of indices, also for N = 2: give distances as floats
    if n.shape == (2,) and np.issubdtype(n.dtype, np.integer):
        if n.min() < 0 or n.max() >= p.shape[1]:
            raise ValueError(f"norm names landmarks {n.tolist()}, expected 0..{p.shape[1] - 1}")
        distance = np.linalg.norm(t[:, n[0]] - t[:, n[1]], axis=-1)
    elif n.shape == (len(p),):
        distance = n.astype(np.float64)
    else:
        raise ValueError(f"norm has shape {n.shape}, expected a pair of landmark indices or ({len(p)},) distances")
    # NaN, not infinity: such a face has no error that could be compared
    distance = np.where(distance > 0, distance, np.nan)
    return 100 * np.linalg.norm(p - t, axis=-1) / distance[:, None]


def nme(pred: ArrayLike, target: ArrayLike, norm: ArrayLike, labelled: ArrayLike | None = None) -> NDArray[np.float64]:
    """Normalised mean error of each face (Eq. 7).

    Args:
        pred: (N, K, 2) predicted landmarks.
        target: (N, K, 2) true landmarks; those not labelled may hold anything.
        norm: two landmark indices (ints) whose distance in ``target`` normalises, or (N,) distances.
        labelled: (N, K), true where ``target`` is known; all by default.

    Returns:
        (N,) percent. NaN for a face without a labelled landmark or with a zero norm.

    Raises:
        ValueError: if shapes do not fit.
    """
    errors = point_errors(pred, target, norm)
    known = np.ones(errors.shape, bool) if labelled is None else np.asarray(labelled).astype(bool)
    if known.shape != errors.shape:
        raise ValueError(f"labelled has shape {known.shape}, expected {errors.shape}")
    count = known.sum(-1)
    total = np.where(known, errors, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _known(errors: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(errors, np.float64).ravel()
    return values[~np.isnan(values)]


def failure_rate(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Percent of faces with an error above ``threshold`` (same unit). NaN errors are left out; NaN if none is left."""
    values = _known(errors)
    return float(100 * (values > threshold).mean()) if len(values) else float("nan")


class CED(NamedTuple):
    """Cumulative error distribution, a step function: ``share[i]`` of the faces have an error <= ``error[i]``."""

    error: NDArray[np.float64]
    share: NDArray[np.float64]


def ced(errors: ArrayLike) -> CED:
    """(N,) errors -> its steps, ascending. NaN errors are left out."""
    values = np.sort(_known(errors))
    return CED(values, np.arange(1, len(values) + 1) / max(len(values), 1))


def auc(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Area under the CED up to ``threshold``, over ``threshold``: exact, in [0, 1], higher is better.

    A face with error e adds the part of [0, threshold] above e, so the area under the steps is a mean. NaN errors
    are left out; NaN if none is left.

    Raises:
        ValueError: for a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}, expected a positive error")
    values = _known(errors)
    return float(np.clip(1 - values / threshold, 0, 1).mean()) if len(values) else float("nan")
