"""Faces that are cut out of their photographs and decoded once.

A data set that fits into memory is kept on the device and augmented there. A stored face is a square around its box.
The square is larger than the network's crop, so that shifted, rotated and jittered crops still find pixels in it.
`augment.augment` makes network input of stored faces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..crops import Crop, square_crop, warp
from ..images import read_image
from ..progress import progress_bar, warn
from ..runtime.transfer import upload
from ..schemes import Scheme
from .annotations import Attribute, Dataset, Record

#: Side of a stored face in pixels. At margin 2 the box is 192 px long; a 256 px crop at ratio 1.25 shows it at 205 px.
SIDE = 384

#: Side of a stored face divided by the longer side of its box.
MARGIN = 2.0

#: Largest number of bytes that `FaceStore.build` takes by default.
LIMIT = 8 << 30

#: Number of batches that `StreamingFaces.batches` makes ahead of their use.
AHEAD = 2


class FaceTensors(NamedTuple):
    """One training face: ``image`` (S, S, 3) uint8, ``points`` (K, 2) and ``weights`` (K,) float32.

    A batch has a leading dimension in each of the three.
    """

    image: Tensor
    points: Tensor
    weights: Tensor


def store_bytes(faces: int, side: int = SIDE) -> int:
    """Number of bytes that the pixels of ``faces`` stored faces take."""
    return faces * side * side * 3


@dataclass(frozen=True, eq=False)
class FaceStore:
    """N decoded faces of one scheme.

    Attributes:
        images: (N, S, S, 3) uint8 RGB; black outside the photograph.
        points: (N, K, 2) float32 landmarks in pixels of ``images``; 0 if missing.
        weights: (N, K) float32 in [0, 1]; 0 if missing.
        sources: (N,) int64, on the CPU: the number of the data set, among those given to `build`, that holds the face.
        scheme: the scheme of the K landmarks.
        margin: S divided by the longer side of the face's box.
        crops: N maps from the photograph to ``images`` and back.
        records: the N records.
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
            dataset: one or several data sets of the same scheme. A photograph of several faces is decoded once.
            side: S, the side of a stored face in pixels.
            margin: S divided by the longer side of the face's box.
            box: name of the box of the records to cut around; None: `Record.box`.
            workers: number of decoding threads. The result does not depend on it.
            skip_bad: leave out faces whose photograph cannot be read, and warn. Without it they raise.
            limit: largest number of bytes that the images may take.
            progress: draw a progress bar on stderr.

        Raises:
            ValueError: no face has points; the images need more than ``limit`` bytes (`StreamingFaces` can hold such
                data); the data sets have different schemes; a record lacks the box; a photograph cannot be read.
            FileNotFoundError: a photograph does not exist.
        """
        datasets = (dataset,) if isinstance(dataset, Dataset) else tuple(dataset)
        scheme, records, sources = _labelled(datasets)
        if (size := store_bytes(len(records), side)) > limit:
            raise ValueError(
                f"{len(records)} faces of {side} px take {size / 2**30:.1f} GiB, limit is {limit / 2**30:.1f} GiB: "
                "raise limit, lower side, or use StreamingFaces"
            )
        crops = [_crop(record, box, side, margin) for record in records]
        images = np.zeros((len(records), side, side, 3), np.uint8)

        def cut(image: NDArray[np.uint8], numbers: Sequence[int]) -> None:
            for number in numbers:
                images[number] = warp(image, crops[number].matrix, side)

        keep = _decode(records, cut, workers, skip_bad, progress)
        for new, old in enumerate(keep):  # in place, because a second copy may not fit into memory
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
        """The N keys of the faces, for messages."""
        return tuple(record.key for record in self.records)

    @property
    def attributes(self) -> tuple[Mapping[str, Attribute], ...]:
        """The attributes of the N faces."""
        return tuple(record.attributes for record in self.records)

    @property
    def device(self) -> torch.device:
        """The device of images, points and weights."""
        return self.images.device

    def to(self, device: torch.device | str) -> FaceStore:
        """The same faces on another device."""
        return replace(
            self, images=self.images.to(device), points=self.points.to(device), weights=self.weights.to(device)
        )

    def gather(self, indices: Tensor) -> FaceTensors:
        """The faces of the given (B,) int64 indices, as a batch on the device of the store."""
        rows = upload(indices.cpu().numpy(), self.device)
        return FaceTensors(self.images[rows], self.points[rows], self.weights[rows])


class StreamingFaces:
    """The faces of `FaceStore.build` for data that does not fit into memory: each access cuts the face again.

    Threads of this process cut the faces. Processes of a ``DataLoader`` would be forked, and a fork of a process in
    which OpenMP or another runtime has threads can crash.

    Arguments and errors are those of `FaceStore.build`. Each photograph is decoded once at the start, so that an
    unreadable photograph raises, or is left out, as in `FaceStore.build`.
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
        self._workers = max(1, workers)

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

    def batches(self, rows: Iterable[Sequence[int]]) -> Iterator[FaceTensors]:
        """Yield the batch of each row of face numbers, on the CPU, as `FaceStore.gather` makes it.

        Meanwhile ``workers`` threads cut the faces of the next `AHEAD` rows.
        """
        pool = ThreadPoolExecutor(self._workers, "hih-align-cut")
        try:
            waiting: deque[list[Future[FaceTensors]]] = deque()
            for row in rows:
                waiting.append([pool.submit(self.__getitem__, int(number)) for number in row])
                if len(waiting) > AHEAD:
                    yield _batch(waiting.popleft())
            while waiting:
                yield _batch(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _batch(faces: Sequence[Future[FaceTensors]]) -> FaceTensors:
    return FaceTensors(*(torch.stack(tensors) for tensors in zip(*(face.result() for face in faces), strict=True)))


def _labelled(datasets: Sequence[Dataset]) -> tuple[Scheme, list[Record], list[int]]:
    """The scheme, the records with points, and the number of the data set of each record."""
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
    if not crop.side > 0:  # false for NaN as well
        raise ValueError(f"{record.key}: the longer side of its box is {crop.side / margin:g} px, expected more than 0")
    return crop


def _labels(record: Record, crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    assert record.labels is not None  # `_labelled` chose such records
    points = np.where(record.labels.known[:, None], crop.to_crop(record.labels.points), 0.0)
    return points.astype(np.float32), record.labels.weights.astype(np.float32)


def _decode(
    records: Sequence[Record],
    use: Callable[[NDArray[np.uint8], Sequence[int]], None],
    workers: int,
    skip_bad: bool,
    progress: bool,
) -> list[int]:
    """Decode every photograph once, in threads, and call ``use`` with its pixels and the numbers of its records.

    Returns:
        The numbers of the records whose photograph can be read, at least one.

    Raises:
        ValueError, FileNotFoundError: a photograph cannot be read (without ``skip_bad``), or none can be read.
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
    """The same error, with the key of a face on the photograph in its message."""
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    return kind(f"{record.key}: {error}")


def _warn_bad(bad: Mapping[Path, str], faces: int) -> None:
    first = next(iter(bad.values()))
    warn(f"{faces} faces of {len(bad)} photographs are left out; the first: {first}")
