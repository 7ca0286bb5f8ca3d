"""The batches of a run: which faces each process takes, and how they are augmented."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schemes import Scheme
from .augmentation import Batch, augment, donor_faces, sample_seeds
from .preview import preview
from .recipe import Recipe, Stage
from .sampling import Indices
from .supply import Shown, Supply

if TYPE_CHECKING:
    from accelerate import Accelerator


class Batches:
    """Augmented batches. They depend only on the recipe's seed and on their place in the run.

    Args:
        recipe: the recipe, which says how faces are augmented.
        scheme: the scheme of the landmarks.
        faces: the source of the faces.
        accelerator: the accelerator of the run, which knows the processes.
        pieces: number of pieces of a step's batch; each process computes its share of them.
    """

    def __init__(self, recipe: Recipe, scheme: Scheme, faces: Supply, accelerator: Accelerator, pieces: int) -> None:
        self._recipe, self._scheme, self._faces = recipe, scheme, faces
        self._accelerator, self._pieces = accelerator, pieces

    @property
    def pieces(self) -> int:
        """How many batches a step of this process has."""
        return self._pieces // self._accelerator.num_processes

    def steps(self, epoch: int, rows: Indices, stage: Stage, start: int) -> Generator[Batch]:
        """Yield this process's pieces of the batches of an epoch, augmented.

        Args:
            epoch: the number of the epoch in the run.
            rows: (steps, batch) numbers of the faces, from step ``start`` on.
            stage: the stage of the epoch.
            start: the step of the first row.
        """
        recipe, accelerator, faces = self._recipe, self._accelerator, self._faces
        # the seed of a face depends on its place in the epoch, because an epoch may show a face twice
        places = start * rows.shape[1] + np.arange(rows.size)
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        own, places = (
            values.reshape(len(rows), self._pieces, -1)[:, mine].reshape(-1, rows.shape[1] // self._pieces)
            for values in (rows, places)
        )
        seeds = [sample_seeds(recipe.seed, epoch, place) for place in places]
        donors = [donor_faces(recipe.augmentation, some, len(faces)) for some in seeds]
        for shown, some in zip(faces.batches(list(own), donors), seeds, strict=True):
            yield self._augment(shown, some, stage)

    def picture(self, epoch: int, rows: Indices, stage: Stage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB: the first batch of an epoch with its targets."""
        batch = next(self.steps(epoch, rows[:1], stage, 0))
        losses = self._recipe.losses
        return preview(
            batch,
            self._scheme,
            decimal_size=self._recipe.decimal_size,
            integer_sigma=losses.integer_sigma,
            decimal_sigma=losses.decimal_sigma,
            rounding=losses.rounding,
        )

    def _augment(self, shown: Shown, seeds: Tensor, stage: Stage) -> Batch:
        recipe = self._recipe
        batch = augment(
            *shown.faces,
            settings=recipe.augmentation,
            seeds=seeds,
            permutation=self._scheme.permutation,
            crop_ratio=recipe.crop_ratio,
            margin=recipe.store_margin,
            size=stage.size,
            donors=shown.donors,
            pick=shown.pick,
        )
        if not recipe.channels_last:
            return batch
        return batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))
