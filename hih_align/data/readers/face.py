"""What a reader yields, and what readers share."""

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
    """One annotated face as its file has it, nothing checked but the file's own form.

    Attributes:
        image: the image file, which exists.
        points: (K, 2) float64 pixels, 0 at the centre of the first; anything where not labelled. None: no points.
        labelled: (K,) bool, None with points.
        boxes: x1, y1, x2, y2 by name, where the file gives them.
        attributes: what else the file says of the face.
        spread: (K,) how unsure each point is, as a share of the box's longer side; None where not given.
        size: width and height that the file gives for the image.
    """

    image: Path
    points: NDArray[np.float64] | None
    labelled: NDArray[np.bool_] | None
    boxes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    spread: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None


#: A record's name for messages, and what reads it; errors of one record so leave the others alone.
Entry: TypeAlias = tuple[str, Callable[[], RawFace]]
Reader: TypeAlias = Callable[[Path, Scheme], Iterator[Entry]]


def read_text(path: Path) -> str:
    """A file's text, UTF-8 with or without a byte-order mark.

    Raises:
        ValueError: not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def numbers(values: Any, count: int | None, what: str) -> NDArray[np.float64]:
    """``values`` as (count,) float64; None and empty text become NaN.

    Raises:
        ValueError: another number of them, or something that is no number.
    """
    try:
        array = np.array([np.nan if v is None or v == "" else v for v in values], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not numbers: {error}") from error
    if array.ndim != 1 or count not in (None, len(array)):
        raise ValueError(f"{what} has {len(array)} numbers, expected {count}")
    return array


def finite(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(K, 2) -> (K,) where both coordinates are numbers."""
    return np.asarray(np.isfinite(points).all(-1), np.bool_)


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """The first of ``folders`` that holds ``name`` (which may come from Windows, or be absolute).

    Raises:
        FileNotFoundError: none does.
    """
    folders = list(dict.fromkeys(folders))
    for folder in folders:
        path = folder / name.replace("\\", "/")
        if path.is_file():
            return path
    if Path(name).is_absolute():
        raise FileNotFoundError(f"image {name!r} does not exist")
    raise FileNotFoundError(f"image {name!r} does not exist, looked in {', '.join(map(str, folders))}")
