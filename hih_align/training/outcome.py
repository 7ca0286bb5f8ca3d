"""The results of a run: checkpoints, the calibration of the best one, a `Result`, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from .. import files
from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..data.records import spread
from ..evaluation.calibrate import BOXES, calibrate, markdown
from ..evaluation.evaluate import evaluate
from ..evaluation.results import Report
from ..hub.checkpoints import WEIGHTS_FILE, save_checkpoint, save_weights
from ..hub.config import BEST, Config, write_config
from ..method.decoder import Decoder
from ..method.network import HIHNet
from ..method.sizes import SIZES, Size
from ..progress import say, warn
from ..schemes import Scheme
from .advice import advice, falling
from .augmentation import Batch
from .learner import HIH, Learner
from .recipe import Recipe
from .run_folder import STATE_FILE, Progress
from .warmstart import WarmStart

CALIBRATION_FILE = "calibration.md"

#: Largest number of validation faces for the choice of the decoder and the calibration at the end of a run. They are
#: spread evenly over the validation data.
CALIBRATION_FACES = 400


class DivergedError(ValueError):
    """The loss or the validation error is not finite. ``batch`` is the file with the batch of the loss, or None."""

    def __init__(self, message: str, batch: Path | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM stopped a run before its end. ``out`` is its folder. The run can be resumed from it."""

    def __init__(self, message: str, out: Path) -> None:
        super().__init__(message)
        self.out = out


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        out: the folder of the run.
        completed: whether all epochs are done. If not, a signal stopped the run, and it can be resumed.
        epochs: number of epochs that are done.
        steps: number of optimiser steps that are done.
        nme: validation NME of ``best/`` in percent of ``normalizer``, as `evaluate` reports it. None without
            validation.
        normalizer: name of the distance that the NME is a percentage of, see `normalizers.choose_normalizer`. None
            without validation.
        warm_start: the tensors that were copied from the start weights. None without start weights.
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
    """The config of the trained network. ``box`` is as in `Config`."""
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
    """Write a network as a checkpoint folder. For a network that is not HIH, write only the weights."""
    if isinstance(model, HIH):
        save_checkpoint(folder, model.settled(), config)
    else:  # a network for comparison, which `FaceAligner` cannot load
        folder.mkdir(exist_ok=True)
        save_weights(cast("HIHNet", model), folder / WEIGHTS_FILE)


def calibrate_best(out: Path, dataset: Dataset, device: torch.device, *, decoder: bool, progress: bool) -> float | None:
    """Choose the decoder and the refining passes of ``best/`` and calibrate its scores, on validation faces.

    Args:
        out: the folder of the run. ``best/`` gets a new config, and `CALIBRATION_FILE` describes the choice.
        dataset: the validation faces. At most `CALIBRATION_FACES` of them choose. All of them are measured.
        device: the device that runs the network.
        decoder: choose the decoder and the refining passes. If False, only the scores are calibrated.
        progress: draw progress bars and print the result on stderr.

    Returns:
        NME in percent with the chosen settings. None if ``best/`` is already calibrated.
    """
    aligner = FaceAligner.from_pretrained(out / BEST, device=device)
    if aligner.config.calibration:
        return None
    records = dataset.records
    some = spread(len(records), CALIBRATION_FACES)
    faces = replace(dataset, records=tuple(records[i] for i in some))
    chosen = calibrate(aligner, faces, decoder=decoder, boxes=BOXES, progress=progress)
    write_config(out / BEST, chosen.config)
    with files.replacing(out / CALIBRATION_FILE) as temporary:
        temporary.write_text(markdown(chosen) + "\n", "utf-8")
    if progress:
        say(markdown(chosen))
    if len(some) == len(records):
        return chosen.passes[chosen.config.refine]["annotated"]
    best = FaceAligner.from_pretrained(out / BEST, device=device)
    return evaluate(best, dataset, normalizer=chosen.normalizer, progress=progress).overall.nme


def gain(at: Progress, reboxed: bool = False) -> str:
    """A text with the validation NME of a complete run, before and after training.

    For a run without a matched start, only the NME after training. ``reboxed``: the run took the boxes of the points
    that the start network finds in place of the boxes of the faces.
    """
    said = f"best: nme {at.best:.3f}"
    if at.start is not None:
        said = f"start, without training: nme {at.start:.3f}; {said}"
    if at.calibrated is not None:
        said += f", and {at.calibrated:.3f} after calibration"
        if reboxed:
            said += " and in the boxes of the faces (before: in boxes of the points that the start network finds)"
        elif at.best is not None and at.calibrated > at.best:
            said += " (decoder and passes are chosen for annotated and shifted boxes together)"
    if at.untouched is not None and at.best_there is not None:
        said += (
            f"; landmarks that coincide with those of the start network: start network {at.untouched:.3f}, best "
            f"{at.best_there:.3f}"
        )
    return said


def conclude(at: Progress, best: Report | None) -> None:
    """Warn if a complete run gained nothing, if its error still falls, or if its errors are too high.

    Args:
        at: the state of the run at its end.
        best: the validation report of the best epoch of this session. None if there is none.
    """
    said = falling(at.curve)
    if at.steps and at.keeps_start:
        last = f". After the last epoch it was {at.curve[-1]:.3f} %" if at.curve else ""
        said.append(
            f"training gained nothing: best/ is the untrained start, with a validation NME of {at.start:.3f} %{last}. "
            "More faces may help. hih-align adapt creates the same model in seconds"
        )
    for sentence in (*said, *(() if best is None else advice(best))):
        warn(sentence)


def save_diverged(
    path: Path, batches: Sequence[Batch], keys: Sequence[str], epoch: int, step: int, losses: dict[str, float]
) -> DivergedError:
    """Write the batch of a step with losses that are not finite. Returns the error, which the caller raises.

    Args:
        path: the file.
        batches: the pieces of the step's batch.
        keys: the keys of the records of its faces.
        epoch, step: indices of the epoch and of the step, from 0.
        losses: the losses by name.
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
    kept: Path | None = path
    try:
        with files.disk_errors(path), files.replacing(path) as temporary:
            torch.save(content, temporary)
        where = f"Its batch is in {path}"
    except OSError as error:  # a full disk must not hide that the run diverged
        kept, where = None, f"Its batch is not kept ({error})"
    return DivergedError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({losses}). {where}, and {STATE_FILE} contains "
        "the last good state. A lower lr, a longer warmup or precision 'no' may help",
        kept,
    )
