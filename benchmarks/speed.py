"""Measure the speed and accuracy of `FaceAligner.align`, of the released design run plainly, and of other programs.

One command writes Markdown, JSON and a plot:

    python benchmarks/speed.py --out benchmarks/results --python mediapipe=/path/python --python dlib=/path/python

A contender is a size with a runtime, a precision and a number of threads, or another program. Each contender has its
own process, so that thread pools do not disturb each other and memory can be measured. `--python` names another
interpreter for a program that cannot be installed beside hih-align. The contenders take turns: each round times every
contender once, so that drift of the machine affects all of them equally. Times are of `align` on an array of 1920 x
1080 pixels, with crop, network, decoder and everything else.

The plain design is the released network, run through the same `align`: float32, eager, contiguous, batch norm not
folded, all faces at once, the paper's decoder, no refining. A size without weights, and FAN-4, is timed with random
weights. The other programs run as their users run them, with one pass. MediaPipe and dlib use one thread and have no
batches. `competitors.py` describes the boxes that they get. A program that is not installed is left out, and the tables
say so.

NME is in percent of the distance of the outer eye corners, over the faces of `--data`, with annotated boxes, at the
default settings (for the plain design at its own). It is measured once for each network, precision and decoder, by the
fastest runtime that has them, because runtimes agree within 0.02 crop pixels (tests/runtime/test_backends.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from competitors import COMPETITORS
from worker import MATMUL, PLAIN, Contender

#: Sizes that have been released, and are run as they were too.
RELEASED = ("HIH_T", "HIH_S", "HIH_B")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "300w_test_lfpw" / "annotations.json"


class Process:
    """The process of a contender.

    Raises:
        RuntimeError: the process did not start, or it ended. The message is its last line.
    """

    def __init__(self, contender: Contender, photograph: Path, python: str = sys.executable) -> None:
        self.contender = contender
        environment = os.environ | {"OMP_NUM_THREADS": str(contender.threads)}
        command = [python, str(Path(__file__).with_name("worker.py")), json.dumps(asdict(contender)), str(photograph)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads would fill up
        try:
            self.pipe = subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
            )
        except OSError as error:
            raise RuntimeError(f"{contender.name}: {error}") from error
        self.started = self.read()
        self.peak_mb = 0.0

    def ask(self, do: str, **request: Any) -> Any:
        assert self.pipe.stdin is not None
        self.pipe.stdin.write(json.dumps({"do": do} | request) + "\n")
        self.pipe.stdin.flush()
        answer = self.read()
        self.peak_mb = answer["peak_mb"]
        return answer["found"]

    def read(self) -> dict[str, Any]:
        assert self.pipe.stdout is not None
        line = self.pipe.stdout.readline()
        if not line:
            self.pipe.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            raise RuntimeError(f"{self.contender.name}: {said[-1] if said else 'it ended'}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.pipe.stdin is not None
        self.pipe.stdin.close()
        self.pipe.wait()
        self.errors.close()


@dataclass(frozen=True)
class Setting:
    """What is timed: the number of faces at once, and the number of refining passes (None: the checkpoint's)."""

    faces: int
    refine: int | None

    @property
    def name(self) -> str:
        return f"{self.faces} face{'s' * (self.faces > 1)}, refine {'default' if self.refine is None else self.refine}"

    def suits(self, contender: Contender) -> bool:
        """False for refining passes with a contender that has none: the released design and the other programs."""
        return self.refine == 0 or (contender.ours and contender.backend != PLAIN)


Times = dict[tuple[Contender, Setting], list[float]]


def take_turns(
    processes: Sequence[Process],
    yardsticks: Sequence[Process],
    settings: Sequence[Setting],
    matrices: Sequence[int],
    rounds: int,
    seconds: float,
) -> tuple[Times, dict[Contender, float]]:
    """The seconds of each call, by contender and setting, and the operations per second of each yardstick."""
    peak: dict[Contender, float] = {}
    times: Times = {}
    due: dict[tuple[Contender, Setting], int] = {}
    for turn in range(rounds + 1):  # the first round warms up
        for yardstick in yardsticks:
            for side in matrices:
                fastest = min(yardstick.ask("time", side=side, times=2))
                peak[yardstick.contender] = max(peak.get(yardstick.contender, 0.0), 2 * side**3 / fastest)
        # forwards and backwards, so that the order of the contenders changes
        for process in processes if turn % 2 else reversed(processes):
            for setting in settings:
                if not setting.suits(process.contender):
                    continue
                key, refine = (process.contender, setting), setting.refine
                if not turn:  # a small batch is enough, and shows how long a large batch takes
                    faces = min(setting.faces, 4)
                    some = process.ask("time", faces=faces, refine=refine, times=2 if faces == 1 else 1)
                    once = some[-1] * setting.faces / faces
                    due[key] = max(1, min(50 * rounds, round(seconds / once)))
                    continue
                # spread the calls over the rounds; a single call comes in the middle
                times_now = sum((2 * i + 1) * rounds // (2 * due[key]) == turn - 1 for i in range(due[key]))
                if times_now:
                    found = process.ask("time", faces=setting.faces, refine=refine, times=times_now)
                    times.setdefault(key, []).extend(found)
        print(f"round {turn} of {rounds}", file=sys.stderr)
    return times, peak


def measure_accuracy(processes: Sequence[Process], times: Times, data: Path) -> dict[Contender, dict[str, float]]:
    """The NME, and the numbers of found and of all faces, of each contender that has weights."""
    groups: dict[tuple[str, ...], list[Process]] = {}
    for process in processes:
        contender = process.contender
        if not process.started["random_weights"]:
            kind = "ours" if contender.ours and contender.backend != PLAIN else contender.backend
            groups.setdefault((contender.model, kind, contender.precision), []).append(process)
    found: dict[Contender, dict[str, float]] = {}
    for group in groups.values():
        # any setting will do: the order is the same in all of them
        fastest = min(
            group, key=lambda p: min(s for (c, _), values in times.items() if c == p.contender for s in values)
        )
        contender = fastest.contender
        if contender.ours:
            measured = fastest.ask("measure", data=str(data), refine=0 if contender.backend == PLAIN else None)
        else:
            measured = measure_competitor(fastest, data)
        found |= {process.contender: measured for process in group}
        print(f"NME of {contender.name}: {measured['nme']:.2f}", file=sys.stderr)
    return found


def measure_competitor(process: Process, data: Path) -> dict[str, float]:
    import numpy as np

    from hih_align.data.annotations import read_dataset
    from hih_align.data.boxes import face_boxes
    from hih_align.evaluation import metrics

    dataset = read_dataset(data, "300w")
    records = [record for record in dataset.records if record.labels is not None]
    faces = [(str(record.image), box.tolist()) for record, box in zip(records, face_boxes(records), strict=True)]
    points = process.ask("landmarks", faces=faces)
    hits = [(p, r) for p, r in zip(points, records, strict=True) if p is not None]
    if not hits:
        return {"nme": float("nan"), "found": 0, "faces": len(records)}
    labelled = np.array([record.labels.weights for _, record in hits]) > 0
    target = np.where(labelled[..., None], np.array([record.labels.points for _, record in hits]), np.nan)
    nme = metrics.nme([p for p, _ in hits], target, dataset.scheme.distance(target), labelled)
    return {"nme": float(np.nanmean(nme)), "found": len(hits), "faces": len(records)}


def summarize(
    process: Process, settings: Sequence[Setting], times: Times, peak: dict[Contender, float]
) -> dict[str, Any]:
    """The report of a contender, without its NME."""
    import numpy as np

    contender = process.contender
    measured = {}
    for setting in settings:
        if setting.suits(contender):
            ms = 1e3 * np.array(times[contender, setting]) / setting.faces
            low, median, high = (float(v) for v in np.percentile(ms, (25, 50, 75)))
            measured[setting.name] = {"ms_per_face": median, "quartiles": [low, high], "calls": len(ms)}
    one = measured.get(Setting(1, 0).name)
    top = peak.get(yardstick(contender))
    work = process.started.get("gflop_per_face")
    share = work * 1e9 / (one["ms_per_face"] / 1e3) / top if one and top and work else None
    # name an exported folder by its content
    name = replace(contender, model=process.started.get("size", contender.model)).name
    return (
        {"contender": asdict(contender), "name": name}
        | process.started
        | {"peak_mb": process.peak_mb, "measured": measured, "share_of_matmul": share}
    )


def yardstick(contender: Contender) -> Contender:
    """The matrix product in the same precision and with the same number of threads."""
    return Contender("torch", MATMUL, contender.precision, contender.threads)


def photograph() -> tuple[Any, Any]:
    """An array of 1920 x 1080 pixels, and the box of the face in it."""
    import cv2
    import numpy as np
    import skimage.data

    scale = 1080 / 512
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[:, :1080] = cv2.resize(skimage.data.astronaut(), (1080, 1080))
    return image, np.array((177.0, 80, 275, 200)) * scale


def write_photograph(path: Path) -> None:
    """Write the photograph for the workers. Some of them have other libraries."""
    import numpy as np

    image, box = photograph()
    np.savez(path, image=image, box=box)


def machine() -> dict[str, Any]:
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
        "torch": version("torch"),
        "command": " ".join(["python", *sys.argv]),
    }


def markdown(report: dict[str, Any]) -> str:
    """The result as Markdown: a table of times, speed-ups over the plain design and other figures, then notes."""
    settings = report["settings"]
    rows = report["results"]
    about = report["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, PyTorch {about['torch']}, {about['date']}, "
        f"load before {about['load_before']:.1f}",
        "",
        f"`{about['command']}`",
        "",
        "Milliseconds per face: median (quartiles), and speed-up over the plain design at the same number of faces:",
        "",
        "| | NME | " + " | ".join(settings) + " | share of matmul | peak MB | load s | first result s |",
        "| --- |" + " --- |" * (len(settings) + 5),
    ]
    for row in rows:
        cells = [row["name"] + " (random weights)" * row["random_weights"]]
        cells.append(f"{row['accuracy']['nme']:.2f}" if row["accuracy"] else "-")
        cells += [_time(rows, row, setting) for setting in settings]
        cells.append("-" if row["share_of_matmul"] is None else f"{row['share_of_matmul']:.0%}")
        cells += [f"{row['peak_mb']:.0f}", f"{row['load_s']:.1f}", f"{row['first_result_s']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_notes(report)]
    return "\n".join(lines) + "\n"


def _time(rows: list[Any], row: dict[str, Any], setting: str) -> str:
    found = row["measured"].get(setting)
    if found is None:
        return "-"
    low, high = found["quartiles"]
    text = f"{found['ms_per_face']:.1f}" + f" ({low:.1f}-{high:.1f})" * (found["calls"] > 1)
    threads = row["contender"]["threads"]
    for plain in rows:
        kind = (plain["contender"]["backend"], plain["contender"]["threads"], plain.get("size"))
        if kind == (PLAIN, threads, row.get("size")) and setting in plain["measured"]:
            text += f", {plain['measured'][setting]['ms_per_face'] / found['ms_per_face']:.2f}x"
    return text


def _notes(report: dict[str, Any]) -> list[str]:
    rows = report["results"]
    lines = []
    with_torch = [row for row in rows if row.get("import_torch_s")]
    imports = [(row["import_torch_s"], row["import_s"] - row["import_torch_s"]) for row in with_torch]
    if imports:
        torch_s, ours_s = (sorted(values)[len(values) // 2] for values in zip(*imports, strict=True))
        lines.append(
            f"Import of torch {torch_s:.2f} s, of hih_align on top of it {ours_s:.2f} s ({ours_s / torch_s:.0%})."
        )
    outside = [
        f"{row['name']} {row['outside_network']['ms']:.2f} ms ({row['outside_network']['share']:.1%})"
        for row in rows
        if "outside_network" in row
    ]
    if outside:
        lines.append(
            "`align`'s time outside the network, and its share, one face, refine 0; normalisation and decoder are "
            f"outside of PyTorch's and within the others': {'; '.join(outside)}."
        )
    products = ", ".join(f"{name} {value:.2f} TFLOP/s" for name, value in report["matmul_tflops"].items())
    lines.append(f"Fastest matrix product: {products}.")
    if report["data"]:
        lines.append(f"NME: percent of the distance of the outer eye corners, {report['data']}, annotated boxes.")
    for row in rows:
        competitor = COMPETITORS.get(row["contender"]["backend"])
        if competitor is None:
            continue
        note = f"{competitor.title}: {competitor.note}"
        if row["accuracy"] and row["accuracy"]["found"] < row["accuracy"]["faces"]:
            note += "; it found {found:g} of {faces:g} faces, and its NME is of the found faces".format(
                **row["accuracy"]
            )
        lines.append(f"{note}.")
    return lines + [f"Not run: {error}" for error in report["not_run"]]


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    chosen = []
    for threads in arguments.threads:
        for size in arguments.sizes:
            if size in RELEASED and not arguments.no_plain:
                chosen.append(Contender(size, PLAIN, "fp32", threads))
            for backend in arguments.backends:
                chosen += [
                    Contender(size, backend, precision, threads)
                    for precision in arguments.precisions
                    if (backend, precision) != ("onnxruntime", "bf16")  # ONNX Runtime has no bfloat16 on the CPU
                ]
        chosen += [Contender(f, b, "int8", threads) for b, _, f in (w.partition("=") for w in arguments.int8)]
    for name in arguments.competitors:
        competitor = COMPETITORS[name]
        many = [1] if competitor.one_thread else arguments.threads
        chosen += [Contender(competitor.title, name, "fp32", threads) for threads in many]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for speed.json, speed.md and speed.png")
    parser.add_argument("--sizes", nargs="+", default=["HIH_N", *RELEASED])
    parser.add_argument("--backends", nargs="*", default=["torch", "openvino", "onnxruntime"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--no-plain", action="store_true", help="without the released design, which is slow")
    parser.add_argument("--int8", nargs="+", default=[], metavar="BACKEND=FOLDER", help="a folder of hih-align export")
    parser.add_argument("--competitors", nargs="*", default=list(COMPETITORS), choices=list(COMPETITORS))
    parser.add_argument("--python", nargs="+", action="extend", default=[], metavar="COMPETITOR=INTERPRETER")
    parser.add_argument("--threads", nargs="+", type=int, default=[os.cpu_count() or 1])
    parser.add_argument("--faces", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--matrices", nargs="+", type=int, default=[1024, 2048, 4096], help="sides of the matrices")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time for each contender and setting in all; at least one call"
    )
    parser.add_argument(
        "--data", type=Path, help="annotated faces of 68 points for the NME; default: LFPW test faces of ../shared"
    )
    arguments = parser.parse_args()
    python = dict(word.split("=", 1) for word in arguments.python)
    data = arguments.data or (DATA if DATA.is_file() else None)
    settings = [Setting(faces, refine) for faces in arguments.faces for refine in (0, None)]
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "photograph.npz"
        write_photograph(image)
        processes: list[Process] = []
        not_run = []
        for contender in contenders(arguments):
            try:
                processes.append(Process(contender, image, python.get(contender.backend, sys.executable)))
            except RuntimeError as error:
                not_run.append(str(error))
                print(f"not run: {error}", file=sys.stderr)
        if not processes:
            sys.exit("nothing could be run")
        ours = [p.contender for p in processes if p.contender.ours]
        wanted = {yardstick(contender) for contender in ours if contender.precision != "int8"}
        yardsticks = [Process(c, image) for c in sorted(wanted, key=lambda c: c.name)]
        times, peak = take_turns(
            processes, yardsticks, settings, arguments.matrices, arguments.rounds, arguments.seconds
        )
        results = [summarize(process, settings, times, peak) for process in processes]
        for process, result in zip(processes, results, strict=True):
            if process.contender.ours and process.contender.backend != PLAIN:
                result["outside_network"] = process.ask("outside", times=4 * arguments.rounds + 1)
        accuracy = measure_accuracy(processes, times, data) if data else {}
        for process, result in zip(processes, results, strict=True):
            result["accuracy"] = accuracy.get(process.contender)
        for process in [*processes, *yardsticks]:
            process.close()
    report = {
        "machine": about,
        "settings": [setting.name for setting in settings],
        "data": data.parent.name if data else None,
        "results": results,
        "not_run": not_run,
        "matmul_tflops": {c.name: value / 1e12 for c, value in peak.items()},
    }
    print(markdown(report))
    if arguments.out is not None:
        from plot import draw

        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in (("speed.json", json.dumps(report, indent=2) + "\n"), ("speed.md", markdown(report))):
            (arguments.out / name).write_text(text, "utf-8")
        draw(report, arguments.out / "speed.png")


if __name__ == "__main__":
    main()
