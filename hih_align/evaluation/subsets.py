"""The choice of the faces that are measured (`chosen_by`), and the subsets of a report (`subset_masks`)."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Attribute, Dataset, Record

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TRUTH = {"true": 1, "false": 0, "1": 1, "0": 0}
_CONDITION = re.compile(r"\s*(?:attributes\.)?([\w-]+)\s*(?:%\s*(\d+)\s*)?(==|!=|<=|>=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True)
class Where:
    """Chooses faces by their attributes: ``Where("pose==1")(record)``.

    Attributes:
        text: ``NAME OPERATOR VALUE``, where the operator is one of ``== != < <= > >=``, such as "subset==lfpw" or
            "age>=18". Several conditions with ``and`` between them must all hold: "pose==1 and blur==0". If one of the
            two values is not a number, both are compared as text. ``NAME % DIVISOR OPERATOR VALUE`` ("id%3!=0") is
            deprecated; write a split file instead (`chosen_by`).

    Raises:
        ValueError: the text has another form. A call raises it if the record lacks the attribute, or if the attribute
            is text and a number is needed.

    Warns:
        FutureWarning: the text holds ``%``.
    """

    text: str

    def __post_init__(self) -> None:
        if any(divisor for _, divisor, _, _ in self._conditions()):
            warnings.warn(
                f"where is {self.text!r}: a condition with % is deprecated and will be removed in version 0.3; write a "
                "split file with one image name per line",
                FutureWarning,
                stacklevel=3,
            )

    def __call__(self, record: Record) -> bool:
        return all(self._holds(record, *condition) for condition in self._conditions())

    def _conditions(self) -> list[tuple[str, int | None, str, str]]:
        found = []
        for part in re.split(r"\s+and(?:\s+|$)", self.text):
            match = _CONDITION.fullmatch(part)
            if match is None or (match[2] is not None and int(match[2]) == 0):
                raise ValueError(
                    f"where is {self.text!r}, expected a split file, or a condition such as 'pose==1' or 'subset==lfpw'"
                )
            found.append((match[1], None if match[2] is None else int(match[2]), match[3], match[4]))
        return found

    def _holds(self, record: Record, name: str, divisor: int | None, compare: str, wanted: str) -> bool:
        if name not in record.attributes:
            raise ValueError(f"where is {self.text!r}, but {record.key} has only {sorted(record.attributes)}")
        value = record.attributes[name]
        if isinstance(value, bool):  # as CVAT writes it; Python's own text of it is "True"
            if wanted.lower() not in _TRUTH:
                raise ValueError(f"where is {self.text!r}, but {name} of {record.key} is true or false")
            wanted = str(_TRUTH[wanted.lower()])
        left, right = _number(value), _number(wanted)
        if left is not None and right is not None:
            return _COMPARE[compare](left % divisor if divisor else left, right)
        if divisor or compare not in ("==", "!="):
            raise ValueError(f"where is {self.text!r}, but {name} of {record.key} is {value!r}, expected a number")
        return _COMPARE[compare](str(value), wanted)


def _number(value: Attribute) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


@dataclass(frozen=True)
class Chosen:
    """Chooses the faces for which all parts hold. ``text`` names the choice in reports and runs."""

    text: str
    parts: tuple[Callable[[Record], bool], ...]

    def __call__(self, record: Record) -> bool:
        return all(part(record) for part in self.parts)


def is_split(text: str) -> bool:
    """Whether a text is the path of a split file. If not, it is a condition of `Where`."""
    try:
        return Path(text).is_file()
    except OSError:  # a long condition is too long for a path
        return False


def chosen_by(texts: Sequence[str], dataset: Dataset) -> Chosen:
    """A condition that chooses faces of a data set, for `evaluate` and `Dataset.where`.

    Args:
        texts: paths of split files, or conditions of `Where`. All of them must hold for a chosen face. A split file is
            UTF-8 text with one image per line: the name of the image file, or the last parts of its path
            ("indoor/0001.png"). It chooses all faces of these images.
        dataset: the data set.

    Raises:
        ValueError: a split file is empty, or has a line that names no image of the data set; or a text is neither a
            file nor a condition.
    """
    parts: list[Callable[[Record], bool]] = []
    for text in texts:
        parts.append(_split(Path(text), dataset) if is_split(text) else Where(text))
    return Chosen(" and ".join(texts), tuple(parts))


def _split(path: Path, dataset: Dataset) -> Callable[[Record], bool]:
    lines = [line.strip().replace("\\", "/") for line in path.read_text("utf-8-sig").splitlines()]
    wanted = {line for line in lines if line}
    if not wanted:
        raise ValueError(f"where is the file {path}, which is empty, expected one image file per line")
    names = {record.image: _names(record.image) & wanted for record in dataset.records}
    if unknown := sorted(wanted.difference(*names.values())):
        raise ValueError(f"where is the file {path}, whose line {unknown[0]!r} names no image of {dataset.name!r}")
    return lambda record: bool(names[record.image])


def _names(image: Path) -> set[str]:
    """The name of a file, and every longer last part of its path."""
    parts = image.as_posix().split("/")
    return {"/".join(parts[i:]) for i in range(len(parts))}


def subset_masks(records: Sequence[Record], subsets: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Masks (N,) bool by the name of the subset. `evaluate` says what ``subsets`` may name.

    Raises:
        ValueError: no record has the attribute, or it has more than 20 values.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for subset in subsets:
        flags = _flags(records) if subset == "attributes" else [subset.removeprefix("attributes.")]
        for name in flags:
            values = [record.attributes.get(name) for record in records]
            held = {value for value in values if value is not None}
            if not held:
                known = sorted({key for record in records for key in record.attributes})
                raise ValueError(f"subsets names {subset!r}, but the faces have only {known or 'no attributes'}")
            if held <= {0, 1}:
                masks[name] = np.array([value is not None and is_set(value) for value in values])
                continue
            if len(held) > 20:
                raise ValueError(f"subsets names {subset!r}, which has {len(held)} values, expected at most 20")
            for value in sorted(held, key=lambda v: (isinstance(v, str), v)):
                masks[f"{name}={value}"] = np.array([v == value for v in values])
    return masks


def _flags(records: Sequence[Record]) -> list[str]:
    names = [name for name in records[0].attributes if all(r.attributes.get(name) in (0, 1) for r in records)]
    if not names:
        raise ValueError("subsets names 'attributes', but the faces have none that are 0 or 1")
    return names


def is_set(value: Attribute) -> bool:
    """Whether an attribute is 1."""
    return value == 1
