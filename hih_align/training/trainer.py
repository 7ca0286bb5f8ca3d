"""The training loop. It runs on a CPU, a GPU or several GPUs. `run_folder` describes the files of a run.

Order and augmentation depend only on the recipe's seed and the place in the run. So a resumed run needs no random
state: in float32 on one CPU it reaches exactly the weights of a run that was never stopped.

The file has more than 400 lines because the loop is read as a whole. The modules beside it hold its parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..data.check import require_disjoint
from ..data.faces import LIMIT
from ..evaluation.evaluate import evaluate
from ..evaluation.normalizers import normalizer_text
from ..evaluation.results import Report
from ..hub.config import BEST, Config
from ..method.decoder import STRIDE, Decoder
from ..method.sizes import SIZES
from ..progress import say, warn
from ..signals import StopRequest
from .accelerator import make_accelerator, pieces, share_of
from .adaptation import candidates, closest, compared, comparison, other_starts
from .advice import other_boxes
from .augmentation import Batch
from .batches import Batches
from .beginning import begin, crops_of_start, may_grow
from .claim import Claim
from .clock import Clock
from .ema import EMA
from .grown import Grown, Kept, repeats
from .journal import Journal, epoch_line, epoch_record, tell_step
from .learner import HIH, Build, Learner, build_hih, compiled
from .matched_start import MatchedStart, Untrained, training_reach
from .optimizer import make_optimizer
from .outcome import DivergedError, Result, calibrate_best, conclude, gain, keep_network, network_config, save_diverged
from .pending import Pending
from .recipe import Recipe, Stage
from .run_folder import STATE_FILE, Progress, describe, load_state, read_run, save_state, stored_size, write_run
from .sampling import Indices, Order, Source, common_scheme
from .schedule import Schedule
from .supply import Stores, Supply, Waits, ahead
from .validation import Validator
from .warmstart import Start, load_start

#: Number of steps after which the duration of a run is estimated.
TIMED = 3

#: Seconds after which the line of an epoch without validation is printed. Epochs of few faces end faster.
QUIET = 10.0


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
    stores: Stores | None = None,
) -> Result:
    """Train a network.

    Args:
        recipe: the recipe.
        data: the training faces, all of one scheme, which becomes the scheme of the network.
        out: folder of the run; it is made if it does not exist.
        val: validation faces, which choose ``best/``. They must not be in ``data``; photographs are compared by
            content. Without them ``best/`` is the last epoch.
        init: start weights, see `load_start`; None: random weights. A size without a scheme ("HIH_T") stands for the
            published network of this scheme, else for the one with the lowest error by `adaptation.adapt`.
        resume: continue the run in ``out``, or start it if there is none yet.
        skip_bad: leave out faces whose photograph cannot be read. Without it they raise.
        limit: largest number of bytes of decoded faces on the device, for ``data`` and ``val`` together; of several
            processes on CPUs, each takes its part. If the faces need more, they are decoded when they are needed. The
            faces and the pieces that cover them are the same.
        workers: number of decoding threads.
        progress: draw progress bars on stderr.
        build: builds the network; HIH by default.
        stores: decoded faces that this run shares with other runs of the process.

    On SIGINT or SIGTERM (in the main thread) the current step is finished and the state is saved; then
    `Result.completed` is False. A second signal has its usual effect. ``torch.no_grad`` and ``torch.inference_mode`` of
    the caller have no effect.

    Start weights of a wider network are narrowed first (`narrow.fitted`).

    Raises:
        ValueError: data, recipe and start weights do not fit together; validation faces are among the training faces;
            the folder already holds a run (without ``resume``) or another run (with ``resume``).
        DivergedError: the loss became NaN or infinite.
        FileNotFoundError, OSError: data or start weights cannot be read.
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
        stores=stores,
    ).run()


class Trainer:
    """A training run. `train` makes one and runs it."""

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
        stores: Stores | None = None,
    ) -> None:
        scheme = common_scheme(data, val)
        for source in data:
            if not any(record.labels is not None for record in source.dataset.records):
                raise ValueError(f"data: no face of {source.dataset.source} has points")
        self.recipe, self.scheme, self.out = recipe, scheme, out
        self.accelerator = make_accelerator(recipe, build is not build_hih)
        self._show = progress and self.accelerator.is_main_process
        self._pieces = pieces(recipe, self.accelerator)
        limit = share_of(limit, self.accelerator)
        #: The precision of autocast: "no", "bf16" or "fp16". The recipe's "auto" leaves the choice to the hardware.
        self.precision = self.accelerator.mixed_precision
        self._claim = Claim(out) if self.accelerator.is_main_process else None  # before anything is read there
        with nullcontext() if self._claim is None else self._claim.unless_it_fails():
            description = describe(recipe, data, val, init)
            stored = read_run(out, description, resume)
            going_on = stored is not None and (out / STATE_FILE).is_file()
            faces = sum(record.labels is not None for source in data for record in source.dataset.records)
            if stored is not None and isinstance(init, str) and len(candidates(init, scheme)) > 1:
                init = stored.get("start", init)  # one of several was chosen
            if stored is not None and going_on and not (may_grow(recipe, faces) or stored.get("boxed", False)):
                init = None  # the state has all that the start weights gave
            tried = () if init is None or isinstance(init, Start) else candidates(init, scheme)
            start = init if isinstance(init, Start) else load_start(tried[0], scheme) if len(tried) == 1 else None
            if going_on:
                self.size = stored_size(cast("dict[str, Any]", stored))
            elif start is None and init is not None:
                self.size = recipe.network(SIZES[str(init)])  # all candidates have this size
            else:
                self.size = recipe.network(None if start is None else start.size)
            stages = tuple(replace(stage, size=stage.size or self.size.input_size) for stage in recipe.stages)
            recipe = replace(recipe, stages=stages)
            if stored is None or not going_on:
                of_start = crops_of_start(start, recipe, [r for s in data for r in s.dataset.records], scheme)
            else:
                of_start = stored.get("crop_ratio", recipe.crop_ratio)
            recipe = recipe.with_crops(of_start)
            how: dict[str, Any] = {"workers": workers, "skip_bad": skip_bad, "progress": self._show, "stores": stores}
            device = self.accelerator.device
            of_store: dict[str, Any] = {
                "side": recipe.store_side,
                "margin": recipe.store_margin,
                "device": device,
                "limit": limit,
            } | how
            self.faces = Supply([source.dataset for source in data], **of_store)
            of_crops: dict[str, Any] = {
                "crop_ratio": recipe.crop_ratio,
                "side": self.size.input_size,
                "limit": limit - self.faces.held,
            } | how
            self.val = None if val is None else Validator(val, self.accelerator, **of_crops)
            self._val_faces = None if self.val is None else self.val.dataset
            if self.val is not None:  # compare only faces whose photographs can be read
                require_disjoint([replace(data[0].dataset, records=self.faces.records)], self.val.dataset)
                for sentence in (*other_boxes(self.faces.records, self.val.faces.records), *self.val.advice):
                    warn(sentence)
            self.order = Order(self.faces.sources, [source.weight for source in data], recipe.seed)
            self._compared: dict[str, float] = {}
            seen = None
            if len(tried) > 1:
                known = Dataset("training faces", scheme, self.faces.records, Path())
                self._compared, seen = compared(tried, known, self._show)
                start = load_start(closest(self._compared), scheme)
            begun = begin(
                recipe,
                start,
                self.faces,
                scheme,
                self.size,
                build=build,
                device=device,
                progress=self._show and not going_on,
                lost=stored is not None and going_on and stored.get("lost", False),
                seen=seen,
            )
            #: The config of the matched start, if the faces got the boxes that it needs instead of their own.
            self._boxed: Config | None = None
            matched = begun.matched
            if matched is not None and start is not None and len(tried) < 2 and stored is None:
                for sentence in other_starts(start.source, matched.matching):
                    warn(sentence)
            if matched is not None and matched.rebox is not None and matched.crop_ratio == recipe.crop_ratio:
                self._boxed, rebox = matched.config, matched.rebox
                of = [self.faces.sources == number for number in range(len(data))]
                records = [tuple(compress(self.faces.records, rows)) for rows in of]
                del self.faces  # not twice in memory
                reboxed = [replace(s.dataset, records=rebox(some)) for s, some in zip(data, records, strict=True)]
                self.faces = Supply(reboxed, **of_store)
                if self.val is not None:
                    again = self.val.dataset
                    self.val = None
                    again = replace(again, records=rebox(again.records))
                    self.val = Validator(again, self.accelerator, **of_crops)
            self.recipe = recipe = begun.recipe.with_steps(self.order.faces)
            #: The matched start weights, which find the landmarks of the run without training.
            self.matched, self.warm_start = begun.matched, begun.warm_start
            self._reach = training_reach(self.faces.records)
            self._batches = Batches(recipe, scheme, self.faces, self.accelerator, self._pieces)
            if stored is not None and going_on and "decoder" in stored:
                self.decoder = Decoder(**stored["decoder"])
            else:
                self.decoder = begun.decoder(scheme)

            layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
            self.model: Learner = begun.model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
            self._kept: Kept | None = None
            if isinstance(self.model, Grown):
                free = limit - self.faces.held - (0 if self.val is None else self.val.faces.held)
                self._kept = Kept(self._batches, self.model, repeats(recipe.few, self.order.faces), free)
            self._schedule = Schedule(recipe.stages, self.order, None if self._kept is None else self._kept.epochs)
            self.ema = EMA(self.model, recipe.ema) if recipe.ema else None
            ready = compiled(self.model, recipe.compile)
            self.net, self.optimizer = self.accelerator.prepare(ready, make_optimizer(self.model, recipe, begun.fast))
            self.progress = Progress()
            self._stop, self._agreed = StopRequest(), False
            self._pending: Pending | None = None
            self._best: Report | None = None
            if going_on:
                scaler = self.accelerator.scaler
                self.progress = load_state(out, self.model, self.ema, self.optimizer, scaler, recipe.eps)
            taken = {"network": self.size._asdict(), "precision": self.precision, "skip_bad": skip_bad}
            taken |= {"crop_ratio": recipe.crop_ratio, "decoder": asdict(self.decoder)}
            if start is not None:
                taken |= {"start": start.source, "lost": bool(begun.fast), "boxed": self._boxed is not None}
            elif stored is not None:
                taken |= {key: stored[key] for key in ("start", "lost") if key in stored}
            self._clock = Clock(recipe.seconds, self.progress)
            # a run may continue on hardware with another precision
            changed = stored is None or not going_on or stored.get("precision") != self.precision
            moved = stored is not None and any(stored[key] != description[key] for key in ("data", "val", "init"))
            if self.accelerator.is_main_process and (changed or moved):
                write_run(out, description | taken)
            self.accelerator.wait_for_everyone()

    # -- the loop

    def limit(self, seconds: float) -> None:
        """Replace the recipe's ``seconds`` before `run`: the time to make a trainer is known only afterwards."""
        self.recipe = replace(self.recipe, seconds=seconds)
        self._clock = Clock(seconds, self.progress)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def run(self) -> Result:
        """Run the rest of the recipe.

        Raises:
            DivergedError: the loss or the validation error is not finite.
            ValueError: a later trainer of this process has the folder.
        """
        if self._claim is None:
            return self._run()
        self._claim.begin()
        try:
            return self._run()
        finally:
            self._claim.release()

    def _run(self) -> Result:
        at, seconds = self.progress, self.recipe.seconds
        out = self.out if self.accelerator.is_main_process else None
        journal = Journal(
            out,
            total=self._schedule.cost(self.recipe.epochs) if seconds is None else seconds,
            done=self._schedule.cost(at.epoch, at.step) if seconds is None else at.spent,
            epoch=at.epoch,
            steps=at.steps,
            progress=self._show,
        )
        with journal, self._stop.listening():
            journal.say(f"precision {self.precision}" + (" (auto)" if self.recipe.precision == "auto" else ""))
            if self._compared:
                journal.say(comparison(self._compared))
            if self.warm_start is not None:
                journal.say(self.warm_start.summary())
            if self.matched is not None:
                journal.say(self.matched.matching.text())
            if self.val is not None:
                unit = normalizer_text(self.val.normalizer)
                measured = f"{len(self.val.faces)} faces"
                if self.val.measured < len(self.val.faces):
                    measured += f", of which {self.val.measured} can be measured"
                journal.say(f"validation: {measured}, NME in percent of the {unit}")
                if not self._ended:
                    self._measure_start(journal)
            if self.matched is not None and isinstance(self.model, Grown) and not (self.model.learns or self._ended):
                self._take_start(self.matched, journal)
            self._begun, self._said = time.perf_counter(), float("-inf")
            self._clock.start()
            while not self._ended:
                if not self._epoch(journal):
                    self._save()
                    break
            journal.curve()
        if self._ended:
            self._calibrate()
            if self.val is not None and self.accelerator.is_main_process:
                if self._show and at.start is not None:
                    say(gain(at, self._boxed is not None))
                conclude(at, self._best)
        return Result(
            out=self.out,
            completed=self._ended,
            epochs=at.epoch,
            steps=at.steps,
            nme=None if self.val is None else at.best if at.calibrated is None else at.calibrated,
            warm_start=self.warm_start,
            normalizer=self.val.normalizer if self.val else None,
        )

    def _measure_start(self, journal: Journal) -> None:
        """Measure the matched start as epoch 0. It stays in ``best/`` until an epoch is clearly better.

        A run of several stages does not do this, because errors at different resolutions cannot be compared. Nor does a
        run of another size than the start's: its result must have this size.
        """
        at = self.progress
        if self.val is None or self.matched is None or at.steps or len(self.recipe.stages) > 1:
            return
        if self.matched.learner.network.size != self.size:
            return
        start = self._without_training(self.matched.learner, self.matched.config)
        at.start, at.best, at.best_stage = start.overall.nme, start.overall.nme, 0
        if len(self.matched.coinciding):
            untouched = self._without_training(self.matched.untouched, self.matched.as_it_is)
            at.untouched, at.best_there = (self._there(report) for report in (untouched, start))
        journal.say(f"start, without training: nme {at.start:.3f}")
        if self.accelerator.is_main_process:
            keep_network(self.out / BEST, self.matched.learner, self.matched.config)
        self.accelerator.wait_for_everyone()

    def _without_training(self, learner: Untrained, config: Config) -> Report:
        """The errors of the matched start on the validation faces.

        If the start needs other boxes or crops than those of the run, it is measured as an aligner, which makes them by
        itself.
        """
        assert self.val is not None
        assert self.matched is not None
        same_crops = self.matched.crop_ratio == self.recipe.crop_ratio
        if same_crops and (self.matched.rebox is None or self._boxed is not None):
            return self.val.measure(learner, self.decoder)
        aligner = FaceAligner(learner.network, config, device=self.accelerator.device, dtype="float32")
        return evaluate(aligner, self.val.dataset, normalizer=self.val.normalizer, progress=self._show)

    def _take_start(self, matched: MatchedStart, journal: Journal) -> None:
        """End the run with the matched start as the result, because no landmark has anything to learn."""
        journal.say("nothing to train: all landmarks are landmarks of the start network, and keep their points")
        for name in (BEST, "last"):
            if self.accelerator.is_main_process:
                keep_network(self.out / name, matched.learner, matched.config)
        self.progress.epoch, self.progress.ended = self.recipe.epochs, True
        self._save()

    @property
    def _ended(self) -> bool:
        """Whether all epochs, or all of the time, are behind the run."""
        at = self.progress
        return at.epoch >= self.recipe.epochs if self.recipe.seconds is None else at.ended

    @property
    def _told_epochs(self) -> int | None:
        return self.recipe.epochs if self.recipe.seconds is None else None

    def _rate(self, stage: Stage, first: int, step: int, steps: int) -> float:
        """Learning rate of a step of the epoch under way, which has ``steps``; the stage began with epoch ``first``."""
        share = self._clock.share
        along = (self.progress.epoch - first) * steps + step if share is None else share * stage.epochs * steps
        return stage.rate(along, steps)

    def _there(self, report: Report) -> float | None:
        """NME of the landmarks that coincide with landmarks of the start network. None if none of them is labelled."""
        assert self.matched is not None
        errors = report.landmark_nme[self.matched.coinciding]
        return None if np.isnan(errors).all() else float(np.nanmean(errors))

    def _estimate(self, journal: Journal, steps: int) -> None:
        """After the first steps, estimate the duration of the run and report it."""
        left = sum(self._schedule.steps(epoch) for epoch in range(self.recipe.epochs)) - steps
        at = self.progress
        share = self._schedule.cost(self.recipe.epochs) / self._schedule.cost(at.epoch, at.step) - 1
        minutes = round((time.perf_counter() - self._begun) * share / 60)
        said = {0: "less than a minute", 1: "about 1 minute"}.get(minutes, f"about {minutes} minutes")
        kept = "" if self._kept is None else f". Only the first {self._kept.epochs} epochs run the whole network"
        journal.say(f"{left} steps remain, {said}, plus validation{kept}")

    def _epoch(self, journal: Journal) -> bool:
        """Run the rest of the current epoch. Returns False if a signal ended it early."""
        at, accelerator = self.progress, self.accelerator
        number, stage, first = self._schedule.at(at.epoch)
        source: Batches | Kept = self._batches if self._kept is None else self._kept
        shown = at.epoch if self._kept is None else at.epoch % self._kept.epochs
        rows = self.order.epoch(shown, stage.batch)
        begun = time.perf_counter()
        self.net.train()
        if self.recipe.frozen_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if at.step == 0 and at.epoch == first and accelerator.is_main_process:
            journal.picture(f"batch-{stage.size}px", self._batches.picture(at.epoch, rows, stage), at.steps)
        waits = Waits(accelerator.device)
        worked = begun
        batches = source.steps(shown, rows[at.step :], stage, at.step)
        if accelerator.device.type == "cpu":  # a GPU works asynchronously anyway
            batches = ahead(batches)
        with closing(batches):
            for step in range(at.step, len(rows)):
                lr = self._rate(stage, first, step, len(rows))
                self._step(stage, lr, rows[step], step, batches, waits)
                at.step, at.steps = step + 1, at.steps + 1
                now = time.perf_counter()
                at.waited, at.worked, worked = at.waited + waits.take(), at.worked + now - worked, now
                spent = self._clock.tick()
                timed = self.recipe.seconds is not None
                cost = spent if timed else self._schedule.step_cost(at.epoch)
                tell_step(journal, at, self._told_epochs, stage, lr, cost)
                if at.steps == TIMED and not timed:
                    self._estimate(journal, at.steps)
                if self._stopping():
                    self._settle()
                    at.seconds += time.perf_counter() - begun
                    return False
                if self._clock.over:
                    break
        self._settle()
        at.ended = self._clock.over
        last = at.ended or (self.recipe.seconds is None and at.epoch + 1 == first + stage.epochs)
        validated = None
        if self.val is not None and (last or (at.epoch + 1 - first) % self.recipe.validate_every == 0):
            with self._clock.validation():
                validated = self._validate(stage, journal)
        self._clock.tick()
        if validated is not None:
            at.ended = self._clock.over  # there may be no time for another one
        at.seconds += time.perf_counter() - begun
        self._finish(journal, number, stage, self._rate(stage, first, len(rows) - 1, len(rows)), validated)
        return not self._stopping()

    def _step(self, stage: Stage, lr: float, rows: Indices, step: int, batches: Iterator[Batch], waits: Waits) -> None:
        recipe, accelerator, at = self.recipe, self.accelerator, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("rate", 1.0)
        # the count of the whole step: otherwise pieces with few labels would weigh more than others
        count = max(float(self.faces.labelled[rows].sum()), 1.0) / self._pieces
        values: list[Tensor] = []
        names: list[str] = []
        for piece in range(recipe.accumulate):
            with waits:
                batch = next(batches)
            ends = piece + 1 == recipe.accumulate
            with nullcontext() if ends else accelerator.no_sync(self.net):
                output = self.net(batch.images, stage.subpixel)
                loss = self.model.loss(output, batch.points / STRIDE, batch.weights, recipe.losses, count)
                accelerator.backward(loss.total / recipe.accumulate)
            names = ["loss", *loss.parts]
            values.append(torch.stack([loss.total.detach(), *loss.parts.values()]))
        if recipe.clip is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            # counted from the start of the stage, so that weights of another resolution are soon forgotten
            first = self._schedule.at(at.epoch)[2]
            self.ema.update((at.epoch - first) * self._schedule.steps(at.epoch) + step)
        # a signal does not reach all processes at once: they share it through the losses
        stop = values[0].new_full((1,), float(self._stop.made))
        summed = torch.cat((torch.stack(values).sum(0) / self._pieces, stop))
        if accelerator.num_processes > 1:
            summed = accelerator.reduce(summed, "sum")
        pending = Pending.sent(summed, names, rows, at.epoch, step)
        self._settle()
        self._pending = pending

    def _settle(self) -> None:
        """Read the losses of the last step."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        *values, stop = pending.arrived()
        self._agreed |= stop > 0
        if not all(math.isfinite(value) for value in values):
            stage = self._schedule.at(pending.epoch)[1]
            epoch = pending.epoch if self._kept is None else pending.epoch % self._kept.epochs
            batches = self._batches.steps(epoch, pending.rows[None], stage, start=pending.step)
            losses = dict(zip(pending.names, values, strict=True))
            path = self.out / f"diverged-{self.accelerator.process_index}.pt"
            keys = [self.faces.records[i].key for i in pending.rows]
            raise save_diverged(path, list(batches), keys, pending.epoch, pending.step, losses)
        sums = self.progress.sums
        for name, value in zip(pending.names, values, strict=True):
            sums[name] = sums.get(name, 0.0) + value
        sums["steps"] = sums.get("steps", 0.0) + 1

    def _stopping(self) -> bool:
        """Whether to stop now. With one process a signal counts at once, with several after all know of it."""
        return self._agreed or (self.accelerator.num_processes == 1 and self._stop.made)

    # -- the end of an epoch

    def _finish(self, journal: Journal, number: int, stage: Stage, lr: float, validated: Report | None) -> None:
        at = self.progress
        if validated is not None and not math.isfinite(validated.overall.nme):
            kept = f" {STATE_FILE} contains the state before this epoch." if (self.out / STATE_FILE).is_file() else ""
            raise DivergedError(
                f"the validation error is not finite after epoch {at.epoch + 1}: the weights are too large.{kept} "
                "A lower lr or a longer warmup may help"
            )
        if at.best_stage != number:  # errors at another resolution cannot be compared
            at.best, at.best_stage = None, number
        better = validated is not None and (at.best is None or validated.overall.nme < at.best)
        if validated is not None:
            at.curve.append(validated.overall.nme)
        if better and validated is not None:
            at.best, self._best = validated.overall.nme, validated
            at.best_there = None if self.matched is None or at.start is None else self._there(validated)
        if better or self.val is None:
            self._keep(BEST)
        record = epoch_record(at, number, stage, at.step, lr, validated)
        journal.epoch(record)
        journal.scalars({f"epoch/{k}": v for k, v in record.items() if isinstance(v, float)}, at.steps)
        if validated is not None or time.perf_counter() - self._said >= QUIET:
            journal.say(epoch_line(record, self._told_epochs))
            self._said = time.perf_counter()
        at.epoch, at.step, at.sums = at.epoch + 1, 0, {}
        at.seconds = at.waited = at.worked = 0.0
        if self._ended:
            self._keep("last")
        self._save()

    @property
    def averaged(self) -> Learner:
        """The network that is validated and saved: the moving average if there is one, else the network."""
        return self.model if self.ema is None else self.ema.model

    def _validate(self, stage: Stage, journal: Journal) -> Report:
        """Measure `averaged`.

        In the last stage it is measured as `evaluate` measures the checkpoint, whatever the resolution of the stage.
        In earlier stages, whose networks only start the next stage, it is measured at the stage's resolution.
        """
        assert self.val is not None
        accelerator, model = self.accelerator, self.averaged
        if accelerator.num_processes > 1:
            from accelerate.utils import broadcast

            for buffer in model.buffers():  # each process has its own batch norm statistics
                buffer.copy_(broadcast(buffer))
        as_aligned = stage is self.recipe.stages[-1] and isinstance(model, HIH)
        size, subpixel = (None, True) if as_aligned else (stage.size, stage.subpixel)
        report = self.val.measure(model, self.decoder, size, subpixel)
        if accelerator.is_main_process:
            journal.picture("validation", self.val.sheet(report), self.progress.steps)
        return report

    def _calibrate(self) -> None:
        """Choose decoder, refining passes and score calibration of ``best/`` on the validation faces, once.

        A matched start keeps the decoder and the passes of `adapt`: a few validation faces would often choose worse
        ones.
        """
        how, at = self.recipe.calibrate, self.progress
        if self._val_faces is None or how == "no" or at.calibrated is not None or not isinstance(self.averaged, HIH):
            return
        if self.accelerator.is_main_process:
            at.calibrated = calibrate_best(
                self.out,
                self._val_faces,
                self.accelerator.device,
                decoder=how == "all" and not at.keeps_start,
                progress=self._show,
            )
        self._save()

    @property
    def config(self) -> Config:
        """The config of the resulting network."""
        if isinstance(self.model, Grown) and self.matched is not None:
            return replace(self.matched.config, readout=self.model.readout, correction=None)  # the readout has both
        config = network_config(self.recipe, self.scheme, self.size, self.decoder, self._reach)
        if self._boxed is None:
            return config
        return replace(config, crop_ratio=self._boxed.crop_ratio, refine=self._boxed.refine, box=self._boxed.box)

    def _keep(self, name: str) -> None:
        """Write the network as a checkpoint into the subfolder ``name``."""
        if self.accelerator.is_main_process:
            keep_network(self.out / name, self.averaged, self.config)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.out, self.model, self.ema, self.optimizer, self.accelerator.scaler, self.progress)
        self.accelerator.wait_for_everyone()
