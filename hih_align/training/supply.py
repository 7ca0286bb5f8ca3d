"""Faces for the training loop, from memory or cut by workers."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.faces import LIMIT, FaceStore, FaceTensors, StreamingFaces, store_bytes
from ..data.records import Dataset, stack_labels
from .sampling import Indices

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T]:
    """The same items in the same order, each made in a thread while the one before is in use.

    The thread computes on one core: a second set of torch's threads would hold up the first.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,)) as pool:
            following = pool.submit(next, items, None)
            while (item := following.result()) is not None:
                following = pool.submit(next, items, None)
                yield item
    finally:
        torch.set_num_threads(threads)  # what the thread set holds for threads to come, too


class Shown(NamedTuple):
    """Faces of a batch, and what the pieces that hide parts of them are cut from: ``donors`` (M, S, S, 3) uint8, of
    which face b takes number ``pick[b]``; both None where no face of the batch takes one."""

    faces: FaceTensors
    donors: Tensor | None
    pick: Indices | None


class Supply:
    """Faces for the loop: decoded on the device where they fit into ``limit`` bytes, else cut by workers as they are
    needed. The faces, their order and their pixels are the same either way.

    Args:
        datasets, side, margin, workers, skip_bad, progress: as in `FaceStore.build`.
        device: where batches are wanted.
        limit: bytes that may be kept on the device.

    Attributes:
        records, crops, sources: of the faces, as in `FaceStore`.
        labelled: (N,) how many landmarks of each face are labelled.
        held: bytes that are kept on the device.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        *,
        side: int,
        margin: float,
        device: torch.device,
        limit: int = LIMIT,
        workers: int = 2,
        skip_bad: bool = False,
        progress: bool = True,
    ) -> None:
        count = sum(record.labels is not None for data in datasets for record in data.records)
        fits = store_bytes(count, side) <= limit
        how: dict[str, Any] = {"side": side, "margin": margin, "workers": workers, "skip_bad": skip_bad}
        faces: FaceStore | StreamingFaces
        if fits:
            faces = FaceStore.build(datasets, limit=limit, progress=progress, **how).to(device)
        else:
            faces = StreamingFaces(datasets, progress=progress, **how)
        self._faces, self._device, self._workers = faces, device, workers
        self.records, self.crops, self.sources = faces.records, faces.crops, faces.sources.numpy()
        self.labelled = (stack_labels(faces.records)[2] > 0).sum(-1)
        self.held = store_bytes(len(faces), side) if fits else 0

    def __len__(self) -> int:
        return len(self.records)

    def batches(self, rows: Sequence[Indices], donors: Sequence[Indices] | None = None) -> Iterator[Shown]:
        """One batch per row of face numbers, on the device.

        Args:
            rows: (B,) each.
            donors: for each row (B,) numbers of the faces that pieces are cut from, see `augment.donor_faces`.
        """
        none = np.zeros(0, np.int64)
        if isinstance(self._faces, FaceStore):
            for row, picked in zip(rows, donors or [none] * len(rows), strict=True):
                face = self._faces.gather(torch.from_numpy(row))
                yield Shown(face, self._faces.images, picked) if len(picked) else Shown(face, None, None)
            return
        extra = [np.unique(picked[picked >= 0]) for picked in donors or [none] * len(rows)]
        loader = torch.utils.data.DataLoader(
            self._faces,
            batch_sampler=[np.concatenate(numbers).tolist() for numbers in zip(rows, extra, strict=True)],
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )
        for row, picked, more, loaded in zip(rows, donors or extra, extra, loader, strict=True):
            face = FaceTensors(*(tensor.to(self._device, non_blocking=True) for tensor in loaded))
            own = FaceTensors(*(tensor[: len(row)] for tensor in face))
            if len(more):
                yield Shown(own, face.image[len(row) :], np.where(picked >= 0, np.searchsorted(more, picked), -1))
            else:
                yield Shown(own, None, None)


class Waits:
    """Time spent waiting for data: the host's, or on a GPU that of the kernels that make the batch."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        self._begun = time.perf_counter()
        if self._cuda:
            event: Any = torch.cuda.Event
            pair = (event(enable_timing=True), event(enable_timing=True))
            pair[0].record()
            self._events.append(pair)

    def __exit__(self, *error: object) -> None:
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._begun

    def take(self) -> float:
        """Seconds since last asked; of a GPU those of the steps that are through."""
        seconds, self._seconds = self._seconds, 0.0
        while self._events and self._events[0][1].query():
            first, last = self._events.pop(0)
            seconds += first.elapsed_time(last) / 1000
        return seconds
