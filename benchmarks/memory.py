"""What a process takes until its first face, in time and memory: an exported folder, without PyTorch, and a network.

    python benchmarks/memory.py HIH_N/300w --out benchmarks/results

The model is exported for each runtime. Then a process of its own, several times for each and in turn, imports the
package, loads the model and aligns one face in a photograph (a file) with the default settings. Times are of the
fastest of these processes. Memory is the largest resident set (VmHWM) of any. "whole process" includes Python's own
start and end.
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

#: What a process does: it prints one line of JSON.
FIRST_FACE = """
import json, resource, sys, time
begun = time.perf_counter()
from hih_align import FaceAligner
imported = time.perf_counter()
aligner = FaceAligner.from_pretrained(sys.argv[1], backend=sys.argv[2], device="cpu")
loaded = time.perf_counter()
face = aligner.align(sys.argv[3], json.loads(sys.argv[4]))
done = time.perf_counter()
try:  # of this program alone; the other one begins with what its parent had
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "import_s": imported - begun, "load_s": loaded - imported, "face_s": done - loaded, "first_face_s": done - begun,
    "peak_mb": peak / 1024, "torch": "torch" in sys.modules, "score": face.score,
}))
"""


def photograph(path: Path) -> list[float]:
    """Write a photograph of one face; returns its box."""
    import PIL.Image
    import skimage.data

    PIL.Image.fromarray(skimage.data.astronaut()).save(path)
    return [177.0, 80.0, 275.0, 200.0]


def first_face(folder: str, backend: str, image: Path, box: list[float]) -> dict[str, Any]:
    """One process: see `FIRST_FACE`; and how long it was there."""
    begun = time.perf_counter()
    words = [sys.executable, "-c", FIRST_FACE, folder, backend, str(image), json.dumps(box)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process_s": time.perf_counter() - begun}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of processes that did the same: the fastest times, the largest memory."""
    times = {name: min(run[name] for run in runs) for name in runs[0] if name.endswith("_s")}
    return times | {"peak_mb": max(run["peak_mb"] for run in runs), "torch": any(run["torch"] for run in runs)}


def markdown(report: dict[str, Any]) -> str:
    """A table."""
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
    parser.add_argument("model", nargs="?", default="HIH_N/300w", help="what from_pretrained takes")
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino", "torch"])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="folder for memory.json and memory.md; made if need be")
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
                # in a process of its own: this one stays as small as those that it starts
                subprocess.run([sys.executable, "-m", "hih_align.cli", *words], check=True, stdout=sys.stderr)
        runs: dict[str, list[dict[str, Any]]] = {backend: [] for backend in folders}
        for number in range(arguments.rounds + 1):
            for backend, folder in folders.items():
                found = first_face(folder, backend, image, box)
                if number:  # the first reads the disk
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
