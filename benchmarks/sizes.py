"""Measure what smaller networks cost: work, parameters, time and error of candidates beside HIH_T.

    python benchmarks/sizes.py --out reports/HIH_N
    python benchmarks/sizes.py --out reports/HIH_N --train 1 --threads 1 --data ../shared/data     # the errors

Candidates differ in the values of `hih_align.method.sizes.Size`. HIH_N is the one that is shipped. Times are of
`FaceAligner.align` for one face with a given box and one pass, on a 1920 x 1080 array. The weights are random, because
the time does not depend on them. Each round times every candidate once, so that drift of the machine affects all of
them equally, and the fastest round counts. "outside" is the time of `align` with a runtime that returns at once: crop,
checks and result.

`--train EPOCHS` trains each candidate from HIH_T/300w, narrowed to its width, by the recipe modern/n on 300w_train, and
measures its NME on 300w_val. These are short runs of equal length. They rank the candidates, and say little about the
error after a long training. A result is stored as soon as it is there, and is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import machine
from worker import flops

from hih_align import Config, FaceAligner, HIHNet, Scheme
from hih_align.files import replacing
from hih_align.hub.checkpoints import save_checkpoint
from hih_align.method.sizes import SIZES, Size
from hih_align.runtime import AUTO, Backend, choose

#: Number of landmarks of the timed networks.
POINTS = 68

CANDIDATES: dict[str, Size] = {
    "HIH_T": SIZES["HIH_T"],
    "HIH_T at 128 px": Size(1, input_size=128),
    "width 0.75, 128 px": Size(1, width=0.75, input_size=128),
    "width 0.625, 128 px": Size(1, width=0.625, input_size=128),
    "width 0.5, 128 px": Size(1, width=0.5, input_size=128),
    "HIH_N": SIZES["HIH_N"],
    "width 0.375, 128 px": Size(1, width=0.375, head_channels=256, input_size=128),
    "width 0.375, 256 px": Size(1, width=0.375, head_channels=256),
    "width 0.25, 256 px": Size(1, width=0.25, head_channels=256),
}

_IMAGE, _BOX = (1080, 1920, 3), (800.0, 400.0, 1000.0, 640.0)


def work(size: Size) -> tuple[float, float]:
    """Work per face in GMAC (one multiplication and one addition), and parameters in millions."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in HIHNet(POINTS, *size).parameters())
    return flops(_config(size)) / 2e9, parameters / 1e6


def _config(size: Size) -> Config:
    scheme = Scheme(id="points", names=tuple(map(str, range(POINTS))))
    return Config(scheme, **size._asdict())


def loaded(size: Size, backend: str) -> FaceAligner:
    """An aligner with random weights, loaded from a folder as a user does it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder, HIHNet(POINTS, *size), _config(size))
        return FaceAligner.from_pretrained(folder, device="cpu", backend=backend)


def seconds(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(backend: str, sizes: dict[str, Size], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of `align`, and of its part outside the runtime, by candidate."""
    image = np.random.default_rng(0).integers(0, 256, _IMAGE, np.uint8)
    whole: dict[str, Callable[[], object]] = {}
    outside: dict[str, Callable[[], object]] = {}
    for name, size in sizes.items():
        aligner = loaded(size, backend)
        pixels = np.ascontiguousarray(image[: size.input_size, : size.input_size])[None]
        whole[name] = partial(aligner.align, image, _BOX, refine=0)
        outside[name] = partial(_without_runtime, aligner, Found(aligner._runtime()(pixels)), image)
    best = {name: [float("inf"), float("inf")] for name in sizes}
    for round_ in range(rounds + 3):
        for name, times in best.items():
            found = seconds(whole[name]), seconds(outside[name])
            if round_ >= 3:  # the first rounds warm up
                best[name] = [min(pair) for pair in zip(times, found, strict=True)]
    return {name: {"ms": 1e3 * a, "outside_ms": 1e3 * b} for name, (a, b) in best.items()}


class Found(Backend):
    """A runtime that has found the points already."""

    name, dtype = "torch", "float32"

    def __init__(self, found: tuple[Any, Any]) -> None:
        self.found = found

    def __call__(self, crops: Any) -> tuple[Any, Any]:
        points, scores = self.found
        return points.copy(), scores.copy()


def _without_runtime(aligner: FaceAligner, runtime: Found, image: Any) -> None:
    running = aligner._copy
    aligner._copy = running[0], runtime
    try:
        aligner.align(image, _BOX, refine=0)
    finally:
        aligner._copy = running


def trained(size: Size, data: Path, epochs: int) -> float:
    """NME in percent on 300w_val of a candidate after ``epochs`` epochs on 300w_train."""
    from hih_align.data.annotations import read_dataset
    from hih_align.schemes import W300
    from hih_align.training import Source, load_recipe, train

    own = {name: getattr(size, name) for name in ("width", "head_channels", "input_size")}
    stage = {"epochs": epochs, "batch": 16, "lr": 8e-4, "schedule": "cosine", "warmup": 0.2}
    recipe = load_recipe("modern/n", "T", {**own, "stages": [stage], "calibrate": "no"})
    faces, held_out = (read_dataset(data / name / "annotations.json", W300) for name in ("300w_train", "300w_val"))
    with tempfile.TemporaryDirectory() as folder:
        result = train(recipe, [Source(faces)], Path(folder) / "run", val=held_out, init="HIH_T/300w")
    if result.nme is None or not result.completed:
        raise RuntimeError("the training was stopped")
    return result.nme


def train_all(out: Path, data: Path, epochs: int) -> None:
    """Train the candidates that have no error in ``sizes.json`` yet, and store the errors there."""
    for name, size in reversed(CANDIDATES.items()):  # small networks first
        results = json.loads((out / "sizes.json").read_text("utf-8"))
        known = results.setdefault("trained", {"epochs": epochs, "nme": {}})
        if known["epochs"] != epochs:
            raise ValueError(f"train is {epochs}, but {out / 'sizes.json'} holds runs of {known['epochs']} epochs")
        if name in known["nme"] or name == "HIH_T":
            continue
        known["nme"][name] = trained(size, data, epochs)
        write(results, out)


def table(results: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    runtimes = list(results["runtimes"])
    head = ["network", "crop", "width", "head", "parameters, M", "float16, MB", "GMAC"]
    head += [f"{name}, ms" for name in runtimes] + [f"outside ({runtimes[0]}), ms", "times as fast as HIH_T"]
    errors = results.get("trained", {}).get("nme", {})
    head += [f"NME, epochs: {results['trained']['epochs']}"] if errors else []
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    fastest = {
        name: min(results["runtimes"][runtime][name]["ms"] for runtime in runtimes) for name in results["networks"]
    }
    for name, row in results["networks"].items():
        times = [f"{results['runtimes'][runtime][name]['ms']:.1f}" for runtime in runtimes]
        outside = f"{results['runtimes'][runtimes[0]][name]['outside_ms']:.2f}"
        cells = [name, row["input_size"], row["width"], row["head_channels"], f"{row['parameters']:.2f}"]
        cells += [f"{2 * row['parameters']:.1f}", f"{row['gmac']:.2f}", *times, outside]
        ratio = fastest["HIH_T"] / fastest[name]
        cells += [f"{ratio:.1f}", *([f"{errors[name]:.2f}" if name in errors else "-"] if errors else [])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def write(results: dict[str, Any], out: Path) -> None:
    """Write ``sizes.json`` and ``sizes.md``."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("sizes.json", json.dumps(results, indent=1) + "\n"), ("sizes.md", text(results))):
        with replacing(out / name) as temporary:
            temporary.write_text(content, "utf-8")


def text(results: dict[str, Any]) -> str:
    """The table, and the commands that made it."""
    how = f"`python benchmarks/sizes.py --threads {results['threads']} --rounds {results.get('rounds', 60)}`"
    made = f"{table(results)}\n\n{results['date']}, {results['processor']}, {results['threads']} threads: {how}\n"
    if "trained" in results:
        epochs = results["trained"]["epochs"]
        made += (
            f"\nThe last column is the NME on the 210 faces of 300w_val after {epochs} epoch(s) on the 1802 faces of "
            f"300w_train, from HIH_T/300w narrowed to the width: `python benchmarks/sizes.py --train {epochs} --data "
            "../shared/data`. All networks had the same number of faces.\n"
        )
    return made


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for sizes.json and sizes.md")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--runtimes", nargs="+", default=list(AUTO))
    parser.add_argument("--train", type=int, metavar="EPOCHS", help="train the candidates; needs --data and --out")
    parser.add_argument("--data", type=Path, help="folder with 300w_train and 300w_val")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.train is not None:
        if arguments.data is None or arguments.out is None:
            parser.error("--train needs --data and --out, a folder with the sizes.json of a run without --train")
        train_all(arguments.out, arguments.data, arguments.train)
        return
    networks = {}
    for name, size in CANDIDATES.items():
        gmac, parameters = work(size)
        networks[name] = {**size._asdict(), "gmac": gmac, "parameters": parameters}
    runtimes = {choose(name, "cpu"): measure(name, CANDIDATES, arguments.rounds) for name in arguments.runtimes}
    results = {
        "date": date.today().isoformat(),
        "processor": machine()["cpu"],
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "networks": networks,
        "runtimes": runtimes,
    }
    if arguments.out is not None:
        if (arguments.out / "sizes.json").is_file():
            before = json.loads((arguments.out / "sizes.json").read_text("utf-8"))
            results |= {"trained": before["trained"]} if "trained" in before else {}
        write(results, arguments.out)
    print(text(results))


if __name__ == "__main__":
    main()
