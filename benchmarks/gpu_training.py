"""Measure the training speed on a CUDA GPU in faces per second, for each way to run a step: `gpu.py --training`.

The steps are those of the trainer, on synthetic pictures. A step creates and augments a batch (recipe ``wild``), runs
the network, and computes loss, gradients, optimiser and moving average. The ways that are probably the fastest come
first. A way that could not end in time is not started. The report has the speed of the whole step, the speeds of its
parts alone, and a profile of the plain way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hih_align.data.records import Dataset, Labels, Record
from hih_align.schemes import WFLW
from hih_align.training.recipe import load_recipe
from hih_align.training.sampling import Source
from hih_align.training.supply import Stores, Waits
from hih_align.training.trainer import Trainer

#: The ways: size, faces per step, and ``compile`` of the recipe.
WAYS: tuple[tuple[str, int, bool | str], ...] = (
    ("T", 64, False),
    ("T", 64, "cudagraphs"),
    ("T", 256, False),
    ("B", 64, False),
    ("B", 64, "cudagraphs"),
    ("B", 256, False),
    ("S", 64, False),
    ("S", 64, "cudagraphs"),
    ("T", 256, "cudagraphs"),
    ("T", 64, "reduce-overhead"),
    ("T", 64, True),
    ("B", 64, True),
)

#: Shortest time in seconds for preparing and measuring a way. Compilers take longer.
LEAST = {False: 3.0, "cudagraphs": 10.0, "reduce-overhead": 60.0, True: 60.0}

FACES = 256


def made_faces(folder: Path, side: int = 256) -> Dataset:
    """Pictures of noise with random points in a box."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(16)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    low, high = 0.3 * side, 0.7 * side
    boxes = {"annotated": np.array([low, low, high, high])}
    records = []
    for number in range(FACES):
        labels = Labels(rng.uniform(low, high, (len(WFLW), 2)), np.ones(len(WFLW)))
        records.append(Record(paths[number % len(paths)], labels, boxes, key=str(number), size=(side, side)))
    return Dataset("noise", WFLW, tuple(records), folder)


class Steps:
    """The steps of a trainer, outside its loop.

    Args:
        trainer: a trainer that does not run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.stage = trainer, trainer.recipe.stages[0]
        self._waits = Waits(trainer.accelerator.device)
        self._batches = self._endless()
        trainer.net.train()

    def _endless(self) -> Iterator[Any]:
        for epoch in range(1 << 30):
            self.rows = self.trainer.order.epoch(epoch, self.stage.batch)
            yield from self.trainer._batches.steps(epoch, self.rows, self.stage, 0)

    def step(self) -> None:
        rows = self.trainer.order.epoch(0, self.stage.batch)[0]
        self.trainer._step(self.stage, 1e-5, rows, 0, self._batches, self._waits)

    def batch(self) -> None:
        next(self._batches)

    def forward(self) -> None:
        """Network, loss and gradients, for always the same batch."""
        trainer = self.trainer
        batch = self._same = getattr(self, "_same", None) or next(self._batches)
        output = trainer.net(batch.images, self.stage.subpixel)
        loss = trainer.model.loss(output, batch.points / 4, batch.weights, trainer.recipe.losses, 1000.0)
        trainer.accelerator.backward(loss.total)
        trainer.optimizer.zero_grad()


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rate(work: Callable[[], None], faces: int, seconds: float) -> float:
    """Faces per second of ``work``, measured for about ``seconds``. The caller has warmed up."""
    wait()
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < seconds:
        work()
        count += 1
        if count % 4 == 0:
            wait()
    wait()
    return count * faces / (time.perf_counter() - began)


def measure(
    dataset: Dataset, stores: Stores, way: tuple[str, int, bool | str], seconds: float, side: int
) -> dict[str, Any]:
    """Measure a way for about ``seconds``, on crops of ``side`` px. Returns its row of the report."""
    size, batch, how = way
    stage = {"size": side, "epochs": 1, "batch": batch, "lr": 1e-5, "schedule": "constant"}
    row: dict[str, Any] = {"size": f"HIH_{size}", "batch": batch, "compile": how}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = load_recipe("wild", size, {"stages": [stage], "compile": how, "calibrate": "no"})
            steps = Steps(Trainer(recipe, [Source(dataset)], Path(folder), progress=False, stores=stores))
            for _ in range(4):
                steps.step()
            wait()
            row["start_seconds"] = time.perf_counter() - began
            row["step"] = rate(steps.step, batch, seconds)
            if how is False:
                row["batch_alone"] = rate(steps.batch, batch, seconds / 3)
                row["network_alone"] = rate(steps.forward, batch, seconds / 3)
                if batch == 64 and size == "T":
                    row["profile"] = profile(steps)
        except Exception as error:  # another way may work
            row["error"] = (str(error).splitlines() or [type(error).__name__])[0]
    if torch.cuda.is_available():
        row["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.empty_cache()
    return row


def profile(steps: Steps, count: int = 5) -> list[dict[str, Any]]:
    """The operations that take most of the time of the GPU (without a GPU: of the CPU): name, calls per step, share."""
    on_gpu = torch.cuda.is_available()
    kind = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        for _ in range(count):
            steps.step()
        wait()
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: (event.count, getattr(event, name)) for event in profiler.key_averages()}
    whole = sum(spent for _, spent in times.values()) or 1.0
    first = sorted(times.items(), key=lambda item: -item[1][1])[:15]
    return [{"name": name[:80], "calls": calls / count, "share": spent / whole} for name, (calls, spent) in first]


def fastest(rows: list[dict[str, Any]], training_seconds: float = 120.0) -> dict[str, dict[str, Any]]:
    """For each size, the recipe keys with which a training of ``training_seconds`` sees most faces.

    Only ways with 64 faces per step are compared, because a training with larger steps gives another result.
    """
    found: dict[str, dict[str, Any]] = {}
    best: dict[str, float] = {}
    for row in rows:
        if "step" not in row or row["batch"] != 64:
            continue
        shown = row["step"] * max(0.0, training_seconds - row["start_seconds"])
        if shown > best.get(row["size"], 0.0):
            best[row["size"]], found[row["size"]] = shown, {"compile": row["compile"]}
    return found


def markdown(rows: list[dict[str, Any]], about: str) -> str:
    lines = [about, "", "| | batch | compile | faces/s | batch made alone | network alone | start, s | GB |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [row["size"], row["batch"], row["compile"]]
        if "error" in row:
            cells += [row["error"][:80]]
        else:
            cells += [f"{row['step']:,.0f}"]
            cells += [f"{row[name]:,.0f}" if name in row else "" for name in ("batch_alone", "network_alone")]
            cells += [f"{row['start_seconds']:.1f}", f"{row.get('memory_gb', 0):.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for row in rows:
        if "profile" in row:
            lines += ["", f"{row['size']}, {row['batch']} faces a step: share of the device's time, calls a step", ""]
            lines += [f"- {one['share']:.1%}  {one['calls']:.0f}  `{one['name']}`" for one in row["profile"]]
    return "\n".join(lines) + "\n"


def run(
    out: Path | None,
    seconds: float,
    about: str,
    ways: tuple[tuple[str, int, bool | str], ...] = WAYS,
    each: float = 1.5,
    side: int = 256,
) -> None:
    """Measure the ways for ``seconds`` in total. After each way, write ``gpu_training.json`` and ``.md`` in ``out``.

    Args:
        out: folder of the report; None: it is only printed.
        seconds: a way that could not end in this time is not started.
        about: first line of the report.
        ways: the ways, see `WAYS`.
        each: seconds for measuring the steps of a way.
        side: of the crops, in pixels.
    """
    began = time.perf_counter()
    rows: list[dict[str, Any]] = []
    stores = Stores()
    with tempfile.TemporaryDirectory() as folder:
        dataset = made_faces(Path(folder))
        for way in ways:
            if rows and seconds - (time.perf_counter() - began) < LEAST[way[2]]:
                continue
            rows.append(measure(dataset, stores, way, each, side))
            print({key: value for key, value in rows[-1].items() if key != "profile"}, file=sys.stderr, flush=True)
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                report = {"about": about, "rows": rows, "fastest": fastest(rows)}
                (out / "gpu_training.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
                (out / "gpu_training.md").write_text(markdown(rows, about), "utf-8")
    print(markdown(rows, about))


def main(arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    head = f"{about['gpu']}, CUDA {about['cuda']}, PyTorch {about['torch']}, {about['date']}: `{about['command']}`"
    run(arguments.out, arguments.seconds, head)
