"""Faces for the training loop, wherever they are."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.annotations import Dataset
from ..data.faces import LIMIT, Face, FaceStore, StreamingFaces, store_bytes
from .recipe import Recipe
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


class Supply:
    """Faces for the loop: decoded on the device where they fit, else cut by workers as they are needed."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        recipe: Recipe,
        device: torch.device,
        *,
        limit: int = LIMIT,
        workers: int = 2,
        skip_bad: bool = False,
        progress: bool = True,
    ) -> None:
        side, margin = recipe.store_side, recipe.store_margin
        count = sum(record.points is not None for data in datasets for record in data.records)
        self._device, self._workers = device, workers
        self._store: FaceStore | None = None
        self._stream: StreamingFaces | None = None
        self.keys: Sequence[str]
        if store_bytes(count, side) <= limit:
            store = FaceStore.build(
                datasets, side=side, margin=margin, workers=workers, skip_bad=skip_bad, limit=limit, progress=progress
            )
            self.sources, self.keys = store.sources.numpy(), store.keys
            self.labelled = (store.weights > 0).sum(-1).numpy()
            self._store = store.to(device)
        else:
            stream = StreamingFaces(datasets, side=side, margin=margin)
            self.sources = stream.sources.numpy()
            self.keys = [record.key for record in stream.records]
            self.labelled = np.array([(np.asarray(record.weights) > 0).sum() for record in stream.records])
            self._stream = stream

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def donors(self) -> Tensor | None:
        """Pictures that pieces are cut from, see `augment`."""
        return None if self._store is None else self._store.images

    def batches(self, rows: Sequence[Indices]) -> Iterator[Face]:
        """One batch per row of indices, on the device."""
        if self._store is not None:
            for row in rows:
                yield self._store.gather(torch.from_numpy(row))
            return
        assert self._stream is not None
        loader = torch.utils.data.DataLoader(
            self._stream,
            batch_sampler=[row.tolist() for row in rows],
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )
        for face in loader:
            yield Face(*(tensor.to(self._device, non_blocking=True) for tensor in face))
