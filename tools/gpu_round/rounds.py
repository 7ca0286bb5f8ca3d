"""A round on the GPU machine: it runs the checks while faces are decoded, and then trains.

It writes parcels of the results all the time. It uses only the standard library until the packages of the volume are
installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import cargo, parcel

#: Seconds before the end at which training gets a signal to stop, and at which it is killed.
STOP, KILL = 14.0, 6.0

#: Seconds between two checks for new results, and smallest number of seconds between two parcels.
LOOK, PARCEL = 0.5, 10.0

#: Patterns of the small files that are sent back. The most important files come first.
SMALL = ("*.txt", "*.log", "checks/*", "checks/*/*", "*/result.json", "*/metrics.jsonl", "*/run.json", "*/curve.png")


@dataclass
class Check:
    """A command with a time limit in seconds. Its output goes to ``checks/NAME.log``."""

    name: str
    command: Sequence[str]
    limit: float


def checks(round_folder: Path) -> list[Check]:
    """The checks of a round. Together they take less than two minutes."""
    tests = ["tests/runtime/test_cuda.py", "tests/runtime/test_fused.py", "tests/training/test_trainer.py"]
    out = round_folder / "checks"
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "--durations=5"]
    speed = ["benchmarks/gpu.py", "--sizes", "HIH_T", "--dtypes", "float16", "--rounds", "3", "--seconds", "1.5"]
    steps = ["benchmarks/gpu.py", "--training", "--seconds", "38"]
    return [
        Check("tests", [sys.executable, *pytest, *tests], 45),
        Check("speed", [sys.executable, *speed, "--out", str(out / "speed")], 30),
        Check("training", [sys.executable, *steps, "--out", str(out / "training")], 43),
    ]


@dataclass
class Round:
    """A running round.

    Attributes:
        root: folder of the checkout.
        folder: folder of the cargo.
        plan: file of the plan.
        out: folder of the parcel.
        seconds: time limit of the whole round.
        checks: commands that run before the training.
        train: whether networks are trained.
        workers: number of threads that decode pictures.
    """

    root: Path
    folder: Path
    plan: Path
    out: Path
    seconds: float
    checks: Sequence[Check]
    train: bool = True
    workers: int = 16
    _stopped: bool = False
    _parcelled: float = 0.0
    _seen: dict[str, float] = field(default_factory=dict)

    def run(self) -> int:
        """Run the round. Returns the exit status: 0, or 1 if a check or the training failed, or a signal stopped it."""
        self.end = time.time() + self.seconds
        self.results = self.folder / "round"
        (self.results / "checks").mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        cargo.unstow(self.folder, self.root)
        self._environment = environment(self.root, self.folder)
        go, failed = self.results / "go", False
        go.unlink(missing_ok=True)
        training = self._training(go) if self.train else None
        try:
            for check in self.checks:
                failed |= not self._check(check)
            go.touch()
            if training is not None:
                failed |= self._wait(training) != 0
        finally:
            if training is not None and training.poll() is None:
                training.kill()
            self._parcel(always=True)
        return int(failed or self._stopped)

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True

    @property
    def left(self) -> float:
        """Seconds until the end of the round."""
        return self.end - time.time()

    def _training(self, go: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-u", "-m", "gpu_round.training", "--plan", self.plan, "--folder", self.folder]
        command += ["--out", self.results, "--go", go, "--end", self.end - STOP - 1, "--workers", self.workers]
        log = open(self.results / "training.log", "wb")  # noqa: SIM115  # the process needs the open file
        return subprocess.Popen(
            [*map(str, command)], cwd=self.root, env=self._environment, stdout=log, stderr=subprocess.STDOUT
        )

    def _check(self, check: Check) -> bool:
        """Run a check. Its output goes to a file, and the end of its output is printed. Returns whether it passed."""
        limit = min(check.limit, self.left - STOP)
        if self._stopped or limit <= 0:
            return False
        log, began = self.results / "checks" / f"{check.name}.log", time.time()
        with open(log, "wb") as file:
            process = subprocess.Popen(
                check.command, cwd=self.root, env=self._environment, stdout=file, stderr=subprocess.STDOUT
            )
            while process.poll() is None and not self._stopped and time.time() - began < limit:
                time.sleep(0.05)
            over = process.poll() is None
            if over:
                process.kill()
                process.wait()
        status = "stopped at its limit" if over else f"exit status {process.returncode}"
        print(f"== {check.name}: {status}, {time.time() - began:.1f} s", flush=True)
        print("\n".join(log.read_text("utf-8", "replace").splitlines()[-30:]), flush=True)
        self._parcel()
        return not over and process.returncode == 0

    def _wait(self, training: subprocess.Popen[bytes]) -> int:
        asked = False
        while training.poll() is None:
            if not asked and (self._stopped or self.left < STOP):
                training.terminate()
                asked = True
                if self._stopped:  # after a signal the round ends soon
                    self.end = min(self.end, time.time() + STOP)
            if self.left < KILL:
                training.kill()
            self._parcel()
            time.sleep(LOOK)
        log = self.results / "training.log"
        print("== training: exit status", training.returncode, flush=True)
        print("\n".join(log.read_text("utf-8", "replace").splitlines()[-30:]), flush=True)
        return int(training.returncode)

    def _parcel(self, always: bool = False) -> None:
        """Write a parcel if there are new results and the last parcel is old enough. ``always``: in any case."""
        if not always and time.time() - self._parcelled < PARCEL:
            return
        now = {str(path): path.stat().st_mtime for path in self.results.glob("*/best/model.safetensors")}
        if not always and now == self._seen and time.time() - self._parcelled < 4 * PARCEL:
            return
        self._seen = now
        left = send(self.results, self.out)
        self._parcelled = time.time()
        if always and left:
            print(f"no room for {', '.join(left)}: `scripts/gpu_round send` sends them in another call", flush=True)


def send(results: Path, out: Path, rest: bool = False) -> list[str]:
    """Write a parcel of the results of a round, with weights in float16.

    Args:
        results: folder of the round.
        out: folder of the parcel.
        rest: send only those weights for which the parcel before had no room.

    Returns:
        paths of the files for which there is no room.
    """
    from .halves import halve  # it needs more than the standard library

    halves, note = results / "halves", results / "left.json"
    halve(results, halves)
    weights = parcel.gather(halves, ("*/best/*",))
    if rest:
        missing = json.loads(note.read_text("utf-8")) if note.is_file() else []
        weights = {path: data for path, data in weights.items() if path in missing}
    left = parcel.write(out, parcel.gather(results, SMALL) | weights)
    note.write_text(json.dumps(left), "utf-8")
    return left


def environment(root: Path, folder: Path) -> dict[str, str]:
    """The environment variables of a round's processes. It installs packages of the volume if they are missing."""
    paths = [str(root), str(root / "tools")]
    wheels = sorted((folder / "wheels").glob("*.whl"))
    if wheels and importlib.util.find_spec("pydantic") is None:
        site = Path(tempfile.gettempdir()) / "gpu_round_site"
        shutil.rmtree(site, ignore_errors=True)
        options = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True)
        paths.append(str(site))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    threads = str(min(4, os.cpu_count() or 1))  # more threads than cores would wait for each other
    return {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
