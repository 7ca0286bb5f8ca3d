"""The training loop: one CPU, one GPU or several, by the same call.

A run is a folder:

* ``run.json``: recipe, data and start weights; what a resumed run is checked against
* ``state.pt``: networks, optimiser and counters, written atomically every epoch and on SIGINT and SIGTERM
* ``best/``: the network of the lowest validation NME, measured as `evaluate` does, for `FaceAligner.from_pretrained`;
  ``last/``: the latest
* ``calibration.md``: how decoder, refining passes and scores of ``best/`` were chosen at the end
* ``metrics.jsonl``, ``curve.png``, ``tensorboard/``; ``validation.png``, the latest predictions, and
  ``batch-256px.png``, the first batch of that size with its targets

Order and augmentation are functions of the recipe's seed and the place in the run, so a resumed run needs no random
state: in float32 on one CPU it reaches the very weights of a run that was never stopped.
"""

from __future__ import annotations

import json
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import files
from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..data.check import require_disjoint
from ..data.faces import LIMIT
from ..evaluation.calibrate import calibrate, markdown
from ..evaluation.normalizers import normalizer_text
from ..evaluation.results import Report
from ..hub.checkpoints import BEST, WEIGHTS_FILE, Config, save_checkpoint, save_weights, write_config
from ..method import heatmaps
from ..method.network import SIZES, HIHNet, Size
from ..progress import say
from ..runtime.precision import autocast_precision
from .augmentation import Batch, augment, donor_faces, sample_seeds
from .ema import EMA
from .journal import RUN_FILE, Journal
from .learner import HIH, Build, Learner, build_hih
from .narrow import fitted
from .preview import preview
from .recipe import Recipe, Stage, recipe_from_dict
from .sampling import Indices, Order
from .supply import Shown, Supply, ahead
from .validation import Validator
from .warmstart import Start, WarmStart, load_start, warm_start

if TYPE_CHECKING:
    from accelerate import Accelerator

STATE_FILE = "state.pt"
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
class Source:
    """Faces to train on, and how many times an epoch shows them (0.5: half of them, in turn)."""

    dataset: Dataset
    weight: float = 1.0


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


@dataclass
class _Progress:
    """Where a run stands: all of its state that is not tensors. ``step`` counts within ``epoch``, which is under way;
    the fields from ``seconds`` on are for the epoch's line in the metrics."""

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_stage: int = -1
    seconds: float = 0.0
    waited: float = 0.0
    calibrated: float | None = None
    worked: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


class _Pending(NamedTuple):
    """A step whose loss has not been looked at yet: reading it at once would stall a GPU.

    ``values`` are on the CPU, once ``copied`` has happened on the GPU that they come from.
    """

    values: Tensor
    copied: torch.cuda.Event | None
    names: list[str]
    rows: Indices
    epoch: int
    step: int


def train(
    recipe: Recipe,
    data: Sequence[Source],
    out: str | Path,
    *,
    val: Dataset | None = None,
    init: str | Path | Start | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    limit: int = LIMIT,
    workers: int = 2,
    progress: bool = True,
    build: Build = build_hih,
) -> Result:
    """Train a network.

    Args:
        recipe: how.
        data: on what; all of one scheme, which is the network's.
        out: folder of the run, made if need be.
        val: faces that choose ``best/``; none of them may be among ``data`` (photographs are compared by content).
            Without them ``best/`` is the last epoch's.
        init: start weights, see `load_start`; random ones by default.
        resume: go on with the run in ``out``; start it where there is none yet.
        skip_bad: leave out faces whose photograph cannot be read instead of raising.
        limit: bytes of decoded faces to keep on the device, those of ``data`` and ``val`` together. Faces beyond it are
            decoded as they are needed; they are the same faces, and covered by the same pieces.
        workers: decoding threads or processes.
        progress: draw progress bars on stderr.
        build: makes the network under training; HIH by default.

    On SIGINT or SIGTERM (in the main thread) the step under way is finished and the state saved, and `Result.completed`
    is False; a second signal does what it does elsewhere. Whether the caller is inside ``torch.no_grad`` or
    ``torch.inference_mode`` changes nothing.

    Start weights of a wider network are narrowed first (`narrow.fitted`).

    Raises:
        ValueError: data, recipe and start weights that do not fit together; validation faces among the training
            faces; a folder that already holds a run (without ``resume``) or another one (with it).
        DivergedError: the loss became NaN or infinite.
        FileNotFoundError, OSError: as reading data and start weights raises them.
    """
    return Trainer(
        recipe,
        data,
        Path(out),
        val=val,
        init=init,
        resume=resume,
        skip_bad=skip_bad,
        limit=limit,
        workers=workers,
        progress=progress,
        build=build,
    ).run()


class Trainer:
    """A run under way; see `train`, which is this in one call."""

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self,
        recipe: Recipe,
        data: Sequence[Source],
        out: Path,
        *,
        val: Dataset | None = None,
        init: str | Path | Start | None = None,
        resume: bool = False,
        skip_bad: bool = False,
        limit: int = LIMIT,
        workers: int = 2,
        progress: bool = True,
        build: Build = build_hih,
    ) -> None:
        if not data:
            raise ValueError("data is empty, expected at least one source")
        scheme = data[0].dataset.scheme
        for name, dataset in [*((s.dataset.name, s.dataset) for s in data), *([(val.name, val)] if val else [])]:
            if dataset.scheme != scheme:
                raise ValueError(f"data {name!r} has scheme {dataset.scheme.id!r}, expected {scheme.id!r} as the first")
        self.recipe, self.scheme, self.out = recipe, scheme, out
        self.accelerator = _accelerator(recipe, build is not build_hih)
        self._show = progress and self.accelerator.is_main_process
        world = self.accelerator.num_processes
        self._pieces = world * recipe.accumulate
        for i, stage in enumerate(recipe.stages):
            if stage.batch % self._pieces:
                raise ValueError(
                    f"stages.{i}.batch is {stage.batch}, which {world} processes times accumulate {recipe.accumulate} "
                    "do not divide"
                )
        #: What autocast computes in: "no", "bf16" or "fp16"; the recipe may leave it to the hardware.
        self.precision = self.accelerator.mixed_precision
        description = _describe(recipe, data, val, init)
        stored = self._stored(description, resume)
        going_on = stored is not None and (out / STATE_FILE).is_file()
        start = None if going_on or init is None else init if isinstance(init, Start) else load_start(init, scheme)
        if going_on:
            self.size = stored_size(cast("dict[str, Any]", stored))
        else:
            self.size = recipe.network(None if start is None else start.size)
        stages = tuple(replace(stage, size=stage.size or self.size.input_size) for stage in recipe.stages)
        self.recipe = recipe = replace(recipe, stages=stages)
        how: dict[str, Any] = {"workers": workers, "skip_bad": skip_bad, "progress": self._show}
        device = self.accelerator.device
        self.faces = Supply(
            [source.dataset for source in data],
            side=recipe.store_side,
            margin=recipe.store_margin,
            device=device,
            limit=limit,
            **how,
        )
        left = limit - self.faces.held
        side = self.size.input_size
        self.val = None if val is None else Validator(val, self.accelerator, recipe.crop_ratio, side, limit=left, **how)
        if self.val is not None:  # of the faces whose photographs can be read
            require_disjoint([replace(data[0].dataset, records=self.faces.records)], self.val.dataset)
        self.order = Order(self.faces.sources, [source.weight for source in data], recipe.seed)
        rounding = recipe.losses.rounding
        self.decoder = replace(recipe.decoder, bin_offset=0.5) if rounding == "floor" else recipe.decoder

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = build(len(scheme), self.size)
        if start is not None and isinstance(model, HIH):
            start = fitted(start, self.size, self.faces, recipe)
        self.warm_start = warm_start(model, start, scheme) if start is not None else None
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model: Learner = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.ema = EMA(self.model, recipe.ema) if recipe.ema else None
        compiled = cast("Learner", torch.compile(self.model)) if recipe.compile else self.model
        self.net, self.optimizer = self.accelerator.prepare(compiled, _optimizer(self.model, recipe))
        self.progress = _Progress()
        self._stopped = self._agreed = False
        self._pending: _Pending | None = None
        if going_on:
            self._load()
        taken = {"network": self.size._asdict(), "precision": self.precision}
        # a run may go on where the hardware has another precision
        changed = stored is None or not going_on or stored.get("precision") != self.precision
        if changed and self.accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            with files.replacing(out / RUN_FILE) as temporary:
                temporary.write_text(json.dumps(description | taken, indent=1) + "\n", "utf-8")
        self.accelerator.wait_for_everyone()

    # -- the loop

    @torch.inference_mode(False)
    @torch.enable_grad()
    def run(self) -> Result:
        """Run what is left of the recipe."""
        at = self.progress
        costs = [self.order.steps(s.batch) * s.batch * s.size**2 for s in self.recipe.stages for _ in range(s.epochs)]
        step_cost = costs[min(at.epoch, len(costs) - 1)] * at.step // max(self._epoch_steps(at.epoch), 1)
        out = self.out if self.accelerator.is_main_process else None
        journal = Journal(
            out,
            total=sum(costs),
            done=sum(costs[: at.epoch]) + step_cost,
            epoch=at.epoch,
            steps=at.steps,
            progress=self._show,
        )
        with journal, self._signals():
            journal.say(f"precision {self.precision}" + (" (auto)" if self.recipe.precision == "auto" else ""))
            if self.warm_start is not None:
                journal.say(self.warm_start.summary())
            if self.val is not None:
                unit = normalizer_text(self.val.normalizer)
                journal.say(f"validation: {len(self.val.faces)} faces, NME in percent of the {unit}")
            while at.epoch < self.recipe.epochs:
                if not self._epoch(journal):
                    self._save()
                    break
            journal.curve()
        if at.epoch >= self.recipe.epochs:
            self._calibrate()
        return Result(
            out=self.out,
            completed=at.epoch >= self.recipe.epochs,
            epochs=at.epoch,
            steps=at.steps,
            nme=None if self.val is None else at.best if at.calibrated is None else at.calibrated,
            warm_start=self.warm_start,
            normalizer=self.val.normalizer if self.val else None,
        )

    def _stage(self, epoch: int) -> tuple[int, Stage, int]:
        """Number of the stage that an epoch is in, the stage, and its first epoch."""
        first = 0
        for number, stage in enumerate(self.recipe.stages):
            if epoch < first + stage.epochs:
                return number, stage, first
            first += stage.epochs
        return len(self.recipe.stages) - 1, self.recipe.stages[-1], first - self.recipe.stages[-1].epochs

    def _epoch_steps(self, epoch: int) -> int:
        return self.order.steps(self._stage(epoch)[1].batch)

    def _epoch(self, journal: Journal) -> bool:
        """The rest of the epoch under way; False if a signal ended it early."""
        at, accelerator = self.progress, self.accelerator
        number, stage, first = self._stage(at.epoch)
        rows = self.order.epoch(at.epoch, stage.batch)
        begun = time.perf_counter()
        self.net.train()
        if self.recipe.frozen_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if at.step == 0 and at.epoch == first:
            self._show_batch(journal, rows[:1], stage)
        waits = _Waits(accelerator.device)
        worked = begun
        batches = self._batches(at.epoch, rows[at.step :], stage, at.step)
        if accelerator.device.type == "cpu":  # a GPU's queue is ahead by itself
            batches = ahead(batches)
        with closing(batches):
            for step in range(at.step, len(rows)):
                lr = stage.rate((at.epoch - first) * len(rows) + step, len(rows))
                self._step(stage, lr, rows[step], step, batches, waits)
                at.step, at.steps = step + 1, at.steps + 1
                now = time.perf_counter()
                at.waited, at.worked, worked = at.waited + waits.take(), at.worked + now - worked, now
                self._tell(journal, stage, lr, at.step)
                if self._stopping():
                    self._settle()
                    at.seconds += time.perf_counter() - begun
                    return False
        self._settle()
        last = at.epoch + 1 == first + stage.epochs
        validated = None
        if self.val is not None and (last or (at.epoch + 1 - first) % self.recipe.validate_every == 0):
            validated = self._validate(stage, journal)
        at.seconds += time.perf_counter() - begun
        self._finish(journal, number, stage, len(rows), validated)
        return not self._stopping()

    def _step(self, stage: Stage, lr: float, rows: Indices, step: int, batches: Iterator[Batch], waits: _Waits) -> None:
        recipe, accelerator, at = self.recipe, self.accelerator, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # of the whole step's batch: pieces with few labels must not weigh more than others
        count = max(float(self.faces.labelled[rows].sum()), 1.0) / self._pieces
        values: list[Tensor] = []
        names: list[str] = []
        for piece in range(recipe.accumulate):
            with waits:
                batch = next(batches)
            ends = piece + 1 == recipe.accumulate
            with nullcontext() if ends else accelerator.no_sync(self.net):
                output = self.net(batch.images, stage.subpixel)
                loss = self.model.loss(output, batch.points / heatmaps.STRIDE, batch.weights, recipe.losses, count)
                accelerator.backward(loss.total / recipe.accumulate)
            names = ["loss", *loss.parts]
            values.append(torch.stack([loss.total.detach(), *loss.parts.values()]))
        if recipe.clip is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            # from the stage's start: weights that another resolution was learnt with are forgotten soon
            first = self._stage(at.epoch)[2]
            self.ema.update((at.epoch - first) * self._epoch_steps(at.epoch) + step)
        # signals do not reach all processes at once: they agree on one through the losses
        stop = values[0].new_full((1,), float(self._stopped))
        summed = torch.cat((torch.stack(values).sum(0) / self._pieces, stop))
        if accelerator.num_processes > 1:
            summed = accelerator.reduce(summed, "sum")
        copied = None
        if summed.is_cuda:  # asked for now and read a step later, when no step has to be waited for
            summed, copied = summed.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._settle()
        self._pending = _Pending(summed, copied, names, rows, at.epoch, step)

    def _settle(self) -> None:
        """Look at the last step's losses."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        *values, stop = pending.values.tolist()
        self._agreed |= stop > 0
        if not all(math.isfinite(value) for value in values):
            self._diverged(pending, dict(zip(pending.names, values, strict=True)))
        sums = self.progress.sums
        for name, value in zip(pending.names, values, strict=True):
            sums[name] = sums.get(name, 0.0) + value
        sums["steps"] = sums.get("steps", 0.0) + 1

    def _stopping(self) -> bool:
        """Whether to stop now; in one process a signal counts at once, in several once all have heard of it."""
        return self._agreed or (self.accelerator.num_processes == 1 and self._stopped)

    def _batches(self, epoch: int, rows: Indices, stage: Stage, start: int) -> Generator[Batch]:
        """This process's pieces of the batches of steps from ``start`` on, augmented."""
        recipe, accelerator = self.recipe, self.accelerator
        # a face's seed goes by its place in the epoch, not its number: an epoch may show it twice
        places = start * rows.shape[1] + np.arange(rows.size)
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        own, places = (
            values.reshape(len(rows), self._pieces, -1)[:, mine].reshape(-1, rows.shape[1] // self._pieces)
            for values in (rows, places)
        )
        seeds = [sample_seeds(recipe.seed, epoch, place) for place in places]
        donors = [donor_faces(recipe.augmentation, some, len(self.faces)) for some in seeds]
        for shown, some in zip(self.faces.batches(list(own), donors), seeds, strict=True):
            yield self._augment(shown, some, stage)

    def _show_batch(self, journal: Journal, rows: Indices, stage: Stage) -> None:
        """A picture of an epoch's first batch with its targets."""
        if not self.accelerator.is_main_process:
            return
        batch = next(self._batches(self.progress.epoch, rows, stage, 0))
        losses = self.recipe.losses
        sheet = preview(
            batch,
            self.scheme,
            decimal_size=self.recipe.decimal_size,
            integer_sigma=losses.integer_sigma,
            decimal_sigma=losses.decimal_sigma,
            rounding=losses.rounding,
        )
        journal.picture(f"batch-{stage.size}px", sheet, self.progress.steps)

    def _augment(self, shown: Shown, seeds: Tensor, stage: Stage) -> Batch:
        recipe = self.recipe
        batch = augment(
            *shown.faces,
            settings=recipe.augmentation,
            seeds=seeds,
            permutation=self.scheme.permutation,
            crop_ratio=recipe.crop_ratio,
            margin=recipe.store_margin,
            size=stage.size,
            donors=shown.donors,
            pick=shown.pick,
        )
        if not recipe.channels_last:
            return batch
        return batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))

    def _diverged(self, pending: _Pending, losses: dict[str, float]) -> None:
        """Save the batch and raise."""
        stage = self._stage(pending.epoch)[1]
        path = self.out / f"diverged-{self.accelerator.process_index}.pt"
        batches = list(self._batches(pending.epoch, pending.rows[None], stage, start=pending.step))
        content = {
            "images": torch.cat([batch.images for batch in batches]).cpu(),
            "points": torch.cat([batch.points for batch in batches]).cpu(),
            "weights": torch.cat([batch.weights for batch in batches]).cpu(),
            "keys": [self.faces.records[i].key for i in pending.rows],
            "epoch": pending.epoch,
            "step": pending.step,
            "losses": losses,
        }
        with files.replacing(path) as temporary:
            torch.save(content, temporary)
        raise DivergedError(
            f"the loss is no longer finite in epoch {pending.epoch + 1}, step {pending.step + 1} ({losses}); its batch "
            f"is in {path}, and {STATE_FILE} holds the last good state. A lower lr, a longer warmup or precision 'no' "
            "may help",
            path,
        )

    # -- the end of an epoch

    def _finish(self, journal: Journal, number: int, stage: Stage, steps: int, validated: Report | None) -> None:
        at = self.progress
        if at.best_stage != number:  # errors at another resolution do not compare
            at.best, at.best_stage = None, number
        better = validated is not None and (at.best is None or not at.best <= validated.overall.nme)
        if better and validated is not None:
            at.best = validated.overall.nme
        if better or self.val is None:
            self._keep(BEST)
        counted = max(at.sums.pop("steps", 0.0), 1.0)
        means = {name: value / counted for name, value in at.sums.items()}
        record: dict[str, Any] = {
            "epoch": at.epoch + 1,
            "stage": number,
            "size": stage.size,
            "steps": at.steps,
            "lr": stage.rate((at.epoch + 1 - self._stage(at.epoch)[2]) * steps - 1, steps),
            **means,
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
        journal.epoch(record)
        journal.scalars({f"epoch/{k}": v for k, v in record.items() if isinstance(v, float)}, at.steps)
        journal.say(_line(record, self.recipe.epochs))
        at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
        at.seconds = at.waited = at.worked = 0.0
        if at.epoch == self.recipe.epochs:
            self._keep("last")
        self._save()

    def _tell(self, journal: Journal, stage: Stage, lr: float, step: int) -> None:
        at = self.progress
        count = max(at.sums.get("steps", 0.0), 1.0)
        parts = {name: value / count for name, value in at.sums.items() if name != "steps"}
        speed = step * stage.batch / max(at.worked, 1e-9)
        share = at.waited / max(at.worked, 1e-9)
        values = {name: f"{value:.2e}" for name, value in parts.items()}
        values |= {"img/s": f"{speed:.1f}", "wait": f"{share:.1%}"}
        if at.best is not None:
            values = {"nme": f"{at.best:.3f}"} | values
        journal.advance(
            stage.batch * stage.size**2, f"epoch {at.epoch + 1}/{self.recipe.epochs} {stage.size}px ", values
        )
        if at.steps % 20 == 0:
            scalars = {f"step/{name}": value for name, value in parts.items()}
            journal.scalars(scalars | {"step/lr": lr, "step/images_per_second": speed, "step/wait": share}, at.steps)

    @property
    def averaged(self) -> Learner:
        """The network that is validated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.model

    def _validate(self, stage: Stage, journal: Journal) -> Report:
        """Measure `averaged`. The last stage is measured as `evaluate` measures the checkpoint, whatever its own
        resolution; the ones before, whose networks only start the next, at theirs."""
        assert self.val is not None
        accelerator, model = self.accelerator, self.averaged
        if accelerator.num_processes > 1:
            from accelerate.utils import broadcast

            for buffer in model.buffers():  # batch norm statistics are each process's own
                buffer.copy_(broadcast(buffer))
        as_aligned = stage is self.recipe.stages[-1] and isinstance(model, HIH)
        size, subpixel = (None, True) if as_aligned else (stage.size, stage.subpixel)
        report = self.val.measure(model, self.decoder, size, subpixel)
        if accelerator.is_main_process:
            journal.picture("validation", self.val.sheet(report), self.progress.steps)
        return report

    def _calibrate(self) -> None:
        """Decoder, refining passes and score calibration of ``best/`` by the validation faces, unless it has them."""
        how, at = self.recipe.calibrate, self.progress
        if self.val is None or how == "no" or at.calibrated is not None or not isinstance(self.averaged, HIH):
            return
        if self.accelerator.is_main_process:
            aligner = FaceAligner.from_pretrained(self.out / BEST, device=self.accelerator.device)
            if not aligner.config.calibration:
                records = self.val.dataset.records
                some = np.unique(np.linspace(0, len(records) - 1, CALIBRATION_FACES).round().astype(int))
                faces = replace(self.val.dataset, records=tuple(records[i] for i in some))
                chosen = calibrate(aligner, faces, decoder=how == "all", progress=self._show)
                write_config(self.out / BEST, chosen.config)
                with files.replacing(self.out / CALIBRATION_FILE) as temporary:
                    temporary.write_text(markdown(chosen) + "\n", "utf-8")
                at.calibrated = chosen.passes[chosen.config.refine]["annotated"]
                if self._show:
                    say(markdown(chosen))
        self._save()

    # -- files

    def _keep(self, name: str) -> None:
        """Write the network as a checkpoint folder."""
        if not self.accelerator.is_main_process:
            return
        model, folder = self.averaged, self.out / name
        if isinstance(model, HIH):
            save_checkpoint(folder, model.network, self.config)
        else:  # a competitor: no aligner reads it
            folder.mkdir(exist_ok=True)
            save_weights(cast("HIHNet", model), folder / WEIGHTS_FILE)

    @property
    def config(self) -> Config:
        """Of the network that comes out."""
        recipe = self.recipe
        size = self.size
        names = {known: name for name, known in SIZES.items()}
        return Config(
            scheme=self.scheme,
            **size._asdict(),
            name=f"{names.get(size._replace(decimal_size=8), f'HIH_{size.stacks}')}/{self.scheme.id}",
            crop_ratio=recipe.crop_ratio,
            rounding=recipe.losses.rounding,
            decoder=self.decoder,
        )

    def _stored(self, description: dict[str, Any], resume: bool) -> dict[str, Any] | None:
        """What the run in the folder was started with, if there is one; raises if it cannot be this one."""
        path = self.out / RUN_FILE
        if not path.is_file():
            return None
        if not resume:
            raise ValueError(f"out: {self.out} holds a run already; resume it, or choose another folder")
        stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
        stored["recipe"] = recipe_from_dict(stored["recipe"], str(path)).to_dict()  # keys that are new since
        if differing := _differences(stored, json.loads(json.dumps(description))):
            raise ValueError(
                f"out: {self.out} holds another run, it differs in {', '.join(differing[:5])}: resume it with what it "
                "was started with"
            )
        return stored

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "model": self.model.state_dict(),
                "ema": None if self.ema is None else self.ema.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "progress": asdict(self.progress),
            }
            with files.replacing(self.out / STATE_FILE) as temporary:
                torch.save(state, temporary)
        self.accelerator.wait_for_everyone()

    def _load(self) -> None:
        path = self.out / STATE_FILE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.model.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(_unscaled(state["optimizer"], self.recipe.eps))
            if self.accelerator.scaler is not None and state["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.progress = _Progress(**state["progress"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"out: {path} cannot be resumed from: {str(error).splitlines()[0]}") from error

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask the loop to stop; the second of a kind does what it did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}

        def ask(number: int, frame: object) -> None:
            self._stopped = True
            signal.signal(number, before[number])

        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.getsignal(number)
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Waits:
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


def stored_size(run: dict[str, Any]) -> Size:
    """The network of a ``run.json``; runs of version 0.1 say its stacks alone."""
    if "network" in run:
        return Size(**run["network"])
    return Size(int(run["stacks"]), int(run["recipe"]["decimal_size"]))


def _accelerator(recipe: Recipe, rival: bool) -> Accelerator:
    from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import parse_flag_from_env

    precision = autocast_precision(recipe.precision, PartialState(parse_flag_from_env("ACCELERATE_USE_CPU")).device)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # an earlier run of this process with another precision
    # stages leave the head out; a rival may have layers that feed nothing
    unused = rival or not all(stage.subpixel for stage in recipe.stages)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=unused)]
    return Accelerator(mixed_precision=precision, kwargs_handlers=handlers)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0 if recipe.optimizer == "adamw" else recipe.weight_decay},
    ]
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.stages[0].lr, betas=recipe.betas, eps=recipe.eps, fused=True)


def _unscaled(state: dict[str, Any], eps: float) -> dict[str, Any]:
    """Adam's state for gradients as they are, in place. Runs of version 0.1 multiplied the loss by a factor, which is
    in the moments; their eps was larger by it."""
    for group in state["param_groups"]:
        factor = group["eps"] / eps
        if math.isclose(factor, 1):
            continue
        for moments in (state["state"][index] for index in group["params"] if index in state["state"]):
            moments["exp_avg"] /= factor
            moments["exp_avg_sq"] /= factor**2
        group["eps"] = eps
    return state


def _describe(recipe: Recipe, data: Sequence[Source], val: Dataset | None, init: object) -> dict[str, Any]:
    from .. import __version__

    def dataset(d: Dataset) -> dict[str, Any]:
        return {"path": str(Path(d.source).resolve()), "faces": len(d.records)}

    return {
        "version": __version__,
        "recipe": recipe.to_dict(),
        "scheme": data[0].dataset.scheme.to_dict(),
        "data": [{**dataset(source.dataset), "weight": source.weight} for source in data],
        "val": None if val is None else {**dataset(val), "where": val.chosen},
        "init": init.source if isinstance(init, Start) else None if init is None else str(init),
    }


#: What the description of a run holds that it was not asked for: the version may differ, the rest follows from the
#: other keys and the machine.
_TAKEN = ("version", "stacks", "network", "precision")


def _differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Keys in which two descriptions of runs differ, but for those of `_TAKEN`."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in {**a, **b} if where or key not in _TAKEN]
        return [d for key in keys for d in _differences(a.get(key), b.get(key), f"{where}.{key}" if where else key)]
    return [] if a == b else [f"{where} ({a!r} there)" if not isinstance(a, (dict, list)) else where]


def _line(record: dict[str, Any], epochs: int) -> str:
    parts = [f"epoch {record['epoch']}/{epochs} {record['size']}px", f"loss {record['loss']:.2e}"]
    if "nme" in record:
        parts.append(f"nme {record['nme']:.3f} (best {record['best']:.3f})")
    parts.append(f"{record['images_per_second']:.1f} img/s, waiting {record['data_share']:.1%}")
    return ", ".join(parts)
