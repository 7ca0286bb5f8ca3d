"""Measure jitter and lag of points in videos: frame by frame, tracked, and tracked with smoothing.

    python benchmarks/video.py --data ../shared/data/300w_val/annotations.json --faces 4      # validation data
    python benchmarks/video.py --data ../shared/data/300w_test_lfpw/annotations.json --out benchmarks/results \
        --faces 8 --python mediapipe=.venv-others/bin/python dlib=.venv-others/bin/python

Each video is a photograph that moves by a known subpixel motion, with noise. Therefore the true place of each point is
known. Three figures are in percent of the distance of the outer eye corners: `spread`, the standard deviation of a
point over the frames, relative to the face; `second`, its mean second difference over the frames, relative to the face;
and `NME`. `NMF` is the normalised mean flicker: the root mean square, over frames and points, of the change of the
error from frame to frame, divided by the square root of the area of the box, in percent. `lag` is in frames, computed
from the mean error along the motion.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from competitors import COMPETITORS
from one_euro import one_euro
from speed import Process
from tables import measured, table, write
from worker import Contender

from hih_align import FaceAligner
from hih_align.crops import tight_box
from hih_align.data.annotations import read_dataset
from hih_align.images import read_image
from hih_align.progress import progress_bar
from hih_align.tracking import FaceTracker

RATE = 30.0
SIZE = (720, 960)


def _smooth(frame: float) -> tuple[float, float, float, float]:
    """x, y in pixels, zoom, roll in degrees. The speed is up to 6 px per frame."""
    return 40 * np.sin(frame / 7), 25 * np.sin(frame / 9), 1 + 0.1 * np.sin(frame / 20), 8 * np.sin(frame / 15)


def _fast(frame: float) -> tuple[float, float, float, float]:
    """Back and forth at 30 px per frame. The direction changes within one frame."""
    return abs((frame * 30 + 300) % 1200 - 600) - 300, 0.0, 1.0, 0.0


def _stop(frame: float) -> tuple[float, float, float, float]:
    """12 px per frame for ten frames, and then no motion for ten frames, again and again."""
    cycle, part = divmod(frame, 20)
    way = 12 * min(part, 10)
    return (way if cycle % 2 == 0 else 120 - way) - 60, 0.0, 1.0, 0.0


MOTIONS: dict[str, Callable[[float], tuple[float, float, float, float]]] = {
    "rest": lambda frame: (0.0, 0.0, 1.0, 0.0),
    "smooth": _smooth,
    "fast": _fast,
    "stop": _stop,
}


@dataclass(frozen=True)
class Video:
    """A video of a photograph of one face that moves."""

    image: Any
    points: Any  # (K, 2) annotated
    motion: str
    noise: float
    frames: int

    def matrix(self, frame: int) -> Any:
        """(2, 3) affine map from the photograph to a frame."""
        box = tight_box(self.points)
        centre = (box[:2] + box[2:]) / 2
        x, y, zoom, roll = MOTIONS[self.motion](frame)
        scale = zoom * 180 / (box[2:] - box[:2]).max()
        c, s = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
        linear = np.array([[c, -s], [s, c]])
        middle = np.array((SIZE[1] / 2 + x + 0.3, SIZE[0] / 2 + y + 0.7))
        return np.concatenate((linear, (middle - linear @ centre)[:, None]), 1)

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng(0)
        for frame in range(self.frames):
            image = cv2.warpAffine(
                self.image, self.matrix(frame), SIZE[::-1], flags=cv2.INTER_CUBIC, borderValue=(90,) * 3
            )
            yield np.clip(image + rng.normal(0, self.noise, image.shape), 0, 255).astype(np.uint8)


#: Goals for smoothed points: `spread` and `second` with smooth motion, in percent; and lag with fast motion, in frames.
STEADY, LAG = 0.25, 0.5

FIGURES = ("spread", "second", "NMF", "NME", "lag", "lost", "ms")


def measure(video: Video, found: Any, scheme: Any) -> dict[str, float]:
    """The figures of (F, K, 2) points. The points are NaN in frames in which the face was not found."""
    known = np.isfinite(found).all((1, 2))
    maps = np.array([video.matrix(f) for f in range(video.frames)])
    truth = video.points @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]
    still = np.array([(p - m[:, 2]) @ np.linalg.inv(m[:, :2]).T for p, m in zip(found, maps, strict=True)])
    norm = float(scheme.distance(video.points[None])[0])
    error = found - truth
    span = (truth.max(1) - truth.min(1)).prod(1) ** 0.5
    settled = slice(5, None)  # in the first frames the face is not tracked yet
    deviation = still[settled] - np.nanmean(still[settled], 0)
    second = np.diff(still[settled], 2, axis=0)
    flicker = np.linalg.norm(np.diff(error, axis=0), axis=-1)[4:] / span[5:, None]
    moved = np.gradient(truth.mean(1), axis=0)
    offset = error.mean(1) - np.nanmedian(error.mean(1), 0)
    moved_there = np.where(known[:, None], moved, 0.0)[settled]  # without the frames in which the face was lost
    lag = -np.nansum(offset[settled] * moved_there) / max(float((moved_there**2).sum()), 1e-9)
    return {
        "spread": 100 * float(np.sqrt(np.nanmean((deviation**2).sum(-1)))) / norm,
        "second": 100 * float(np.nanmean(np.linalg.norm(second, axis=-1))) / norm,
        "NMF": 100 * float(np.sqrt(np.nanmean(flicker**2))),
        "NME": 100 * float(np.nanmean(np.linalg.norm(still[settled] - video.points, axis=-1))) / norm,
        "lag": float(lag) if (moved**2).sum() > 1 else 0.0,
        "lost": float((~known).sum()),
    }


def others(kinds: Sequence[str], photograph: Path) -> dict[str, Process]:
    """Start the processes of other programs, given as ``NAME=PYTHON``. A program that does not start is skipped."""
    found = {}
    for kind in kinds:
        name, _, python = kind.partition("=")
        competitor = COMPETITORS[name]
        try:
            found[competitor.video] = Process(Contender(competitor.title, name, "fp32", 1), photograph, python)
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def ask(process: Process, video: Video, folder: Path) -> tuple[Any, float]:
    """Points (F, 68, 2) of another program, NaN if it finds no face, and its median milliseconds per frame."""
    path = folder / "frames.npy"
    np.save(path, np.stack(list(video)))
    answer = process.ask("follow", frames=str(path))
    missing = np.full((68, 2), np.nan)
    points = np.array([missing if p is None else p for p in answer["points"]], np.float64)
    return points, float(np.median(answer["ms"]))


def bars(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The goals for the smoothed points, and whether they are met."""
    mean = {
        key: {n: float(np.mean([r[n] for r in rows if (r["motion"], r["noise"], r["way"]) == key])) for n in FIGURES}
        for key in dict.fromkeys((r["motion"], r["noise"], r["way"]) for r in rows)
    }
    lines = []
    for (motion, noise, way), of in mean.items():
        if way != "smoothed":
            continue
        raw = mean[motion, noise, "frame by frame"]
        if motion == "smooth" and noise == 4:
            lines += [_bar(f"{name}, {motion}", of[name], STEADY) for name in ("second", "spread")]
        if motion == "fast":
            lines.append(_bar(f"lag, {motion}, noise {noise:g}", abs(of["lag"]), LAG))
        lines.append(_bar(f"NME, {motion}, noise {noise:g}", of["NME"], raw["NME"]))
    return lines


def _bar(what: str, value: float, most: float) -> str:
    return f"- {what}: {value:.3f}, at most {most:.3f}: {'holds' if value <= most else 'does not hold'}"


def run(aligner: FaceAligner, video: Video) -> dict[str, tuple[Any, float]]:
    """Points (F, K, 2) and median milliseconds per frame of each way."""
    trackers = {"followed": FaceTracker(aligner, smooth=False), "smoothed": FaceTracker(aligner)}
    ways: dict[str, Callable[[Any, float], Any]] = {
        "frame by frame": lambda frame, _: aligner.align(frame),
        **{name: tracker.update for name, tracker in trackers.items()},
    }
    missing = np.full((len(aligner.scheme), 2), np.nan)
    found: dict[str, list[Any]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index, frame in enumerate(video):
        for name, way in ways.items():
            begun = time.perf_counter()
            faces = way(frame, index / RATE)
            seconds[name].append(time.perf_counter() - begun)
            found[name].append(faces.points[0] if len(faces) else missing)
    of = {name: (np.array(found[name], np.float64), 1000 * float(np.median(seconds[name]))) for name in ways}
    points, ms = of["followed"]
    return of | {"followed, One-Euro": (one_euro(points, 1 / RATE), ms)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="annotations, one face in each picture")
    parser.add_argument("--model", default="HIH_T")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--faces", type=int, default=4, help="number of faces, spread over the annotations")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--motions", nargs="+", default=list(MOTIONS), choices=list(MOTIONS))
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[4.0], help="standard deviation of the noise, grey levels"
    )
    parser.add_argument("--python", nargs="+", default=[], help="mediapipe=PYTHON dlib=PYTHON: their interpreters")
    parser.add_argument("--points", type=Path, help="file for the found points, .npz")
    parser.add_argument("--out", type=Path, help="folder for video.json and video.md")
    arguments = parser.parse_args()
    aligner = FaceAligner.from_pretrained(arguments.model, backend=arguments.backend)
    records = [r for r in read_dataset(arguments.data, aligner.scheme).records if r.labels is not None]
    chosen = records[:: max(1, len(records) // arguments.faces)][: arguments.faces]
    rows, kept = [], {}
    jobs = [(r, m, n) for m in arguments.motions for n in arguments.noise for r in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = chosen[0]
        np.savez(folder / "photograph.npz", image=np.asarray(read_image(first.image)), box=first.box)
        processes = others(arguments.python, folder / "photograph.npz")
        for record, motion, noise in progress_bar(jobs, unit="video"):
            video = Video(np.asarray(read_image(record.image)), record.labels.points, motion, noise, arguments.frames)
            found = run(aligner, video) | {name: ask(process, video, folder) for name, process in processes.items()}
            for way, (points, ms) in found.items():
                rows.append({"motion": motion, "noise": noise, "way": way, "face": record.key, "ms": ms})
                rows[-1] |= measure(video, points, aligner.scheme)
                kept[f"{motion}/{noise}/{record.key}/{way}"] = points
    cells = []
    for motion, noise, way in dict.fromkeys((r["motion"], r["noise"], r["way"]) for r in rows):
        of = [r for r in rows if (r["motion"], r["noise"], r["way"]) == (motion, noise, way)]
        means = [float(np.mean([r[name] for r in of])) for name in FIGURES[:-2]]
        lost, ms = (f"{np.mean([r[name] for r in of]):.0f}" for name in FIGURES[-2:])
        cells.append([motion, f"{noise:g}", way, *means, lost, ms])
    lines = [
        f"{aligner.config.name}, {arguments.data.parent.name}, {len(chosen)} faces, {arguments.frames} frames each",
        "",
        *table(["motion", "noise", "points", *FIGURES], cells),
        "",
        *bars(rows),
        "",
        measured(),
    ]
    write(lines, rows, arguments.out, "video")
    if arguments.points is not None:
        np.savez(arguments.points, **kept)


if __name__ == "__main__":
    main()
