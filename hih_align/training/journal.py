"""The progress of a run: progress bar, ``metrics.jsonl`` and TensorBoard."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import files
from ..evaluation.results import Report
from ..images import write_image
from ..progress import progress_bar, say
from .recipe import Stage
from .run_folder import Progress

METRICS_FILE = "metrics.jsonl"


class Journal:
    """Reports the progress of a run, in its main process. If ``out`` is None, nothing is reported.

    Args:
        out: folder of the run.
        total: cost of the whole run, in any unit. It is used to estimate the remaining time.
        done: cost of the work before this call, if the run is resumed.
        epoch, steps: number of saved epochs and optimiser steps. Records after them come from a process that was
            killed before it could save; they are removed.
        progress: draw the progress bar.
    """

    def __init__(
        self,
        out: Path | None,
        *,
        total: float,
        done: float = 0.0,
        epoch: int = 0,
        steps: int = 0,
        progress: bool = True,
    ) -> None:
        self._out = out
        self._writer: Any = None
        self._bar = progress_bar(
            total=total,
            initial=done,
            disable=out is None or not progress,
            bar_format="{percentage:5.1f}% |{bar:12}| {elapsed}<{remaining} {desc}{postfix}",
            smoothing=0.02,
            mininterval=0.5,
        )
        if out is None:
            return
        self._forget(out / METRICS_FILE, epoch)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=steps or None)

    @staticmethod
    def _forget(path: Path, epoch: int) -> None:
        """Remove the lines of epochs that will be run again, and a line that a kill cut short."""
        if not path.is_file():
            return
        keep = []
        for line in path.read_text("utf-8").splitlines():
            try:
                stands = json.loads(line)["epoch"] <= epoch
            except (ValueError, KeyError, TypeError):
                stands = False
            if stands:
                keep.append(line + "\n")
        with files.replacing(path) as temporary:
            temporary.write_text("".join(keep), "utf-8")

    def advance(self, cost: float, description: str, values: Mapping[str, str]) -> None:
        """Advance the bar by one step."""
        self._bar.set_description_str(description, refresh=False)
        self._bar.set_postfix(values, refresh=False)
        self._bar.update(cost)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if self._out is not None and not self._bar.disable:
            say(text)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars to TensorBoard."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``. The line is on disk when the call returns."""
        if self._out is None:
            return
        with open(self._out / METRICS_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Write an (H, W, 3) RGB picture to ``{name}.png`` in the folder of the run, and to TensorBoard."""
        if self._out is None:
            return
        write_image(self._out / f"{name}.png", image)
        if self._writer is not None:
            self._writer.file_writer.add_summary(_summary(name, image), step)

    def curve(self) -> None:
        """Draw ``curve.png`` of all epochs so far, if matplotlib is installed."""
        if self._out is None or not (self._out / METRICS_FILE).is_file():
            return
        try:
            from .curve import curve_figure

            lines = (self._out / METRICS_FILE).read_text("utf-8").splitlines()
            figure = curve_figure([json.loads(line) for line in lines]) if lines else None
        except ImportError:
            return
        if figure is not None:
            with files.replacing(self._out / "curve.png") as temporary:
                figure.savefig(temporary, pil_kwargs={"compress_level": 1})

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()


def _summary(name: str, image: NDArray[np.uint8]) -> Any:
    """A picture for TensorBoard. Its own `add_image` writes a slow and large PNG, also in every epoch."""
    import PIL.Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    data = io.BytesIO()
    PIL.Image.fromarray(image).save(data, "JPEG", quality=90)
    height, width = image.shape[:2]
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data.getvalue())
    return Summary(value=[Summary.Value(tag=name, image=picture)])


def epoch_record(
    at: Progress, number: int, stage: Stage, steps: int, lr: float, validated: Report | None
) -> dict[str, Any]:
    """A line of ``metrics.jsonl``.

    Args:
        at: the state of the run at the end of the epoch.
        number, stage: number of the epoch's stage in the recipe, and the stage.
        steps: optimiser steps of the epoch.
        lr: learning rate of its last step.
        validated: the errors of the validation faces; None if they were not measured.
    """
    counted = max(at.sums.get("steps", 0.0), 1.0)
    record: dict[str, Any] = {
        "epoch": at.epoch + 1,
        "stage": number,
        "size": stage.size,
        "steps": at.steps,
        "lr": lr,
        **{name: value / counted for name, value in at.sums.items() if name != "steps"},
        "images_per_second": steps * stage.batch / max(at.worked, 1e-9),
        "data_share": at.waited / max(at.worked, 1e-9),
        "seconds": at.seconds,
    }
    if validated is not None:
        record |= {
            "nme": validated.overall.nme,
            "failure_rate": validated.overall.fr10,
            "auc": validated.overall.auc10,
            "normalizer": validated.settings.normalizer,
            "best": at.best,
        }
        if at.start is not None:
            record["start"] = at.start
    return record


def epoch_line(record: dict[str, Any], epochs: int | None) -> str:
    """The result of `epoch_record` as a line of text. ``epochs`` is None for a run that ends with its time."""
    of = "" if epochs is None else f"/{epochs}"
    parts = [f"epoch {record['epoch']}{of} {record['size']}px", f"loss {record['loss']:.2e}"]
    if "nme" in record:
        parts.append(f"nme {record['nme']:.3f} (best {record['best']:.3f})")
    parts.append(f"{record['images_per_second']:.1f} img/s, waiting {record['data_share']:.1%}")
    return ", ".join(parts)


def tell_step(journal: Journal, at: Progress, epochs: int | None, stage: Stage, lr: float, cost: float) -> None:
    """Advance the bar by one step. After every 20th step write scalars to TensorBoard.

    Args:
        journal: the journal.
        at: the state of the run after the step.
        epochs: number of epochs of the run; None for a run that ends with its time.
        stage: the stage of the epoch.
        lr: learning rate of the step.
        cost: of the step, in the unit of the journal's total.
    """
    count = max(at.sums.get("steps", 0.0), 1.0)
    parts = {name: value / count for name, value in at.sums.items() if name != "steps"}
    speed = at.step * stage.batch / max(at.worked, 1e-9)
    share = at.waited / max(at.worked, 1e-9)
    values = {name: f"{value:.2e}" for name, value in parts.items()}
    values |= {"img/s": f"{speed:.1f}", "wait": f"{share:.1%}"}
    if at.best is not None:
        values = {"nme": f"{at.best:.3f}"} | values
    of = "" if epochs is None else f"/{epochs}"
    journal.advance(cost, f"epoch {at.epoch + 1}{of} {stage.size}px ", values)
    if at.steps % 20 == 0:
        scalars = {f"step/{name}": value for name, value in parts.items()}
        journal.scalars(scalars | {"step/lr": lr, "step/images_per_second": speed, "step/wait": share}, at.steps)
