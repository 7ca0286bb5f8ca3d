"""Measure `hih-align align` on a large folder: its speed beside `align_batch`, its memory, and its state after a kill.

    python benchmarks/folder.py --data ../shared/data/300w_test_lfpw/annotations.json --images 10000

The folder holds links to the images of an annotation file, many times over. The program is killed (SIGKILL) half way
and started again. Then its JSON Lines must hold every face exactly once. Memory is measured from image 1,000 on (from a
tenth of the images if there are fewer than 10,000). `align_batch` gets the first `--sample` paths, before and after, to
show drift of the machine. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any


def make(data: Path, count: int, folder: Path) -> dict[str, list[list[float]]]:
    """Make links to the images, and a CSV of their boxes beside them. Returns boxes (x1, y1, x2, y2) by file name."""
    annotations = json.loads(data.read_text("utf-8"))
    names = {image["id"]: image["file_name"] for image in annotations["images"]}
    faces: dict[str, list[list[float]]] = {}
    for face in annotations["annotations"]:
        x, y, width, height = face["bbox"]
        faces.setdefault(names[face["image_id"]], []).append([x, y, x + width, y + height])
    made: dict[str, list[list[float]]] = {}
    images = folder / "images"
    images.mkdir()
    for index in range(count):
        name = sorted(faces)[index % len(faces)]
        link = f"{index:06d}{Path(name).suffix}"
        (images / link).symlink_to((data.parent / "images" / name).resolve())
        made[link] = faces[name]
    lines = [",".join([name, *map(str, box)]) for name, boxes in made.items() for box in boxes]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return made


def run(folder: Path, options: list[str], *, kill_at: int | None = None, mark: int = 0) -> dict[str, Any]:
    """Run the program once: seconds from its first face to its last, and memory from face ``mark`` on."""
    output = folder / "faces.jsonl"
    command = [sys.executable, "-m", "hih_align", "align", str(folder / "images")]
    command += ["--boxes", str(folder / "boxes.csv"), "--json", str(output), *options]
    counter = Lines(output)
    before = counter.count()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    first, at_mark, most = None, None, 0.0
    while process.poll() is None:
        time.sleep(0.02)
        count = counter.count()
        if first is None and count > before:
            first = (time.perf_counter(), count)
        memory = resident(process.pid)
        if count >= mark:
            at_mark = memory if at_mark is None else at_mark
            most = max(most, memory)
        if kill_at is not None and count >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return {}
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    if first is None:
        return {}
    seconds = time.perf_counter() - first[0]
    return {"faces_per_s": (counter.count() - first[1]) / seconds, "growth_mb": most - (at_mark or most)}


class Lines:
    """Counts the lines of a growing file. It reads only the new part."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.found = path, 0, 0

    def count(self) -> int:
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self.offset)
                new = file.read()
            self.offset += len(new)
            self.found += new.count(b"\n")
        return self.found


def resident(pid: int) -> float:
    """Resident memory in MB; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


def batch_rate(aligner: Any, folder: Path, made: dict[str, list[list[float]]], sample: int, batch_size: int) -> float:
    """Faces per second of `align_batch`."""
    names = list(made)[:sample]
    begun = time.perf_counter()
    images = [folder / "images" / name for name in names]
    found = aligner.align_batch(images, [made[name] for name in names], batch_size)
    return sum(len(faces) for faces in found) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON, with its pictures in images/ beside it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=500, help="number of images for align_batch")
    parser.add_argument("--model", default="HIH_T")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--refine", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32, help="for the program and for align_batch")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()

    from hih_align import FaceAligner
    from hih_align.runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the program does
    aligner = FaceAligner.from_pretrained(
        arguments.model, device="cpu", backend=arguments.backend, dtype=arguments.dtype
    )
    aligner.config = replace(aligner.config, refine=arguments.refine)
    options = ["--model", arguments.model, "--backend", arguments.backend]
    options += ["--dtype", arguments.dtype, "--refine", str(arguments.refine)]
    options += ["--device", "cpu", "--batch-size", str(arguments.batch_size)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make(arguments.data, arguments.images, folder)
        faces = {(file, index) for file, boxes in made.items() for index in range(len(boxes))}
        before = batch_rate(aligner, folder, made, arguments.sample, arguments.batch_size)
        whole = run(folder, options, mark=min(1000, arguments.images // 10))
        after = batch_rate(aligner, folder, made, arguments.sample, arguments.batch_size)
        (folder / "faces.jsonl").rename(folder / "whole.jsonl")
        run(folder, options, kill_at=len(faces) // 2)
        run(folder, options)
        found = Counter(
            (record["file"], record["index"]) for record in map(json.loads, (folder / "faces.jsonl").open())
        )
    report = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "command": " ".join(["python", *sys.argv]),
        "faces": len(faces),
        "align_batch_faces_per_s": [before, after],
        "program": whole,
        "share": 2 * whole["faces_per_s"] / (before + after),
        "each_face_once_after_kill": set(found) == faces and set(found.values()) == {1},
    }
    print(json.dumps(report, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
