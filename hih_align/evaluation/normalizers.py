"""What errors are divided by, where nobody says it, and its name in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.annotations import Record
from ..schemes import Scheme


def choose_normalizer(scheme: Scheme, records: Sequence[Record]) -> str:
    """What errors of faces are divided by where no normalizer is asked for: `Scheme.default_normalizer`, or "box"
    where no face has its landmarks labelled (profiles)."""
    name = scheme.default_normalizer
    if name == "box":
        return name
    ends = [i for group in scheme.normalizers[name] for i in group]
    return name if any((record.weights[ends] > 0).all() for record in records if record.weights is not None) else "box"


def normalizer_text(normalizer: str) -> str:
    """A normalizer in words: "longer side of the box", "inter-ocular distance"."""
    return "longer side of the box" if normalizer == "box" else f"{normalizer} distance"
