"""The result of a reader, and functions that several readers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...schemes import Scheme

Attribute: TypeAlias = float | str | bool


@dataclass(frozen=True, eq=False)
class RawFace:
    """One annotated face as the file gives it. Only the form of the file has been checked.

    Attributes:
        image: the image file, which exists.
        points: (K, 2) float64 pixels, 0 at the centre of the first pixel; points without a label may hold anything.
            None: no points.
        labelled: (K,) bool; None if ``points`` is None.
        boxes: x1, y1, x2, y2 by name, as far as the file gives them.
        attributes: what else the file says about the face.
        spread: (K,) standard deviation of each label, as a share of the longer side of the box; None: not given.
        size: width and height of the image according to the file; None: not given.
    """

    image: Path
    points: NDArray[np.float64] | None
    labelled: NDArray[np.bool_] | None
    boxes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    spread: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None


#: The name of a record, for messages, and a function that reads it. So an error of one record does not affect others.
Entry: TypeAlias = tuple[str, Callable[[], RawFace]]
Reader: TypeAlias = Callable[[Path, Scheme], Iterator[Entry]]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        ValueError: the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def numbers(values: Any, count: int | None, what: str) -> NDArray[np.float64]:
    """``values`` as (count,) float64. None and empty text become NaN.

    Raises:
        ValueError: the count is wrong, or a value is not a number.
    """
    try:
        array = np.array([np.nan if v is None or v == "" else v for v in values], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not a list of numbers: {error}") from error
    if array.ndim != 1 or count not in (None, len(array)):
        raise ValueError(f"{what} has {len(array)} numbers, expected {count}")
    return array


def finite(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(K,) bool: whether both coordinates of each point (K, 2) are finite."""
    return np.asarray(np.isfinite(points).all(-1), np.bool_)


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """The file ``name`` in the first of ``folders`` that holds it. ``name`` may be a Windows path or absolute.

    Raises:
        FileNotFoundError: no folder holds it.
    """
    folders = list(dict.fromkeys(folders))
    for folder in folders:
        path = folder / name.replace("\\", "/")
        if path.is_file():
            return path
    if Path(name).is_absolute():
        raise FileNotFoundError(f"image {name!r} does not exist")
    raise FileNotFoundError(f"image {name!r} does not exist, looked in {', '.join(map(str, folders))}")
