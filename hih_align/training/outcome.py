"""What comes out of a run: checkpoints, the choice of a decoder for the best one, a `Result`, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from .. import files
from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..evaluation.calibrate import BOXES, calibrate, markdown
from ..evaluation.results import Report
from ..hub.checkpoints import WEIGHTS_FILE, save_checkpoint, save_weights
from ..hub.config import BEST, Config, write_config
from ..method.decoder import Decoder
from ..method.network import HIHNet
from ..method.sizes import SIZES, Size
from ..progress import say
from ..schemes import Scheme
from .advice import advice, falling
from .augmentation import Batch
from .learner import HIH, Learner
from .recipe import Recipe
from .run_folder import STATE_FILE, Progress
from .warmstart import WarmStart

CALIBRATION_FILE = "calibration.md"

#: At most so many validation faces, evenly chosen, decide on the decoder and calibrate the scores at the end of a run.
CALIBRATION_FACES = 400


class DivergedError(ValueError):
    """The loss is no longer a number; ``batch`` is the file that holds what it was computed from."""

    def __init__(self, message: str, batch: Path) -> None:
        super().__init__(message)
        self.batch = batch


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM stopped a run before its end; ``out`` is its folder, from which it can be resumed."""

    def __init__(self, message: str, out: Path) -> None:
        super().__init__(message)
        self.out = out


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        out: its folder.
        completed: whether all epochs were run; if not, a signal stopped it and it can be resumed.
        epochs: epochs behind it.
        steps: optimiser steps behind it.
        nme: validation NME of ``best/`` in percent of ``normalizer``, as `evaluate` reports it; None without
            validation.
        normalizer: see `normalizers.choose_normalizer`; None without validation.
        warm_start: what became of the start weights, if any.
    """

    out: Path
    completed: bool
    epochs: int
    steps: int
    nme: float | None
    warm_start: WarmStart | None
    normalizer: str | None = None


def network_config(
    recipe: Recipe,
    scheme: Scheme,
    size: Size,
    decoder: Decoder,
    box: tuple[float, float, float, float] | None = None,
) -> Config:
    """Of the network that comes out; ``box`` as `Config` has it."""
    names = {known: name for name, known in SIZES.items()}
    return Config(
        scheme=scheme,
        **size._asdict(),
        name=f"{names.get(size._replace(decimal_size=8), f'HIH_{size.stacks}')}/{scheme.id}",
        crop_ratio=recipe.crop_ratio,
        rounding=recipe.losses.rounding,
        decoder=decoder,
        box=box,
    )


def keep_network(folder: Path, model: Learner, config: Config) -> None:
    """Write a network as a checkpoint folder; of one that is not HIH the weights alone."""
    if isinstance(model, HIH):
        save_checkpoint(folder, model.settled(), config)
    else:  # a competitor: no aligner reads it
        folder.mkdir(exist_ok=True)
        save_weights(cast("HIHNet", model), folder / WEIGHTS_FILE)


def calibrate_best(out: Path, dataset: Dataset, device: torch.device, *, decoder: bool, progress: bool) -> float | None:
    """Choose decoder and refining passes of ``best/`` and calibrate its scores, by validation faces.

    Args:
        out: the run's folder; ``best/`` gets a new config, and `CALIBRATION_FILE` says how it was chosen.
        dataset: the validation faces, of which at most `CALIBRATION_FACES` are used.
        device: where the network runs.
        decoder: choose decoder and refining passes, too; else the scores are calibrated alone.
        progress: draw progress bars on stderr, and say the result.

    Returns:
        the NME with what was chosen, in percent; None where ``best/`` is calibrated already.
    """
    aligner = FaceAligner.from_pretrained(out / BEST, device=device)
    if aligner.config.calibration:
        return None
    records = dataset.records
    some = np.unique(np.linspace(0, len(records) - 1, CALIBRATION_FACES).round().astype(int))
    faces = replace(dataset, records=tuple(records[i] for i in some))
    chosen = calibrate(aligner, faces, decoder=decoder, boxes=BOXES, progress=progress)
    write_config(out / BEST, chosen.config)
    with files.replacing(out / CALIBRATION_FILE) as temporary:
        temporary.write_text(markdown(chosen) + "\n", "utf-8")
    if progress:
        say(markdown(chosen))
    return chosen.passes[chosen.config.refine]["annotated"]


def gain(at: Progress) -> str:
    """A complete run's validation NME before and after, for people.

    Of a run without a matched start the best alone.
    """
    said = f"best: nme {at.best:.3f}"
    if at.start is not None:
        said = f"start, nothing trained: nme {at.start:.3f}; {said}"
    if at.untouched is not None and at.best_there is not None:
        said += (
            f"; landmarks that lie on the start network's own: the network as it was {at.untouched:.3f}, best "
            f"{at.best_there:.3f}"
        )
    return said


def conclude(at: Progress, best: Report | None) -> None:
    """Warn of what a complete run's figures say: nothing gained, a curve that still falls, errors that are too high.

    Args:
        at: the run's state at its end.
        best: how the best epoch of this session was measured, if there was one.
    """
    said = falling(at.curve)
    if at.start is not None and at.best is not None and at.best >= at.start:
        last = f", the last epoch's {at.curve[-1]:.3f}" if at.curve else ""
        said.append(
            f"training gained nothing: best/ is the start as it was, with a validation NME of {at.start:.3f} %{last}. "
            "More faces would help; hih-align adapt makes the same model in seconds"
        )
    for sentence in (*said, *(() if best is None else advice(best))):
        warnings.warn(sentence, stacklevel=3)


def save_diverged(
    path: Path, batches: Sequence[Batch], keys: Sequence[str], epoch: int, step: int, losses: dict[str, float]
) -> DivergedError:
    """Write the batch of a step whose losses are not finite, and give the error to raise.

    Args:
        path: the file.
        batches: the step's batch, in pieces.
        keys: of its faces' records.
        epoch, step: counted from 0.
        losses: by name.
    """
    content = {
        "images": torch.cat([batch.images for batch in batches]).cpu(),
        "points": torch.cat([batch.points for batch in batches]).cpu(),
        "weights": torch.cat([batch.weights for batch in batches]).cpu(),
        "keys": list(keys),
        "epoch": epoch,
        "step": step,
        "losses": losses,
    }
    with files.replacing(path) as temporary:
        torch.save(content, temporary)
    return DivergedError(
        f"the loss is no longer finite in epoch {epoch + 1}, step {step + 1} ({losses}); its batch "
        f"is in {path}, and {STATE_FILE} holds the last good state. A lower lr, a longer warmup or precision 'no' "
        "may help",
        path,
    )
