"""Measure time and memory of a process until its first face, for exported folders without PyTorch and for a network.

    python benchmarks/memory.py HIH_N/300w --out benchmarks/results

The model is exported for each runtime. Then new processes import the package, load the model and align one face in a
photograph (a file) with the default settings. There are several processes for each runtime, and the runtimes take
turns. Times are those of the fastest process. Memory is the largest resident set (VmHWM) of all processes. "whole
process" includes the start and the end of Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speed import machine

FORMATS = {"onnxruntime": "onnx", "openvino": "openvino"}

#: The program of a process. It prints one line of JSON.
FIRST_FACE = """
import json, sys, time
begun = time.perf_counter()
from hih_align import FaceAligner
imported = time.perf_counter()
aligner = FaceAligner.from_pretrained(sys.argv[1], backend=sys.argv[2], device="cpu")
loaded = time.perf_counter()
face = aligner.align(sys.argv[3], json.loads(sys.argv[4]))
done = time.perf_counter()
sys.path.append(sys.argv[5])
from worker import peak_memory  # imports only the standard library
print(json.dumps({
    "import_s": imported - begun, "load_s": loaded - imported, "face_s": done - loaded, "first_face_s": done - begun,
    "peak_mb": peak_memory(), "torch": "torch" in sys.modules, "score": face.score,
}))
"""


def photograph(path: Path) -> list[float]:
    """Write a photograph of one face, and return its box x1, y1, x2, y2."""
    import PIL.Image
    import skimage.data

    PIL.Image.fromarray(skimage.data.astronaut()).save(path)
    return [177.0, 80.0, 275.0, 200.0]


def first_face(folder: str, backend: str, image: Path, box: list[float]) -> dict[str, Any]:
    """Run one process, see `FIRST_FACE`. Returns its output and the time from its start to its end."""
    begun = time.perf_counter()
    words = [sys.executable, "-c", FIRST_FACE, folder, backend, str(image), json.dumps(box), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process_s": time.perf_counter() - begun}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest times and the largest memory of several runs of the same process."""
    times = {name: min(run[name] for run in runs) for name in runs[0] if name.endswith("_s")}
    return times | {"peak_mb": max(run["peak_mb"] for run in runs), "torch": any(run["torch"] for run in runs)}


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    about = report["machine"]
    lines = [
        f"{report['model']}. {about['cpu']}, {about['cores']} cores, {about['date']}, load before "
        f"{about['load_before']:.1f}",
        "",
        f"`{about['command']}`",
        "",
        "| runtime | PyTorch imported | import s | load s | first face s | import to first face s | whole process s | "
        "peak MB |",
        "| --- |" + " --- |" * 7,
    ]
    for backend, row in report["results"].items():
        times = (row[name] for name in ("import_s", "load_s", "face_s", "first_face_s", "process_s"))
        cells = [
            backend,
            "yes" if row["torch"] else "no",
            *(f"{value:.2f}" for value in times),
            f"{row['peak_mb']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="HIH_N/300w", help="a model as for FaceAligner.from_pretrained")
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino", "torch"])
    parser.add_argument("--rounds", type=int, default=5, help="number of processes per runtime")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder for memory.json and memory.md")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    about = machine()
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary) / "photograph.png"
        box = photograph(image)
        folders = {}
        for backend in arguments.backends:
            folders[backend] = arguments.model
            if backend in FORMATS and find_spec(backend) is not None:
                folders[backend] = str(Path(temporary) / backend)
                words = ["export", arguments.model, "--format", FORMATS[backend], "--out", folders[backend]]
                # in another process, so that this process stays small
                subprocess.run([sys.executable, "-m", "hih_align", *words], check=True, stdout=sys.stderr)
        runs: dict[str, list[dict[str, Any]]] = {backend: [] for backend in folders}
        for number in range(arguments.rounds + 1):
            for backend, folder in folders.items():
                found = first_face(folder, backend, image, box)
                if number:  # without the first run, which reads from the disk
                    runs[backend].append(found)
    report = {
        "model": arguments.model,
        "machine": about,
        "results": {backend: summary(found) for backend, found in runs.items()},
    }
    text = markdown(report)
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "memory.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        (arguments.out / "memory.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
