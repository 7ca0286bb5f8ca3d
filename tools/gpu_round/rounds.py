"""A round on the GPU machine: it runs the checks while faces are decoded, and then trains.

It writes parcels of the results all the time. It uses only the standard library until the packages of the volume are
installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
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


#: The files with tests that need a GPU.
TESTS = (
    "tests/runtime/test_cuda.py",
    "tests/runtime/test_fused.py",
    "tests/training/test_trainer.py",
    "tests/test_aligner.py",
    "tests/test_images.py",
)


@dataclass
class Check:
    """A command with a time limit in seconds. Its output goes to ``checks/NAME.log``."""

    name: str
    command: Sequence[str]
    limit: float


def checks(round_folder: Path) -> list[Check]:
    """The checks of a round. Together they take less than two minutes."""
    out = round_folder / "checks"
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "--durations=5"]
    speed = ["benchmarks/gpu.py", "--sizes", "HIH_T", "--dtypes", "float16", "--rounds", "3", "--seconds", "1.5"]
    steps = ["benchmarks/gpu.py", "--training", "--seconds", "38"]
    return [
        Check("tests", [sys.executable, *pytest, *TESTS], 45),
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
        device: "cuda", or "cpu" to try a round without a GPU.
    """

    root: Path
    folder: Path
    plan: Path
    out: Path
    seconds: float
    checks: Sequence[Check]
    train: bool = True
    workers: int = 16
    device: str = "cuda"
    _stopped: bool = False
    _parcelled: float = 0.0
    _seen: dict[str, float] = field(default_factory=dict)

    def run(self) -> int:
        """Run the round. Returns the exit status: 0, or 1 if a check or the training failed, or a signal stopped it.

        Raises:
            ValueError: `out` is not empty, or a volume did not arrive. Then nothing was run.
        """
        parcel.require_empty(self.out)
        self.end = time.time() + self.seconds
        self.results = self.folder / "round"
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        cargo.unstow(self.folder, self.root)
        (self.results / "checks").mkdir(parents=True, exist_ok=True)
        put_aside(self.results)
        self._environment = environment(self.root, self.folder)
        if self.device == "cpu":
            self._environment["CUDA_VISIBLE_DEVICES"] = ""
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
            failed |= not self._parcel(always=True)
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
        command += ["--device", self.device]
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

    def _parcel(self, always: bool = False) -> bool:
        """Write a parcel if there are new results and the last parcel is old enough. ``always``: in any case.

        Returns False after an error. The round goes on, because training is worth more than an early parcel.
        """
        if not always and time.time() - self._parcelled < PARCEL:
            return True
        now = {str(path): path.stat().st_mtime for path in self.results.glob("*/best/model.safetensors")}
        if not always and now == self._seen and time.time() - self._parcelled < 4 * PARCEL:
            return True
        self._seen = now
        try:
            left = send(self.results, self.out)
        except Exception:
            traceback.print_exc()
            return False
        finally:
            self._parcelled = time.time()
        if always and left:
            print(f"no room for {', '.join(left)}: `scripts/gpu_round send` sends them in another call", flush=True)
        return True


def send(results: Path, out: Path, rest: bool = False) -> list[str]:
    """Write a parcel of the results of a round, with weights in float16.

    The best network of each training comes first, or its last network if no validation chose a best one. Then come the
    last networks that differ from the best ones.

    Args:
        results: folder of the round.
        out: folder of the parcel.
        rest: send only those weights that are not in an earlier parcel.

    Returns:
        paths of the files for which there is no room.

    Raises:
        FileNotFoundError: there was no round.
    """
    if not results.is_dir():
        raise FileNotFoundError(f"{results.parent} has no round: `scripts/gpu_round run` makes it, in the same lease")
    from .halves import halve  # it needs more than the standard library

    halves, note = results / "halves", results / "sent.json"
    if errors := halve(results, halves):
        (results / "float16-error.txt").write_text("\n".join(errors) + "\n", "utf-8")
    weights: dict[str, bytes] = {}
    later: dict[str, bytes] = {}
    for run in sorted(path for path in halves.glob("*") if path.is_dir()):
        best, last = (parcel.gather(halves, (f"{run.name}/{name}/*",)) for name in ("best", "last"))
        weights |= best or last
        if best and list(best.values()) != list(last.values()):
            later |= last
    weights |= later
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in weights.items()}
    sent = json.loads(note.read_text("utf-8")) if rest and note.is_file() else {}
    weights = {path: data for path, data in weights.items() if sent.get(path) != hashes[path]}
    left = parcel.write(out, parcel.gather(results, SMALL) | weights)
    sent |= {path: hashes[path] for path in weights if path not in left}
    parcel.replace(note, json.dumps(sent).encode())
    return left


def put_aside(results: Path) -> None:
    """Move the trainings of an earlier call to ``before/NUMBER``, because a training does not replace another one.

    The results of checks stay, because they choose how networks are trained.
    """
    old = [path for path in results.glob("*") if path.name not in ("before", "checks")]
    if not old:
        return
    target = results / "before" / str(1 + len(list(results.glob("before/*"))))
    target.mkdir(parents=True)
    for path in old:
        path.rename(target / path.name)


def environment(root: Path, folder: Path) -> dict[str, str]:
    """The environment variables of a round's processes. It installs packages of the volume if they are missing."""
    paths = [str(root), str(root / "tools")]
    wheels = sorted((folder / "wheels").glob("*.whl"))
    if wheels and any(importlib.util.find_spec(name) is None for name in cargo.LACKING):
        site = Path(tempfile.gettempdir()) / "gpu_round_site"
        shutil.rmtree(site, ignore_errors=True)
        options = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True)
        paths.append(str(site))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    threads = str(min(4, os.cpu_count() or 1))  # more threads than cores would wait for each other
    return {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
