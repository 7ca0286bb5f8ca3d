"""The default normalizer of errors, and the names of normalizers in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.records import Record, stack_labels
from ..schemes import Scheme


def choose_normalizer(scheme: Scheme, records: Sequence[Record]) -> str:
    """The default normalizer for the errors of faces.

    It is `Scheme.default_normalizer`, or "box" if no face has its landmarks labelled (as on profiles).
    """
    name = scheme.default_normalizer
    if name == "box":
        return name
    ends = [i for group in scheme.normalizers[name] for i in group]
    return name if (stack_labels(records)[2][:, ends] > 0).all(-1).any() else "box"


def normalizer_text(normalizer: str) -> str:
    """The name of a normalizer in words: "longer side of the box", "inter-ocular distance"."""
    return "longer side of the box" if normalizer == "box" else f"{normalizer} distance"
