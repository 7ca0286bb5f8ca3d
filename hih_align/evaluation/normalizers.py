"""The default normalizer of errors, and the names of normalizers in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.records import Record, stack_labels
from ..schemes import Scheme


def choose_normalizer(scheme: Scheme, records: Sequence[Record]) -> str:
    """The default normalizer for the errors of faces.

    It is `Scheme.default_normalizer`, or "box" if no face has its landmarks labelled (as on profiles).
    """
    name = scheme.default_normalizer
    return name if measurable(scheme, records, name).any() else "box"


def measurable(scheme: Scheme, records: Sequence[Record], normalizer: str) -> NDArray[np.bool_]:
    """(N,) whether a face has all landmarks of a normalizer. Of the box, each face has."""
    if normalizer == "box":
        return np.ones(len(records), bool)
    ends = [i for group in scheme.normalizers[normalizer] for i in group]
    return np.asarray((stack_labels(records)[2][:, ends] > 0).all(-1))


def normalizer_text(normalizer: str) -> str:
    """The name of a normalizer in words: "longer side of the box", "inter-ocular distance"."""
    return "longer side of the box" if normalizer == "box" else f"{normalizer} distance"
