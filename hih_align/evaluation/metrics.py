"""NME, failure rate, AUC and the cumulative error distribution, as in Sec. IV-A.2 of the paper.

The paper normalises by the distance of the outer eye corners ("inter-ocular") on WFLW and 300W. On COFW it also
normalises by the distance of the pupils. The index pairs are in `schemes.builtin`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def point_errors(pred: ArrayLike, target: ArrayLike, norm: ArrayLike) -> NDArray[np.float64]:
    """(N, K) error of each landmark in percent of ``norm``; ``pred`` and ``target`` are (N, K, 2). See `nme`."""
    p, t = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    if p.ndim != 3 or p.shape[-1] != 2 or p.shape != t.shape:
        raise ValueError(f"pred has shape {p.shape} and target {t.shape}, expected the same (N, K, 2)")
    n = np.asarray(norm)
    # two integers are a pair of indices, also if N = 2: pass distances as floats
    if n.shape == (2,) and np.issubdtype(n.dtype, np.integer):
        if n.min() < 0 or n.max() >= p.shape[1]:
            raise ValueError(f"norm names landmarks {n.tolist()}, expected 0..{p.shape[1] - 1}")
        distance = np.linalg.norm(t[:, n[0]] - t[:, n[1]], axis=-1)
    elif n.shape == (len(p),):
        distance = n.astype(np.float64)
    else:
        raise ValueError(f"norm has shape {n.shape}, expected a pair of landmark indices or ({len(p)},) distances")
    # NaN and not infinity: the error of such a face cannot be compared
    distance = np.where(distance > 0, distance, np.nan)
    return 100 * np.linalg.norm(p - t, axis=-1) / distance[:, None]


def nme(pred: ArrayLike, target: ArrayLike, norm: ArrayLike, labelled: ArrayLike | None = None) -> NDArray[np.float64]:
    """Normalised mean error of each face (Eq. 7).

    Args:
        pred: (N, K, 2) predicted landmarks.
        target: (N, K, 2) true landmarks. A landmark that is not labelled may hold anything.
        norm: two landmark indices (ints), whose distance in ``target`` normalises the errors, or (N,) distances.
        labelled: (N, K), true for each labelled landmark of ``target``. None: all are labelled.

    Returns:
        (N,) percent. NaN for a face without a labelled landmark, and for a face whose norm is 0.

    Raises:
        ValueError: the shapes do not fit.
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
    """Percent of faces with an error above ``threshold`` (same unit). NaN errors do not count; NaN if all are NaN."""
    values = _known(errors)
    return float(100 * (values > threshold).mean()) if len(values) else float("nan")


class CED(NamedTuple):
    """Cumulative error distribution, a step function: the share ``share[i]`` of faces has an error <= ``error[i]``."""

    error: NDArray[np.float64]
    share: NDArray[np.float64]


def ced(errors: ArrayLike) -> CED:
    """The cumulative error distribution of errors (N,), ascending. NaN errors do not count."""
    values = np.sort(_known(errors))
    return CED(values, np.arange(1, len(values) + 1) / max(len(values), 1))


def auc(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Area under the CED from 0 to ``threshold``, divided by ``threshold``. The value is exact and lies in [0, 1].

    A larger value is better. A face with error e contributes the part of [0, threshold] above e, so the area under the
    steps is a mean over faces. NaN errors do not count; the result is NaN if all errors are NaN.

    Raises:
        ValueError: ``threshold`` is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}, expected a positive error")
    values = _known(errors)
    return float(np.clip(1 - values / threshold, 0, 1).mean()) if len(values) else float("nan")


def clearly_lower(errors: NDArray[np.float64], others: NDArray[np.float64], times: float = 1.0) -> bool:
    """Whether the mean of errors (N,) is lower than that of others by more than chance.

    Chance is ``times`` the standard error of the difference. Both errors are of the same faces. Faces with NaN do not
    count. With fewer than two faces nothing is clear.
    """
    gains = (others - errors)[np.isfinite(others - errors)]
    return len(gains) > 1 and float(gains.mean()) > times * float(gains.std(ddof=1)) / len(gains) ** 0.5
