"""How fast `FaceAligner.align` is, beside the released design run plainly: one command, Markdown and JSON out.

    python benchmarks/speed.py --out benchmarks/results

Every contender (a size, a runtime, a precision, a number of threads) lives in a process of its own, so that thread
pools do not meet and memory can be told apart. They take turns: each round times every contender once, and drift of the
machine falls on all alike. Times are of `align` on a 1920 x 1080 array: crop, network, decoder and all.

The plain design is the network as released, through the same `align`: float32, eager, contiguous, batch norm not
folded, all faces at once, the paper's decoder. A size without weights is timed with random ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

PLAIN = "plain"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": None}
#: Sides of the matrices whose product is the yardstick; the fastest counts.
MATRICES = (1024, 2048, 4096)


@dataclass(frozen=True)
class Contender:
    """What one process runs: a size, or an exported folder, in a runtime; or matrix products ("matmul")."""

    model: str
    backend: str
    precision: str
    threads: int

    @property
    def name(self) -> str:
        return f"{Path(self.model).name} {self.backend} {self.precision}, {self.threads} threads"


# the worker


def work(contender: Contender) -> None:
    """Answer the driver's lines, each a request as JSON, until there are no more."""
    answer(start(contender) if contender.backend != "matmul" else {})
    for line in sys.stdin:
        request = json.loads(line)
        answer({"seconds": TIMERS[contender.backend == "matmul"](contender, **request), "peak_mb": peak_memory()})


def answer(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux has kilobytes


STATE: dict[str, Any] = {}


def start(contender: Contender) -> dict[str, float]:
    begun = time.perf_counter()
    import torch

    torch_there = time.perf_counter()
    import hih_align

    there = time.perf_counter()
    torch.set_num_threads(contender.threads)
    aligner = load(contender)
    loaded = time.perf_counter()
    STATE["aligner"], (STATE["image"], STATE["box"]) = aligner, photograph()
    drawn = time.perf_counter()
    aligner.align(STATE["image"], STATE["box"], refine=0)
    first = time.perf_counter() - drawn
    assert hih_align.__version__
    return {
        "import_torch_s": torch_there - begun,
        "import_hih_align_s": there - torch_there,
        "load_s": loaded - there,
        "first_result_s": there - begun + loaded - there + first,
        "gflop_per_face": flops(aligner) / 1e9,
        "random_weights": float(STATE["random"]),
    }


def load(contender: Contender) -> Any:
    from hih_align import FaceAligner, HIHNet, WeightsUnavailableError
    from hih_align.checkpoints import read_manifest
    from hih_align.network import SIZES

    plainly = contender.backend == PLAIN
    kind = plain_aligner() if plainly else FaceAligner
    backend = "torch" if plainly else contender.backend
    options: dict[str, Any] = {"device": "cpu", "dtype": DTYPES[contender.precision], "backend": backend}
    STATE["random"] = False
    try:
        return kind.from_pretrained(contender.model, **options)
    except WeightsUnavailableError:
        STATE["random"] = True
        config = read_manifest()[f"{contender.model}/300w"].config
        return kind(HIHNet(68, SIZES[contender.model]), config, **options)


def plain_aligner() -> Any:
    """The same `align`, around the network as it was released."""
    import torch

    from hih_align import FaceAligner, heatmaps
    from hih_align.network import MEAN, STD

    class Plain(FaceAligner):
        def _make(self) -> Any:
            network = self.network
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

            def run(crops: Any) -> tuple[Any, Any]:
                with torch.no_grad():
                    images = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous().float() / 255
                    integer, decimal = network((images - mean) / std)
                    points = heatmaps.decode(integer[:, -1], decimal) * heatmaps.STRIDE
                    return points.numpy(), integer[:, -1].amax((-2, -1)).clamp(0, 1).numpy()

            run.dtype = torch.float32  # type: ignore[attr-defined]  # as backends have it
            return [], run

        def _runtime(self) -> Any:
            return self._copy[1]

    return Plain


def photograph() -> tuple[Any, Any]:
    """An array of 1920 x 1080 pixels and the box of its face."""
    import cv2
    import numpy as np
    import skimage.data

    scale = 1080 / 512
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[:, :1080] = cv2.resize(skimage.data.astronaut(), (1080, 1080))
    return image, np.array((177.0, 80, 275, 200)) * scale


def flops(aligner: Any) -> float:
    """Of the network, a multiplication and an addition being two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        aligner.network.predict(torch.zeros(1, 3, 256, 256))
    return float(counter.get_total_flops())


def time_align(contender: Contender, faces: int, refine: int | None, times: int) -> list[float]:
    import numpy as np

    boxes = STATE["box"] + np.random.default_rng(0).uniform(-8, 8, (faces, 1))
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        STATE["aligner"].align(STATE["image"], boxes[0] if faces == 1 else boxes, refine=refine)
        seconds.append(time.perf_counter() - begun)
    return seconds


def time_matmul(contender: Contender, side: int, times: int) -> list[float]:
    import torch

    torch.set_num_threads(contender.threads)
    a = torch.randn(2, side, side, dtype=getattr(torch, str(DTYPES[contender.precision])))
    seconds = []
    with torch.inference_mode():
        for _ in range(times):
            begun = time.perf_counter()
            a[0] @ a[1]
            seconds.append(time.perf_counter() - begun)
    return seconds


TIMERS: tuple[Callable[..., list[float]], ...] = (time_align, time_matmul)


# the driver


class Process:
    """A contender's process."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        environment = os.environ | {"OMP_NUM_THREADS": str(contender.threads)}
        command = [sys.executable, __file__, "--worker", json.dumps(asdict(contender))]
        self.pipe = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started = self.read()
        self.peak_mb = 0.0

    def ask(self, **request: Any) -> list[float]:
        assert self.pipe.stdin is not None
        self.pipe.stdin.write(json.dumps(request) + "\n")
        self.pipe.stdin.flush()
        found = self.read()
        self.peak_mb = found["peak_mb"]
        return list(found["seconds"])

    def read(self) -> dict[str, Any]:
        assert self.pipe.stdout is not None
        assert self.pipe.stderr is not None
        line = self.pipe.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contender.name}: {self.pipe.stderr.read().strip().splitlines()[-1]}")
        return dict(json.loads(line))

    def close(self) -> None:
        if self.pipe.stdin is not None:
            self.pipe.stdin.close()
        self.pipe.wait()


@dataclass(frozen=True)
class Setting:
    """What is timed: so many faces at once, with so many refining passes (None: the checkpoint's)."""

    faces: int
    refine: int | None

    @property
    def name(self) -> str:
        return f"{self.faces} face{'s' * (self.faces > 1)}, refine {'default' if self.refine is None else self.refine}"


def measure(contenders: Sequence[Contender], settings: Sequence[Setting], rounds: int, seconds: float) -> list[Any]:
    """A dictionary for each contender that could be started."""
    import numpy as np

    precisions = sorted({(c.precision, c.threads) for c in contenders if c.precision != "int8"})
    yardsticks = [Process(Contender("torch", "matmul", precision, threads)) for precision, threads in precisions]
    processes, results = [], []
    for contender in contenders:
        try:
            processes.append(Process(contender))
        except RuntimeError as error:
            results.append({"contender": asdict(contender), "error": str(error)})
            print(error, file=sys.stderr)
    peak: dict[tuple[str, int], float] = {}
    times: dict[tuple[int, Setting], list[float]] = {}
    for turn in range(rounds + 1):  # the first warms up
        for yardstick in yardsticks:
            key = (yardstick.contender.precision, yardstick.contender.threads)
            for side in MATRICES:
                fastest = min(yardstick.ask(side=side, times=2))
                peak[key] = max(peak.get(key, 0.0), 2 * side**3 / fastest)
        # forth and back: who comes after whom is not always the same
        order = range(len(processes)) if turn % 2 else reversed(range(len(processes)))
        for index in order:
            for setting in settings:
                request = {"faces": setting.faces, "refine": setting.refine}
                (once,) = processes[index].ask(**request, times=1)
                if turn:
                    more = max(1, min(50, int(seconds / rounds / once)))
                    times.setdefault((index, setting), []).extend(processes[index].ask(**request, times=more))
        print(f"round {turn} of {rounds}", file=sys.stderr)
    for index, process in enumerate(processes):
        contender = process.contender
        measured = {}
        for setting in settings:
            ms = 1e3 * np.array(times[index, setting]) / setting.faces
            low, median, high = (float(v) for v in np.percentile(ms, (25, 50, 75)))
            measured[setting.name] = {"ms_per_face": median, "quartiles": [low, high], "calls": len(ms)}
        one = measured.get("1 face, refine 0")
        top = peak.get((contender.precision, contender.threads))
        share = None
        if one and top:
            share = process.started["gflop_per_face"] * 1e9 / (one["ms_per_face"] / 1e3) / top
        results.append(
            {"contender": asdict(contender)}
            | process.started
            | {"peak_mb": process.peak_mb, "measured": measured, "share_of_matmul": share}
        )
        process.close()
    for yardstick in yardsticks:
        yardstick.close()
    return [*results, {"matmul_tflops": {f"{p}, {t} threads": v / 1e12 for (p, t), v in peak.items()}}]


def machine() -> dict[str, Any]:
    import torch

    cpu = platform.processor() or platform.machine()
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
        flags = next((line.split(":")[1] for line in lines if line.startswith("flags")), "")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in flags.split(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(["python", *sys.argv]),
    }


def markdown(report: dict[str, Any]) -> str:
    """Tables: how long a face takes, how many times faster than plain; then what else was measured."""
    settings = report["settings"]
    rows = [r for r in report["results"] if "measured" in r]
    lines = [
        f"{report['machine']['cpu']}, {report['machine']['cores']} cores, PyTorch {report['machine']['torch']}, "
        f"{report['machine']['date']}, load before {report['machine']['load_before']:.1f}",
        "",
        f"`{report['machine']['command']}`",
        "",
        "Milliseconds a face, median (quartiles), and how many times faster than the plain design at the same batch:",
        "",
        "| | " + " | ".join(settings) + " | share of matmul | peak MB | load s | first result s |",
        "| --- |" + " --- |" * (len(settings) + 4),
    ]
    for row in rows:
        contender = Contender(**row["contender"])
        cells = [contender.name + (" (random weights)" if row["random_weights"] else "")]
        for setting in settings:
            found = row["measured"][setting]
            reference = [
                r["measured"][setting]["ms_per_face"]
                for r in rows
                if r["contender"] == asdict(replace(contender, backend=PLAIN, precision="fp32"))
            ]
            times = f", {reference[0] / found['ms_per_face']:.2f}x" if reference else ""
            low, high = found["quartiles"]
            cells.append(f"{found['ms_per_face']:.1f} ({low:.1f}-{high:.1f}){times}")
        share = "-" if row["share_of_matmul"] is None else f"{row['share_of_matmul']:.0%}"
        cells += [share, f"{row['peak_mb']:.0f}", f"{row['load_s']:.1f}", f"{row['first_result_s']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    imports = [(r["import_torch_s"], r["import_hih_align_s"]) for r in rows]
    torch_s, ours_s = (sorted(values)[len(values) // 2] for values in zip(*imports, strict=True))
    lines += [
        "",
        f"Import of torch {torch_s:.2f} s, of hih_align on top of it {ours_s:.2f} s ({ours_s / torch_s:.0%}). "
        "Fastest matrix product: "
        + ", ".join(f"{name} {value:.2f} TFLOP/s" for name, value in report["matmul_tflops"].items())
        + ".",
    ]
    lines += [f"Not run: {r['error']}" for r in report["results"] if "error" in r]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for speed.json and speed.md; made if need be")
    parser.add_argument("--sizes", nargs="+", default=["HIH_T", "HIH_S", "HIH_B"])
    parser.add_argument("--backends", nargs="+", default=["torch", "openvino", "onnxruntime"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--int8", nargs="+", default=[], metavar="BACKEND=FOLDER", help="what hih-align export wrote")
    parser.add_argument("--threads", nargs="+", type=int, default=[os.cpu_count() or 1])
    parser.add_argument("--faces", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=10, help="how often each takes its turn")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each contender and setting, in all")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(Contender(**json.loads(arguments.worker)))
        return
    contenders = []
    for threads in arguments.threads:
        for size in arguments.sizes:
            contenders.append(Contender(size, PLAIN, "fp32", threads))
            for backend in arguments.backends:
                contenders += [
                    Contender(size, backend, precision, threads)
                    for precision in arguments.precisions
                    if (backend, precision) != ("onnxruntime", "bf16")  # which it does not have
                ]
        contenders += [Contender(f, b, "int8", threads) for b, _, f in (w.partition("=") for w in arguments.int8)]
    settings = [Setting(faces, refine) for faces in arguments.faces for refine in (0, None)]
    about = machine()
    *results, yardstick = measure(contenders, settings, arguments.rounds, arguments.seconds)
    if not any("measured" in result for result in results):
        sys.exit("nothing could be run")
    report = {"machine": about, "settings": [s.name for s in settings], "results": results} | yardstick
    print(markdown(report))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in (("speed.json", json.dumps(report, indent=2) + "\n"), ("speed.md", markdown(report))):
            (arguments.out / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
