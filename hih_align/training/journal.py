"""The progress of a run: a progress bar, ``metrics.jsonl``, TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import files
from ..progress import progress_bar

METRICS_FILE = "metrics.jsonl"
#: Recipe, data and start weights of the run in a folder.
RUN_FILE = "run.json"


class Journal:
    """Of a run's main process; with ``out`` None it tells nothing.

    Args:
        out: the run's folder.
        total: cost of the whole run, in any unit; the time left is estimated from it.
        done: cost that earlier sittings have paid.
        epoch, steps: epochs and optimiser steps that stand: what was told after them, by a sitting that was killed
            before it could save, is taken back.
        progress: draw the bar.
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
        """Drop lines of epochs that are run again, and a line cut short by a kill."""
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
        """A step on."""
        self._bar.set_description_str(description, refresh=False)
        self._bar.set_postfix(values, refresh=False)
        self._bar.update(cost)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._out is not None and not self._bar.disable:
            self._bar.write(text, file=self._bar.fp)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """To TensorBoard alone."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl``, on disk when this returns."""
        if self._out is None:
            return
        with open(self._out / METRICS_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def picture(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """(H, W, 3) RGB: ``{name}.png`` in the run's folder, and to TensorBoard."""
        if self._out is None:
            return
        from PIL import Image

        with files.replacing(self._out / f"{name}.png") as temporary:
            Image.fromarray(image).save(temporary)
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def curve(self) -> None:
        """``curve.png``, of all epochs so far, where matplotlib is installed."""
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
                figure.savefig(temporary)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()
