"""Measure how many faces a second a CUDA GPU aligns. One command writes Markdown and JSON:

    python benchmarks/gpu.py --out benchmarks/results

Two calls are timed for each size, precision and batch. `align` is `FaceAligner.align` on a 1920 x 1080 array with that
many boxes: the image is sent, crops, network and decoder are replayed as CUDA graphs, and the points are read
(refine=0). "network alone" gets crops that lie on the GPU; it includes the decoder, but the points are not read. All
take turns, so that drift of the clock affects all of them equally. The yardstick is the fastest bfloat16 matrix product
on the same GPU in the same run. The shares of all precisions are of that product.

With ``--training`` it times training steps instead, see `gpu_training`.

In half precision the network runs in the fastest of several ways. A probe finds that way when the network is loaded.
The results of the probe stand below the table. ``--kernels plain`` times the plain way.

A size without weights is timed with random weights. (The file must not be called cuda.py, because torch would import it
as the package of that name.)
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import photograph
from worker import flops

from hih_align import FaceAligner, HIHNet, WeightsUnavailableError
from hih_align.hub.manifest import read_manifest
from hih_align.method.sizes import SIZES
from hih_align.runtime import probe
from hih_align.runtime.cuda import CudaBackend
from hih_align.runtime.fused import PLAIN
from hih_align.runtime.probe import FACES

DEVICE = "cuda"

#: Sides of the matrices whose product is the yardstick. The fastest counts.
MATRICES = (4096, 8192, 16384)


def seconds_of(work: Callable[[], object], seconds: float) -> list[float]:
    """Times of calls during about ``seconds``, at least three. Each call is waited for."""
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return times


def load(size: str, dtype: str, kernels: str) -> tuple[FaceAligner, bool]:
    """An aligner, and whether its weights are random."""
    random = False
    try:
        aligner = FaceAligner.from_pretrained(size, device=DEVICE, dtype=dtype)
    except WeightsUnavailableError:
        config, random = read_manifest()[f"{size}/300w"].config, True
        aligner = FaceAligner(HIHNet(68, *SIZES[size]), config, device=DEVICE, dtype=dtype)
    if kernels == "plain":
        watch, _ = aligner._copy
        plain = CudaBackend(aligner.network, aligner.config, torch.device(DEVICE), getattr(torch, dtype), kernels=PLAIN)
        aligner._copy = watch, plain
    return aligner, random


def peak(seconds: float) -> float:
    """Operations per second of the fastest bfloat16 matrix product."""
    best = 0.0
    for side in MATRICES:
        a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
        out = torch.empty_like(a)
        times = seconds_of(lambda a=a, b=b, out=out: [torch.mm(a, b, out=out) for _ in range(8)], seconds)  # type: ignore[misc]
        best = max(best, 8 * 2 * side**3 / min(times[1:]))  # the first call warms up
    return best


def works(aligner: FaceAligner, faces: int) -> dict[str, Callable[[], object]]:
    """The timed calls by name. The first call of each, which captures the graphs, is already done."""
    image, box = photograph()
    boxes = box + np.random.default_rng(0).uniform(-8, 8, (faces, 1))
    backend = aligner._runtime()
    assert isinstance(backend, CudaBackend)
    side = aligner.config.input_size
    crops = torch.randint(256, (faces, side, side, 3), dtype=torch.uint8, device=DEVICE)

    def network() -> object:
        with torch.inference_mode():
            return backend._graphs(crops)

    def align() -> object:
        return aligner.align(image, boxes, refine=0)

    found: dict[str, Callable[[], object]] = {"align": align, "network": network}
    for work in found.values():
        work()
    if not backend._graphs._usable:
        print("CUDA graphs could not be captured: the following times are without them", file=sys.stderr)
    return found


def measure(
    sizes: list[str], dtypes: list[str], batches: list[int], rounds: int, seconds: float, kernels: list[str]
) -> tuple[list[dict[str, Any]], float]:
    """A row for each size, precision and batch, and the yardstick."""
    rows: list[dict[str, Any]] = []
    jobs: list[tuple[dict[str, Any], dict[str, Callable[[], object]]]] = []
    for size in sizes:
        for dtype, way in itertools.product(dtypes, kernels):
            aligner, random = load(size, dtype, way)
            operations = flops(aligner.config)
            backend = aligner._runtime()
            assert isinstance(backend, CudaBackend)
            for batch in batches:
                row = {"size": size, "dtype": dtype, "batch": batch, "random_weights": random, "flop": operations}
                row["kernels"] = str(backend.kernels)
                rows.append(row)
                jobs.append((row, works(aligner, batch)))
    times: dict[tuple[int, str], list[float]] = {}
    fastest = 0.0
    for turn in range(rounds):
        fastest = max(fastest, peak(seconds / 10))
        for index, (_, work) in enumerate(jobs) if turn % 2 else reversed(list(enumerate(jobs))):
            for name, call in work.items():
                call()  # warm up again after the other contenders
                torch.cuda.synchronize()
                times.setdefault((index, name), []).extend(seconds_of(call, seconds / rounds))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    for index, row in enumerate(rows):
        for name in ("align", "network"):
            low, median, high = (float(v) for v in np.percentile(times[index, name], (25, 50, 75)))
            row[name] = {
                "faces_per_second": row["batch"] / median,
                "ms": 1e3 * median,
                "quartiles_ms": [1e3 * low, 1e3 * high],
                "share_of_peak": row["batch"] / median * row["flop"] / fastest,
            }
    return rows, fastest


def probed() -> list[str]:
    """What the probes of this process measured, a line for each way."""
    return [
        f"{dtype} {size}: {one.kernels}: {f'{1e3 * one.seconds:.2f} ms' if one.seconds else one.reason}"
        for (_, dtype, size, _), tried in probe._found.items()
        for one in tried
    ]


def machine() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "gpu": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(["python", *sys.argv]),
    }


def markdown(report: dict[str, Any]) -> str:
    about = report["machine"]
    lines = [
        f"{about['gpu']}, {about['memory_gb']} GB, CUDA {about['cuda']}, PyTorch {about['torch']}, {about['date']}",
        "",
        f"`{about['command']}`",
        "",
        "Faces a second, and milliseconds a batch: median (quartiles). Share: of the fastest bfloat16 matrix product "
        f"measured here, {report['peak_tflops']:.0f} TFLOP/s.",
        "",
        "| | batch | `align` faces/s | ms | share | network alone faces/s | ms | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["results"]:
        random = " (random weights)" if row["random_weights"] else ""
        cells = [f"{row['size']} {row['dtype']} {row['kernels']}{random}", row["batch"]]
        for name in ("align", "network"):
            found = row[name]
            low, high = found["quartiles_ms"]
            cells += [f"{found['faces_per_second']:,.0f}", f"{found['ms']:.2f} ({low:.2f}-{high:.2f})"]
            cells.append(f"{found['share_of_peak']:.0%}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if report["probes"]:
        lines += ["", f"Ways of running the network, {FACES} faces:", "", *(f"- {line}" for line in report["probes"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64, 512])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time for each row and column, or for all --training"
    )
    parser.add_argument("--kernels", nargs="+", default=["probed"], choices=["probed", "plain"], help="how it runs")
    parser.add_argument("--training", action="store_true", help="time training steps")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA GPU, and PyTorch sees none here; benchmarks/speed.py is for CPUs")
    about = machine()
    if arguments.training:
        import gpu_training

        gpu_training.main(arguments, about)
        return
    how = arguments.rounds, arguments.seconds, arguments.kernels
    rows, fastest = measure(arguments.sizes, arguments.dtypes, arguments.batches, *how)
    report = {"machine": about, "peak_tflops": fastest / 1e12, "results": rows, "probes": probed()}
    print(markdown(report))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in (("gpu.json", json.dumps(report, indent=2) + "\n"), ("gpu.md", markdown(report))):
            (arguments.out / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
