"""Measure `FaceDetector`: recall by face size, roll and threshold, false positives, time, the mapping of its boxes.

    python benchmarks/detection.py --data ../shared/data/300w_val/annotations.json            # validation data
    python benchmarks/detection.py --data ../shared/data/300w_test_lfpw/annotations.json --out benchmarks/results

The faces are those of an annotation file, one per picture. Small faces are placed on a photograph of 6000 x 4000
pixels. Large faces fill their picture. A face is found if three conditions are met for a box: its centre lies in the
tight box of the face, it contains the centre of the tight box, and its longer side is 0.6 to 1.6 times that of the
tight box. All other boxes are false positives. False positives are also counted on pictures of scikit-image without a
person. The detector's file is searched as usual (`FaceDetector.from_pretrained`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tables import measured, table, write

from hih_align.crops import tight_box
from hih_align.data.annotations import read_dataset
from hih_align.data.boxes import of_face
from hih_align.detection import FaceDetector
from hih_align.detection.detector import THRESHOLD
from hih_align.evaluation.subsets import chosen_by
from hih_align.images import read_image
from hih_align.progress import progress_bar
from hih_align.roll import roll_of, turn, upright_box
from hih_align.schemes import Scheme

PHOTOGRAPH = (4000, 6000)
SMALL = (30, 40, 50, 60, 80, 120, 240)
#: Sides of the pictures that a face fills, and the factors by which they are larger than its tight box.
FILLED, MARGINS = (100, 200, 640, 1500, 4000), (1.15, 1.5)
#: Pictures of scikit-image without a person. Those that are not in its package are skipped.
WITHOUT = ("coffee", "chelsea", "hubble_deep_field", "retina", "coins", "page", "moon", "brick", "grass", "gravel")
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Face:
    """A picture of one face, and its landmarks."""

    image: Any  # (H, W, 3) uint8
    points: Any  # (K, 2)

    @property
    def box(self) -> Any:
        return tight_box(self.points)

    @property
    def side(self) -> float:
        return float((self.box[2:] - self.box[:2]).max())

    def resized(self, side: float) -> Face:
        """Resize the picture so that the longer side of the face is ``side`` pixels."""
        return self._scaled(side / self.side)

    def filling(self, margin: float, pixels: int) -> Face:
        """Cut out a square of ``margin`` times the face, and resize it to ``pixels`` per side."""
        half = margin * self.side / 2
        centre = (self.box[:2] + self.box[2:]) / 2
        low = np.clip(np.floor(centre - half), 0, None).astype(int)
        high = np.ceil(centre + half).astype(int)
        part = self.image[low[1] : high[1], low[0] : high[0]]
        return Face(part, self.points - low)._scaled(pixels / max(part.shape[:2]))

    def turned(self, degrees: float) -> Face:
        """Rotate the picture clockwise about the face. The new picture is large enough for all corners."""
        size = int(np.ceil(np.hypot(*self.image.shape[:2])))
        centre = (self.box[:2] + self.box[2:]) / 2
        middle = np.array((size - 1, size - 1)) / 2
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        linear = np.array([[c, -s], [s, c]])
        matrix = np.concatenate((linear, (middle - linear @ centre)[:, None]), 1)
        image = cv2.warpAffine(self.image, matrix, (size, size), flags=cv2.INTER_CUBIC)
        return Face(image, turn(self.points - centre, degrees) + middle)

    def _scaled(self, scale: float) -> Face:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        size = [max(1, round(side * scale)) for side in self.image.shape[1::-1]]
        image = cv2.resize(self.image, size, interpolation=how)
        factor = np.array(image.shape[1::-1]) / self.image.shape[1::-1]
        return Face(image, (self.points + 0.5) * factor - 0.5)


def read_faces(data: Path, scheme: str | Scheme, every: int = 1, where: str | None = None) -> list[Face]:
    """Every n-th face with all landmarks labelled."""
    dataset = read_dataset(data, scheme)
    records = (dataset if where is None else dataset.where(chosen_by([where], dataset))).records[::every]
    labelled = [(r, r.labels) for r in records if r.labels is not None and (r.labels.weights > 0).all()]
    return [Face(np.asarray(read_image(r.image)), labels.points) for r, labels in labelled]


def count(detector: FaceDetector, faces: Sequence[Face], what: str) -> dict[str, Any]:
    """The best score of each face, and the scores of the false positives. Each picture has one face."""
    best, false, seconds = [], [], []
    for face in progress_bar(faces, desc=what, leave=False):
        begun = time.perf_counter()
        seen = detector.detect(face.image)
        seconds.append(time.perf_counter() - begun)
        hits = of_face(face.box, seen.boxes)
        best.append(float(seen.scores[hits].max(initial=0)))
        false += seen.scores[~hits].tolist()
    return {"what": what, "best": best, "false": false, "ms": 1000 * float(np.median(seconds))}


def mosaic(detector: FaceDetector, faces: Sequence[Face], side: int) -> dict[str, Any]:
    """As `count`, for small faces on one large picture of grey noise."""
    height, width = PHOTOGRAPH
    image = np.random.default_rng(0).integers(100, 110, (height, width, 3), dtype=np.uint8)
    boxes, x, y, row = [], 0, 0, 0
    for face in (face.resized(side) for face in faces):
        h, w = face.image.shape[:2]
        if x + w > width:
            x, y, row = 0, y + row, 0
        if y + h > height:
            break
        image[y : y + h, x : x + w] = face.image
        boxes.append(face.box + np.array((x, y, x, y)))
        x, row = x + w, max(row, h)
    begun = time.perf_counter()
    seen = detector.detect(image)
    seconds = time.perf_counter() - begun
    hits = np.array([of_face(box, seen.boxes) for box in boxes])
    best = [float(seen.scores[hit].max(initial=0)) for hit in hits]
    what = f"{side} px on {width} x {height}"
    return {"what": what, "best": best, "false": seen.scores[~hits.any(0)].tolist(), "ms": 1000 * seconds}


def without(detector: FaceDetector) -> dict[str, Any]:
    import skimage.data

    images = []
    for name in WITHOUT:
        try:
            image = getattr(skimage.data, name)()
        except (OSError, ImportError, ModuleNotFoundError):  # it must be downloaded
            continue
        images.append(image if image.ndim == 3 else np.repeat(image[..., None], 3, 2))
    begun = time.perf_counter()
    false = [float(s) for image in images for s in detector.detect(np.ascontiguousarray(image[..., :3])).scores]
    seconds = (time.perf_counter() - begun) / len(images)
    return {"what": f"{len(images)} pictures without a face", "best": [], "false": false, "ms": 1000 * seconds}


def fit(detector: FaceDetector, faces: Sequence[Face]) -> dict[str, float]:
    """Place and size of the tight box relative to YuNet's box, in shares of the longer side of YuNet's box."""
    rows = []
    for face in progress_bar(faces, desc="fit", leave=False):
        boxes, _, points = detector._look(face.image, detector.sizes)
        hits = np.flatnonzero(of_face(face.box, boxes))
        if len(hits):
            box, roll = boxes[hits[0]], float(roll_of(points[hits[0]]))
            ours, longer = upright_box(face.points, roll), (box[2:] - box[:2]).max()
            off = turn((ours[:2] + ours[2:] - box[:2] - box[2:])[None] / 2, -roll)[0] / longer
            rows.append((*off, *(ours[2:] - ours[:2]) / longer, (ours[2:] - ours[:2]).max() / longer))
    mean, std = np.mean(rows, 0), np.std(rows, 0)
    names = ("right", "down", "wide", "high", "longer")
    return {
        f"{name} {kind}": float(v)
        for kind, values in (("", mean), ("std", std))
        for name, v in zip(names, values, strict=True)
    }


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table of the share of found faces and the number of false positives, by threshold."""
    cells = []
    for row in rows:
        best, false = np.array(row["best"]), np.array(row["false"])
        shares = [
            (f"{100 * (best >= t).mean():.1f} %, " if len(best) else "") + f"{int((false >= t).sum())}"
            for t in THRESHOLDS
        ]
        cells.append([row["what"], len(best), *shares, f"{row['ms']:.0f}"])
    return table(["", "faces", *(f"found, false at {t:g}" for t in THRESHOLDS), "ms"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="annotations, one face per picture")
    parser.add_argument("--scheme", default="300w", help="scheme of the annotations")
    parser.add_argument("--every", type=int, default=1, help="only every n-th face")
    parser.add_argument("--step", type=int, default=15, help="degrees between two rolls")
    parser.add_argument("--parts", nargs="+", default=["fit", "small", "large", "roll", "without"])
    parser.add_argument("--sizes", type=int, nargs="+", help="sizes of the detector; default: its own")
    parser.add_argument("--out", type=Path, help="folder for detection.json and detection.md")
    arguments = parser.parse_args()
    faces = read_faces(arguments.data, arguments.scheme, arguments.every)
    options: dict[str, Any] = {"sizes": arguments.sizes} if arguments.sizes else {}
    detector = FaceDetector.from_pretrained(threshold=min(THRESHOLDS), **options)
    report: dict[str, Any] = {"data": arguments.data.parent.name, "faces": len(faces), "sizes": detector.sizes}
    lines = [
        f"`{arguments.data.parent.name}`, {len(faces)} faces, sizes {detector.sizes}; default threshold {THRESHOLD}"
    ]
    if "fit" in arguments.parts:
        report["fit"] = fit(detector, faces)
        lines += ["", ", ".join(f"{name.strip()} {value:.3f}" for name, value in report["fit"].items())]
    rows = []
    if "small" in arguments.parts:
        rows += [mosaic(detector, faces, side) for side in SMALL]
    if "large" in arguments.parts:
        for pixels in FILLED:
            for margin in MARGINS:
                filled = [face.filling(margin, pixels) for face in faces]
                rows.append(count(detector, filled, f"{pixels} px, {margin} times the face"))
    if "roll" in arguments.parts:
        rows += [
            count(detector, [face.turned(degrees) for face in faces], f"roll {degrees}")
            for degrees in range(0, 360, arguments.step)
        ]
    if "without" in arguments.parts:
        rows.append(without(detector))
    report["rows"] = rows
    lines += ["", *markdown(rows), "", measured()]
    write(lines, report, arguments.out, "detection")


if __name__ == "__main__":
    main()
