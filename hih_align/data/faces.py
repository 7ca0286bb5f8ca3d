"""Faces cut out of their photographs, decoded once: a data set that fits is kept on the device and augmented there.

A face is stored as a square around its box, larger than the network's crop, so that shifts, rotations and foreign
boxes find pixels there; `augment.augment` makes network input of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray
from torch import Tensor

from ..crops import Crop, square_crop, warp
from ..images import read_image
from ..progress import progress_bar
from ..runtime.transfer import upload
from ..schemes import Scheme
from .annotations import Attribute, Dataset, Record

#: Side of a stored face in pixels: at margin 2 a face of 192 px, where 256 px crops at ratio 1.25 show one of 205.
SIDE = 384

#: Side of a stored face over the longer side of its box.
MARGIN = 2.0

#: Bytes that `FaceStore.build` takes at most, unless told otherwise.
LIMIT = 8 << 30


class FaceTensors(NamedTuple):
    """What a network learns one face from: ``image`` (S, S, 3) uint8, ``points`` (K, 2) and ``weights`` (K,) float32;
    of several faces, each with a leading dimension."""

    image: Tensor
    points: Tensor
    weights: Tensor


def store_bytes(faces: int, side: int = SIDE) -> int:
    """Bytes of that many stored faces' pixels."""
    return faces * side * side * 3


@dataclass(frozen=True, eq=False)
class FaceStore:
    """N decoded faces of one scheme.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, black outside the photograph.
        points: (N, K, 2) float32 landmarks in pixels of ``images``; 0 where missing.
        weights: (N, K) float32 in [0, 1], 0 where missing.
        sources: (N,) int64, on the CPU: which of the data sets given to `build` a face is from.
        scheme: what the K landmarks are.
        margin: S over the longer side of the face's box.
        crops: N maps from photograph to ``images`` and back.
        records: the N faces.
    """

    images: Tensor
    points: Tensor
    weights: Tensor
    sources: Tensor
    scheme: Scheme
    margin: float
    crops: tuple[Crop, ...]
    records: tuple[Record, ...]

    @classmethod
    def build(
        cls,
        dataset: Dataset | Sequence[Dataset],
        *,
        side: int = SIDE,
        margin: float = MARGIN,
        box: str | None = None,
        workers: int = 2,
        skip_bad: bool = False,
        limit: int = LIMIT,
        progress: bool = True,
    ) -> FaceStore:
        """Decode and cut every record that has points.

        Args:
            dataset: one or several data sets of the same scheme. A photograph is decoded once for all its faces.
            side: S, pixels of a stored face's side.
            margin: S over the longer side of the face's box.
            box: name of the records' box to cut around; by default `Record.box`, annotated or tight.
            workers: decoding threads. The result does not depend on their number.
            skip_bad: leave out faces whose photograph cannot be read, with a warning, instead of raising.
            limit: bytes that the images may take.
            progress: draw a progress bar on stderr.

        Raises:
            ValueError: no face with points, more than ``limit`` bytes (`StreamingFaces` takes such data), data sets
                of different schemes, a record without the box, an unreadable photograph.
            FileNotFoundError: a photograph that is not there.
        """
        datasets = (dataset,) if isinstance(dataset, Dataset) else tuple(dataset)
        scheme, records, sources = _labelled(datasets)
        if (size := store_bytes(len(records), side)) > limit:
            raise ValueError(
                f"{len(records)} faces of {side} px take {size / 2**30:.1f} GiB, limit is {limit / 2**30:.1f}: "
                "raise limit, lower side, or use StreamingFaces"
            )
        crops = [_crop(record, box, side, margin) for record in records]
        images = np.zeros((len(records), side, side, 3), np.uint8)

        def cut(image: NDArray[np.uint8], numbers: Sequence[int]) -> None:
            for number in numbers:
                images[number] = warp(image, crops[number].matrix, side)

        keep = _decode(records, cut, workers, skip_bad, progress)
        for new, old in enumerate(keep):  # in place: a second copy may not fit
            if new != old:
                images[new] = images[old]
        images = images[: len(keep)]
        labels = [_labels(records[index], crops[index]) for index in keep]
        return cls(
            images=torch.from_numpy(images),
            points=torch.from_numpy(np.stack([points for points, _ in labels])),
            weights=torch.from_numpy(np.stack([weights for _, weights in labels])),
            sources=torch.tensor([sources[index] for index in keep]),
            scheme=scheme,
            margin=margin,
            crops=tuple(crops[index] for index in keep),
            records=tuple(records[index] for index in keep),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def keys(self) -> tuple[str, ...]:
        """N names of faces, for messages."""
        return tuple(record.key for record in self.records)

    @property
    def attributes(self) -> tuple[Mapping[str, Attribute], ...]:
        """N attributes of faces."""
        return tuple(record.attributes for record in self.records)

    @property
    def device(self) -> torch.device:
        """Where images, points and weights are."""
        return self.images.device

    def to(self, device: torch.device | str) -> FaceStore:
        """The same faces on a device."""
        return replace(
            self, images=self.images.to(device), points=self.points.to(device), weights=self.weights.to(device)
        )

    def gather(self, indices: Tensor) -> FaceTensors:
        """Faces by (B,) int64 indices, as a batch on the store's device."""
        rows = upload(indices.cpu().numpy(), self.device)
        return FaceTensors(self.images[rows], self.points[rows], self.weights[rows])


class StreamingFaces(torch.utils.data.Dataset[FaceTensors]):
    """The faces of `FaceStore.build` for data that does not fit: cut anew at every access, in DataLoader workers.

    The default collation makes a batch of them, as `FaceStore.gather` does. Arguments and errors are those of `build`:
    every photograph is decoded once to begin with, so that one that cannot be read is found, or left out with its
    faces, as there.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Dataset],
        *,
        side: int = SIDE,
        margin: float = MARGIN,
        box: str | None = None,
        workers: int = 2,
        skip_bad: bool = False,
        progress: bool = True,
    ) -> None:
        datasets = (dataset,) if isinstance(dataset, Dataset) else tuple(dataset)
        self.scheme, records, sources = _labelled(datasets)
        crops = [_crop(record, box, side, margin) for record in records]
        keep = _decode(records, lambda image, numbers: None, workers, skip_bad, progress)
        self.records = tuple(records[index] for index in keep)
        self.sources = torch.tensor([sources[index] for index in keep])
        self.margin = margin
        self.crops = tuple(crops[index] for index in keep)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> FaceTensors:
        record, crop = self.records[index], self.crops[index]
        try:
            image = warp(read_image(record.image), crop.matrix, crop.size)
        except (ValueError, FileNotFoundError) as error:
            raise _named(error, record) from error
        points, weights = _labels(record, crop)
        return FaceTensors(torch.from_numpy(image), torch.from_numpy(points), torch.from_numpy(weights))


def _labelled(datasets: Sequence[Dataset]) -> tuple[Scheme, list[Record], list[int]]:
    """Scheme, records with points, and the data set each is from."""
    if not all(dataset.scheme.same_landmarks(datasets[0].scheme) for dataset in datasets):
        raise ValueError(f"dataset holds the schemes {sorted({data.scheme.id for data in datasets})}, expected one")
    pairs = [(record, n) for n, data in enumerate(datasets) for record in data.records if record.labels is not None]
    if not pairs:
        raise ValueError(f"dataset {', '.join(data.name for data in datasets)!r} holds no face with points")
    return datasets[0].scheme, [record for record, _ in pairs], [n for _, n in pairs]


def _crop(record: Record, box: str | None, side: int, margin: float) -> Crop:
    if box is not None and box not in record.boxes:
        raise ValueError(f"{record.key} has no box {box!r}, it has {sorted(record.boxes) or 'none'}")
    crop = square_crop(record.box if box is None else record.boxes[box], margin, side)
    if not crop.side > 0:  # NaN as well
        raise ValueError(
            f"{record.key}: its box has a longer side of {crop.side / margin:g} px, expected a positive one"
        )
    return crop


def _labels(record: Record, crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    assert record.labels is not None  # _labelled saw to it
    points = np.where(record.labels.known[:, None], crop.to_crop(record.labels.points), 0.0)
    return points.astype(np.float32), record.labels.weights.astype(np.float32)


def _decode(
    records: Sequence[Record],
    use: Callable[[NDArray[np.uint8], Sequence[int]], None],
    workers: int,
    skip_bad: bool,
    progress: bool,
) -> list[int]:
    """Decode every photograph once and ``use`` it, in threads, with the numbers of its records.

    Returns:
        numbers of the records whose photograph can be read, at least one.

    Raises:
        ValueError, FileNotFoundError: a photograph that cannot be read (without ``skip_bad``), or none that can be.
    """
    by_image: dict[Path, list[int]] = {}
    for index, record in enumerate(records):
        by_image.setdefault(record.image, []).append(index)

    def decode(path: Path) -> str | None:
        try:
            image = read_image(path)
        except (ValueError, FileNotFoundError) as error:
            if skip_bad:
                return str(error)
            raise _named(error, records[by_image[path][0]]) from error
        use(image, by_image[path])
        return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        done = progress_bar(
            pool.map(decode, by_image), total=len(by_image), desc="decode", unit="image", disable=not progress
        )
        try:
            bad = {path: error for path, error in zip(by_image, done, strict=True) if error is not None}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    keep = [index for index, record in enumerate(records) if record.image not in bad]
    if bad:
        _warn_bad(bad, len(records) - len(keep))
    if not keep:
        raise ValueError("dataset holds no face whose photograph can be read")
    return keep


def _named(error: Exception, record: Record) -> Exception:
    """The error of a photograph with the name of a face in it."""
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    return kind(f"{record.key}: {error}")


def _warn_bad(bad: Mapping[Path, str], faces: int) -> None:
    first = next(iter(bad.values()))
    warnings.warn(f"{faces} faces of {len(bad)} photographs left out; the first: {first}", stacklevel=4)
