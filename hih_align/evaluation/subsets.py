"""Which faces of a dataset are measured (`Where`), and of which errors are told apart (`subset_masks`)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Attribute, Record

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(?:attributes\.)?([\w-]+)\s*(?:%\s*(\d+)\s*)?(==|!=|<=|>=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True)
class Where:
    """Chooses faces by their attributes: ``Where("id%3!=0")(record)``.

    Attributes:
        text: ``NAME [% DIVISOR] OPERATOR VALUE``, the operator one of ``== != < <= > >=``, or several of these, all
            to hold, with ``and`` between: "id%3!=0", "pose==1 and blur==0", "subset==lfpw", "age>=18". Values that
            are not both numbers are compared as text.

    Raises:
        ValueError: text of another form; when called, a record that lacks the attribute, or text where a number is
            needed.
    """

    text: str

    def __post_init__(self) -> None:
        self._conditions()

    def __call__(self, record: Record) -> bool:
        return all(self._holds(record, *condition) for condition in self._conditions())

    def _conditions(self) -> list[tuple[str, int | None, str, str]]:
        found = []
        for part in re.split(r"\s+and(?:\s+|$)", self.text):
            match = _CONDITION.fullmatch(part)
            if match is None or (match[2] is not None and int(match[2]) == 0):
                raise ValueError(f"where is {self.text!r}, expected such as 'id%3!=0', 'pose==1' or 'subset==lfpw'")
            found.append((match[1], None if match[2] is None else int(match[2]), match[3], match[4]))
        return found

    def _holds(self, record: Record, name: str, divisor: int | None, compare: str, wanted: str) -> bool:
        if name not in record.attributes:
            raise ValueError(f"where is {self.text!r}, but {record.key} has only {sorted(record.attributes)}")
        value = record.attributes[name]
        left, right = _number(value), _number(wanted)
        if left is not None and right is not None:
            return _COMPARE[compare](left % divisor if divisor else left, right)
        if divisor or compare not in ("==", "!="):
            raise ValueError(f"where is {self.text!r}, but {name} of {record.key} is {value!r}, which is no number")
        return _COMPARE[compare](str(value), wanted)


def _number(value: Attribute) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def subset_masks(records: Sequence[Record], subsets: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """(N,) bool by name; see `evaluate` for what ``subsets`` may name.

    Raises:
        ValueError: an attribute that no record has, or one of more than 20 values.
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
    """Whether an attribute of 0 and 1 is 1."""
    return value == 1
