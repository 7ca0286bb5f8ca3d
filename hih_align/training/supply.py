"""The supply of faces for the training loop: from memory, or cut when they are needed."""

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
from ..runtime.transfer import upload
from .sampling import Indices

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the same items in the same order. A thread makes the next item while the current one is used.

    The thread computes on one core, because a second set of torch threads would slow down the first.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,)) as pool:
            following = pool.submit(next, items, None)
            while (item := following.result()) is not None:
                following = pool.submit(next, items, None)
                yield item
    finally:
        torch.set_num_threads(threads)  # the setting of the thread would also apply to future threads


class Shown(NamedTuple):
    """The faces of a batch, and the pictures whose pieces cover parts of them.

    ``donors`` is (M, S, S, 3) uint8. Face b takes its piece from donor ``pick[b]``. Both are None if no face of the
    batch gets a piece.
    """

    faces: FaceTensors
    donors: Tensor | None
    pick: Indices | None


class Stores:
    """Decoded faces that several runs of a process share: the same data sets are decoded once for all of them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Sequence[Dataset], dict[str, Any], FaceStore]] = []

    def build(self, datasets: Sequence[Dataset], *, device: torch.device, **how: Any) -> FaceStore:
        """`FaceStore.build` on ``device``. For the same data sets and arguments it returns the same store."""
        key = {name: how.get(name) for name in ("side", "margin", "box", "skip_bad")} | {"device": device}
        for known, same, store in self._kept:
            if same == key and list(map(id, known)) == list(map(id, datasets)):
                return store
        store = FaceStore.build(datasets, **how).to(device)
        self._kept.append((tuple(datasets), key, store))
        return store


class Supply:
    """Faces for the training loop.

    They are decoded on the device if they fit into ``limit`` bytes. Otherwise threads cut them when they are needed.
    The faces, their order and their pixels are the same in both cases.

    Args:
        datasets, side, margin, workers, skip_bad, progress: as in `FaceStore.build`.
        device: the device of the batches.
        limit: largest number of bytes to keep on the device.
        stores: the decoded faces of the process. The faces are added to it if they fit and are not in it yet.

    Attributes:
        records, crops, sources: of the faces, as in `FaceStore`.
        labelled: (N,) number of labelled landmarks of each face.
        held: number of bytes that are kept on the device.
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
        stores: Stores | None = None,
    ) -> None:
        count = sum(record.labels is not None for data in datasets for record in data.records)
        fits = store_bytes(count, side) <= limit
        how: dict[str, Any] = {"side": side, "margin": margin, "workers": workers, "skip_bad": skip_bad}
        faces: FaceStore | StreamingFaces
        if fits:
            faces = (stores or Stores()).build(datasets, device=device, limit=limit, progress=progress, **how)
        else:
            faces = StreamingFaces(datasets, progress=progress, **how)
        self._faces, self._device = faces, device
        self.records, self.crops, self.sources = faces.records, faces.crops, faces.sources.numpy()
        self.labelled = (stack_labels(faces.records)[2] > 0).sum(-1)
        self.held = store_bytes(len(faces), side) if fits else 0

    def __len__(self) -> int:
        return len(self.records)

    def batches(self, rows: Sequence[Indices], donors: Sequence[Indices] | None = None) -> Iterator[Shown]:
        """Yield one batch, on the device, per row of face numbers.

        Args:
            rows: arrays (B,) of face numbers.
            donors: for each row (B,) numbers of the faces that the pieces are cut from; see `augment.donor_faces`.
        """
        none = np.zeros(0, np.int64)
        if isinstance(self._faces, FaceStore):
            for row, picked in zip(rows, donors or [none] * len(rows), strict=True):
                face = self._faces.gather(torch.from_numpy(row))
                yield Shown(face, self._faces.images, picked) if len(picked) else Shown(face, None, None)
            return
        extra = [np.unique(picked[picked >= 0]) for picked in donors or [none] * len(rows)]
        batches = self._faces.batches(np.concatenate(numbers).tolist() for numbers in zip(rows, extra, strict=True))
        for row, picked, more, loaded in zip(rows, donors or extra, extra, batches, strict=True):
            face = FaceTensors(*(upload(tensor.numpy(), self._device) for tensor in loaded))
            own = FaceTensors(*(tensor[: len(row)] for tensor in face))
            if len(more):
                yield Shown(own, face.image[len(row) :], np.where(picked >= 0, np.searchsorted(more, picked), -1))
            else:
                yield Shown(own, None, None)


class Waits:
    """The time that the loop waits for data: of the host, or on a GPU of the kernels that make the batch."""

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
        """Seconds since the last call. On a GPU only finished steps count."""
        seconds, self._seconds = self._seconds, 0.0
        while self._events and self._events[0][1].query():
            first, last = self._events.pop(0)
            seconds += first.elapsed_time(last) / 1000
        return seconds
