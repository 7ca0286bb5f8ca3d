"""Validation during training. The validation faces choose ``best/``; they are measured as `evaluate` measures faces.

A face is cut out of its photograph as the aligner does it, the network runs in float32, and the errors are those of a
`results.Report`. So the NME in ``metrics.jsonl`` equals the NME that `evaluate` reports for the checkpoint. A run is
an exception if its start network needs other boxes than those of the faces: then `evaluate` runs two passes, and
validation measures the second one, in the box of the points that the start network finds.
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
from ..evaluation.normalizers import choose_normalizer, measurable
from ..evaluation.results import Report, Settings
from ..method.decoder import STRIDE, Decoder
from ..method.network import MEAN, STD
from .learner import Learner, Output
from .preview import compare
from .sampling import Indices
from .supply import Stores, Supply

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Number of faces that go through the network together.
BATCH_SIZE = 32

#: Number of faces on the validation picture.
SHEET_FACES = 24


class Validator:
    """Measures the network during training on faces that it is not trained on.

    Args:
        dataset: the faces. Faces without points are left out.
        accelerator: the accelerator of the run. Each process measures a part of the faces.
        crop_ratio: as in `config.Config`.
        side: side of the network's crops in pixels.
        limit, workers, skip_bad, progress, stores: as in `trainer.train`.

    Attributes:
        faces: the crops, of ``side`` pixels.
        side: see above.
        dataset: the faces that are measured.
        normalizer: the distance that divides errors, see `normalizers.choose_normalizer`.
        measured: number of faces with the landmarks of the normalizer.
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
        stores: Stores | None = None,
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
            stores=stores,
        )
        self.dataset = replace(dataset, records=self.faces.records)
        self.normalizer = choose_normalizer(dataset.scheme, self.faces.records)
        self.measured = int(measurable(dataset.scheme, self.faces.records, self.normalizer).sum())

    @property
    def advice(self) -> tuple[str, ...]:
        """A sentence if most faces cannot be measured."""
        count = len(self.faces)
        if 2 * self.measured >= count:
            return ()
        return (
            f"only {self.measured} of {count} validation faces have the landmarks of the {self.normalizer} distance. "
            "The other faces do not count for the choice of best/. A scheme with another distance, or with none, which "
            "means the box, would measure them",
        )

    @torch.no_grad()
    def outputs(
        self, model: Learner, rows: Sequence[Indices], size: int | None = None, subpixel: bool = True
    ) -> Iterator[Output]:
        """Yield the output of a network, in float32, for each row of face numbers.

        Args:
            model: the network; it is put into eval mode.
            rows: arrays of face numbers, one per batch.
            size: side of the crops in pixels; None: the network's own. Other sizes are made by resizing.
            subpixel: as in `Learner.forward`.
        """
        model.eval()
        for shown in self.faces.batches(rows):
            images = network_input(shown.faces.image, size or self.side)
            with torch.autocast(images.device.type, enabled=False):
                yield model(images, subpixel)

    def measure(self, model: Learner, decoder: Decoder, size: int | None = None, subpixel: bool = True) -> Report:
        """The errors of a network. ``size`` and ``subpixel`` are as in `outputs`. Scores are heatmap heights."""
        accelerator, count = self._accelerator, len(self.faces)
        mine = np.arange(accelerator.process_index, count, accelerator.num_processes)
        rows = [mine[i : i + BATCH_SIZE] for i in range(0, len(mine), BATCH_SIZE)]
        found = torch.zeros(count, len(self.dataset.scheme), 3)
        for row, output in zip(rows, self.outputs(model, rows, size, subpixel), strict=True):
            points = STRIDE * model.decode(output, decoder)
            height = model.heights(output)
            found[torch.from_numpy(row)] = torch.cat((points.float(), height[..., None]), -1).cpu()
        if accelerator.num_processes > 1:
            found = accelerator.reduce(found.to(accelerator.device), "sum").cpu()
        return self.report(found[..., :2].numpy(), found[..., 2].numpy(), decoder, size)

    def report(
        self, points: NDArray[np.float32], heights: NDArray[np.float32], decoder: Decoder, size: int | None = None
    ) -> Report:
        """The report of points (N, K, 2), in pixels of crops of ``size``, and of their heatmap heights (N, K)."""
        places = (points.astype(np.float64) + 0.5) * (
            self.side / (size or self.side)
        ) - 0.5  # resizing preserves pixel edges, not centres
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
        """A picture of ``count`` faces sorted by error, the worst first; see `by_error`.

        Labelled points are green, predicted points are red. The number is the NME of the face in percent.
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
    """Network input (B, 3, size, size) float32 from pictures (B, S, S, 3) uint8 RGB. Reduction is by averaging."""
    images = pictures.permute(0, 3, 1, 2).float()
    if size != images.shape[-1]:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return images / 255 / std - mean / std


def by_error(errors: NDArray[np.float64], count: int) -> Indices:
    """Numbers of at most ``count`` faces, sorted by error, the worst first.

    Half of them are the worst faces. The others are evenly spaced down to the best face. Faces without an error come
    last.
    """
    order = np.argsort(-errors, kind="stable").astype(np.int64)
    if len(order) <= count:
        return order
    worst, rest = order[: count // 2], order[count // 2 :]
    return np.concatenate((worst, rest[np.linspace(0, len(rest) - 1, count - len(worst)).round().astype(int)]))
