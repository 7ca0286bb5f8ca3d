"""Validation while a network is trained: the faces that choose ``best/``, measured as `evaluate` measures a checkpoint.

A face is cut out of its photograph as the aligner cuts it, the network runs in float32, and the errors are those of an
`results.Report`. So the NME in ``metrics.jsonl`` is the NME that `evaluate` reports for the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..data.annotations import Dataset
from ..data.boxes import face_boxes
from ..evaluation.normalizers import choose_normalizer
from ..evaluation.results import Report, Settings
from ..method import heatmaps
from ..method.heatmaps import Decoder
from ..method.network import MEAN, STD
from .learner import Learner, Output
from .preview import compare
from .sampling import Indices
from .supply import Supply

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Faces that go through the network together.
BATCH_SIZE = 32

#: Faces on the picture of the validation.
SHEET_FACES = 24


class Validator:
    """Measures a network under training on faces that it is not trained on.

    Args:
        dataset: the faces; those without points are left out.
        accelerator: of the run. Each of its processes takes a part of the faces.
        crop_ratio: of the checkpoint, see `checkpoints.Config`.
        side: of the network's own crops in pixels.
        limit, workers, skip_bad, progress: as in `trainer.train`.

    Attributes:
        faces: the crops, of ``side`` pixels.
        side: see above.
        dataset: the faces that are measured.
        normalizer: what errors are divided by, see `normalizers.choose_normalizer`.
    """

    def __init__(
        self,
        dataset: Dataset,
        accelerator: Accelerator,
        crop_ratio: float,
        side: int,
        *,
        limit: int,
        workers: int,
        skip_bad: bool,
        progress: bool,
    ) -> None:
        self._accelerator = accelerator
        self.side = side
        self.faces = Supply(
            [dataset],
            side=side,
            margin=crop_ratio,
            device=accelerator.device,
            limit=limit,
            workers=workers,
            skip_bad=skip_bad,
            progress=progress,
        )
        self.dataset = replace(dataset, records=self.faces.records)
        self.normalizer = choose_normalizer(dataset.scheme, self.faces.records)

    @torch.no_grad()
    def outputs(
        self, model: Learner, rows: Sequence[Indices], size: int | None = None, subpixel: bool = True
    ) -> Iterator[Output]:
        """What a network makes of the faces, in float32, a batch for each row of face numbers.

        Args:
            model: put in eval mode.
            rows: numbers of faces.
            size: side of the crops in pixels, by default the network's own; others are resized ones.
            subpixel: as in `Learner.forward`.
        """
        model.eval()
        for shown in self.faces.batches(rows):
            images = network_input(shown.faces.image, size or self.side)
            with torch.autocast(images.device.type, enabled=False):
                yield model(images, subpixel)

    def measure(self, model: Learner, decoder: Decoder, size: int | None = None, subpixel: bool = True) -> Report:
        """Errors of a network; ``size`` and ``subpixel`` as in `outputs`. The scores are heights of heatmaps."""
        accelerator, count = self._accelerator, len(self.faces)
        mine = np.arange(accelerator.process_index, count, accelerator.num_processes)
        rows = [mine[i : i + BATCH_SIZE] for i in range(0, len(mine), BATCH_SIZE)]
        found = torch.zeros(count, len(self.dataset.scheme), 3)
        for row, output in zip(rows, self.outputs(model, rows, size, subpixel), strict=True):
            points = heatmaps.STRIDE * model.decode(output, decoder)
            height = model.heights(output)
            found[torch.from_numpy(row)] = torch.cat((points.float(), height[..., None]), -1).cpu()
        if accelerator.num_processes > 1:
            found = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        return self.report(found[..., :2].numpy(), found[..., 2].numpy(), decoder, size)

    def report(
        self, points: NDArray[np.float32], heights: NDArray[np.float32], decoder: Decoder, size: int | None = None
    ) -> Report:
        """A report of points (N, K, 2) in pixels of crops of ``size``, and heights of their heatmaps (N, K)."""
        places = (points.astype(np.float64) + 0.5) * (
            self.side / (size or self.side)
        ) - 0.5  # resizing keeps pixel edges, not centres
        found = [crop.to_image(place) for crop, place in zip(self.faces.crops, places, strict=True)]
        settings = Settings(
            decoder=asdict(decoder), normalizer=self.normalizer, keep=self.dataset.chosen, calibrated=False
        )
        return Report(
            model="the network under training",
            dataset=self.dataset.name,
            scheme=self.dataset.scheme,
            settings=settings,
            records=self.faces.records,
            boxes=face_boxes(self.faces.records),
            points=np.stack(found).astype(np.float32),
            scores=heights,
        )

    def sheet(self, report: Report, count: int = SHEET_FACES) -> NDArray[np.uint8]:
        """A picture of faces by error, the worst first: ``count`` of them, see `by_error`.

        Labelled points are green, the network's red; the number is the face's NME in percent.
        """
        order = by_error(report.nme, count)
        images = next(iter(self.faces.batches([order]))).faces.image.cpu().numpy()
        crops = [self.faces.crops[i] for i in order]
        true, found = (
            np.stack([crop.to_crop(points[i]) for crop, i in zip(crops, order, strict=True)])
            for points in (report.target, report.points)
        )
        return compare(images, true, found, report.nme[order], self.dataset.scheme, unit=self.normalizer)


def network_input(pictures: Tensor, size: int) -> Tensor:
    """(B, S, S, 3) uint8 RGB -> (B, 3, size, size) float32 as the network takes it; averaged where it gets smaller."""
    images = pictures.permute(0, 3, 1, 2).float()
    if size != images.shape[-1]:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return images / 255 / std - mean / std


def by_error(errors: NDArray[np.float64], count: int) -> Indices:
    """Numbers of at most ``count`` faces by error, the worst first: the worst half, and others evenly down to the best.
    Faces without an error are last."""
    order = np.argsort(-errors, kind="stable").astype(np.int64)
    if len(order) <= count:
        return order
    worst, rest = order[: count // 2], order[count // 2 :]
    return np.concatenate((worst, rest[np.linspace(0, len(rest) - 1, count - len(worst)).round().astype(int)]))
