"""A run with a time limit in seconds: the run ends in time, and the learning rate depends on the elapsed time."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from made_faces import lines, no_curve, small  # noqa: F401

from hih_align.data.annotations import Dataset
from hih_align.evaluation.results import Report
from hih_align.training import clock as clock_module
from hih_align.training.accelerator import pieces
from hih_align.training.recipe import Recipe
from hih_align.training.run_folder import Progress
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer

STAGE = {"epochs": 10, "size": 64, "batch": 2, "lr": 1e-3, "schedule": "cosine", "warmup": 1.0}


def timed(seconds: float, **changes: object) -> Recipe:
    return small(stages=[STAGE], seconds=seconds, **changes)


class Hours:
    """A clock that the test advances: 1 s for a step, 5 s for the first step, 3 s for a validation."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Told(Trainer):
    """A trainer that notes its learning rates. Only its first validation is computed; the others repeat its result."""

    hours: Hours
    rates: list[float]
    stop_at = -1
    report: Report | None = None

    def _step(self, stage, lr, *others):  # type: ignore[no-untyped-def]
        self.hours.now += 5 if self.progress.steps == 0 else 1
        self.rates.append(lr)
        super()._step(stage, lr, *others)
        if self.progress.steps + 1 == self.stop_at:
            self._stop.made = True

    def _validate(self, *given):  # type: ignore[no-untyped-def]
        self.report = super()._validate(*given) if self.report is None else self.report
        self.hours.now += 3
        return self.report


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    made = Hours()
    monkeypatch.setattr(clock_module, "perf_counter", made)
    return made


def told(recipe: Recipe, faces: tuple[Dataset, Dataset], out: Path, hours: Hours, **options: object) -> Told:
    trainer = Told(recipe, [Source(faces[0])], out, val=faces[1], progress=False, **options)
    trainer.hours, trainer.rates = hours, []
    return trainer


@pytest.fixture(scope="module")
def whole(faces: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run of 26 s, from second 100 on."""
    with pytest.MonkeyPatch.context() as patch:
        hours = Hours()
        patch.setattr(clock_module, "perf_counter", hours)
        trainer = told(timed(26), faces, tmp_path_factory.mktemp("whole") / "run", hours)
        result = trainer.run()
    assert result.completed
    assert (result.steps, result.epochs) == (10, 4)
    return trainer


def test_a_run_ends_in_time(faces: tuple[Dataset, Dataset], whole: Told, hours: Hours) -> None:
    """Three steps and a validation for each epoch take 5+1+1+3, 1+1+1+3 and 1+1+1+3 s.

    After them there is time for one step, because 3 s are kept free for its validation: 1+3 s.
    """
    assert whole.hours.now - 100 == 26
    told_lines = lines(whole.out)
    assert [line["steps"] for line in told_lines] == [3, 6, 9, 10]
    assert all("nme" in line for line in told_lines)
    assert (whole.out / "last" / "model.safetensors").is_file()
    # The first step may include a compilation, so it does not count. The steps have 18 s; the tenth step begins at 15 s
    share = (100 + 22 - 100 - 5) / (26 - 5 - 3)
    assert whole.rates[-1] == pytest.approx(whole.recipe.stages[0].rate(share * 10 * 3, 3))
    assert whole.rates[0] == pytest.approx(1e-3 / 3)  # the first rate of the warm-up, which lasts one epoch of ten
    assert max(whole.rates) < 1e-3
    assert told_lines[-1]["lr"] < 1e-4 < whole.rates[5]

    again = told(timed(26), faces, whole.out, hours, resume=True)
    assert again.run().completed
    assert again.rates == []


def test_an_interrupted_run_uses_the_rest_of_its_time(
    faces: tuple[Dataset, Dataset], whole: Told, tmp_path: Path, hours: Hours
) -> None:
    first = told(timed(26), faces, tmp_path / "run", hours)
    first.stop_at = 5
    assert not first.run().completed
    hours.now += 1000
    second = told(timed(26), faces, tmp_path / "run", hours, resume=True)
    assert second.run().completed
    assert second.progress.steps == 10
    assert hours.now - 1100 == 26
    assert first.rates + second.rates == pytest.approx(whole.rates)


def test_validations_are_epochs_apart_and_the_last_one_always_runs(
    faces: tuple[Dataset, Dataset], tmp_path: Path, hours: Hours
) -> None:
    told(timed(15, validate_every=100), faces, tmp_path / "run", hours).run()
    assert ["nme" in line for line in lines(tmp_path / "run")] == [False, False, False, True]


def test_seconds_are_checked() -> None:
    with pytest.raises(ValueError, match="seconds is 60 for 2 stages"):
        small(seconds=60)
    with pytest.raises(ValueError, match="seconds is 0"):
        timed(0)

    class Two:
        num_processes = 2

    with pytest.raises(ValueError, match="expected one process"):
        pieces(timed(60), Two())
    assert timed(60, min_steps=1000).with_steps(6).stages[0].epochs == 10


def test_without_seconds_the_clock_does_nothing() -> None:
    clock = clock_module.Clock(None, Progress())
    clock.tick()
    assert clock.share is None
    assert not clock.over
