"""Measure own landmarks from a few labelled faces, and compare the errors with goals.

    python benchmarks/own_landmarks.py                          # without training: seconds per row, three draws
    python benchmarks/own_landmarks.py --fine-tune              # also with training: minutes per row
    python benchmarks/own_landmarks.py --init HIH_T/300w        # from this network alone
    python benchmarks/own_landmarks.py --fine-tune --draws 0 --points beside --faces 48     # one row of each
    python benchmarks/own_landmarks.py --many --draws 0         # 500 faces, own names and 300W's: hours on a CPU
    python benchmarks/own_landmarks.py --many own --draws 0 --points old --faces    # only the row of own names

There are two sets of 12 landmarks with new names (q0 ... q11). The landmarks of the first set coincide with landmarks
of HIH_T/300w. Its faces are those of ``300w_train``, and every third face of ``300w_test_lfpw`` for the test. The
landmarks of the second set do not (pupils, lower edges of the brows, places between jaw landmarks). Its faces are those
of ``wflw_dev``. Draw n takes the faces in the order of ``numpy.random.default_rng(n).permutation``: the first faces for
training, the next ones for validation, and the numbers 64 to 153 of ``wflw_dev`` for the test. The start is HIH_T, as
in `hih-align adapt`: HIH_T/300w or HIH_T/wflw, as the faces decide. Boxes are the annotated ones, and there is no
refining. The error is the NME in percent of the distance of the outer eye corners, or of the pupils. The exit status is
1 if the mean of the draws misses a goal.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hih_align import FaceAligner
from hih_align.data.annotations import read_dataset
from hih_align.data.records import Dataset, Labels, Record
from hih_align.evaluation.evaluate import evaluate
from hih_align.schemes import W300, Scheme
from hih_align.training import adapt, fine_tune

NAMES = tuple(f"q{i}" for i in range(12))

#: The names of the landmarks in the rows of 500 faces: own names, and 300W's.
NAMED = ("own", "named")


@dataclass(frozen=True)
class Points:
    """A set of landmarks, the data sets of its faces, and its goals: the highest allowed NME by row."""

    title: str
    train: str
    test: str | None
    scheme: str
    indices: tuple[int, ...]
    mirror: tuple[tuple[int, int], ...]
    normalizer: tuple[int, int]
    nearest: tuple[int, ...]
    bars: dict[str, float]

    @property
    def own(self) -> Scheme:
        """The scheme, with names that no other scheme has."""
        return Scheme("own", NAMES, mirror=self.mirror, normalizers={"eyes": tuple((i,) for i in self.normalizer)})

    def dataset(self, whole: Dataset, rows: Sequence[int]) -> Dataset:
        """Some faces with only these landmarks. Their boxes are unchanged."""
        return Dataset(whole.name, self.own, tuple(self._face(whole.records[i]) for i in rows), whole.source)

    def _face(self, record: Record) -> Record:
        chosen = list(self.indices)
        assert record.labels is not None
        labels = Labels(record.labels.points[chosen], record.labels.weights[chosen])
        return replace(record, labels=labels)


ON_OLD = Points(
    "12 points that lie on old ones",
    "300w_train",
    "300w_test_lfpw",
    "300w",
    (36, 39, 42, 45, 27, 30, 33, 48, 54, 57, 8, 51),
    ((0, 3), (1, 2), (7, 8)),
    (0, 3),
    (36, 39, 42, 45, 27, 30, 33, 48, 54, 57, 8, 51),
    {"adapt, 48 faces": 2.2, "fine_tune, 48 + 16 faces": 2.1},
)
BESIDE = Points(
    "12 points that do not",
    "wflw_dev",
    None,
    "wflw",
    (96, 97, 41, 47, 38, 50, 3, 29, 5, 27, 53, 79),
    ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
    (0, 1),
    (),
    {"adapt, 48 faces": 8.9, "fine_tune, 48 + 16 faces": 8.0},
)


def measure(
    points: Points, draw: int, root: Path, init: str, *, tune: bool, many: Sequence[str], faces: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """NME in percent and seconds for each row of the table."""
    whole = read_dataset(root / points.train / "annotations.json", points.scheme)
    order = np.random.default_rng(draw).permutation(len(whole))
    if points.test is None:
        test = points.dataset(whole, order[64:154])
    else:
        other = read_dataset(root / points.test / "annotations.json", points.scheme)
        test = points.dataset(other, range(0, len(other), 3))

    def error(aligner: FaceAligner) -> float:
        return evaluate(aligner, test, refine=0, progress=False).overall.nme

    rows: dict[str, tuple[float, float]] = {}
    if points.nearest:
        picked = FaceAligner.from_pretrained(init).select(points.nearest, points.own)
        rows["picked, nothing trained"] = error(picked), 0.0
    for count in faces:
        made = adapt(init, points.dataset(whole, order[:count]), progress=False)
        rows[f"adapt, {count} faces"] = error(made.aligner), made.seconds

    def trained(row: str, count: int, val: int, scheme: Scheme) -> None:
        begun = time.perf_counter()
        train, chosen = (points.dataset(whole, order[a:b]) for a, b in ((0, count), (count, count + val)))
        train, chosen = replace(train, scheme=scheme), replace(chosen, scheme=scheme)
        tuned = fine_tune(init, train, chosen, progress=sys.stderr is not None and sys.stderr.isatty())
        tuned = tuned.select(range(len(scheme)), points.own)
        rows[row] = error(tuned), time.perf_counter() - begun

    for count in faces if tune else ():
        trained(f"fine_tune, {count} + {count // 3} faces", count, count // 3, points.own)
    if "own" in many and points.nearest:
        trained("fine_tune, 500 + 100 faces", 500, 100, points.own)
    if "named" in many and points.nearest:
        trained("the same, by 300W's names", 500, 100, W300.select(points.nearest, "own"))
    return rows


def main() -> int:
    """Print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", choices=("old", "beside"), nargs="+", default=["old", "beside"])
    parser.add_argument("--faces", type=int, nargs="*", default=[12, 48])
    parser.add_argument("--fine-tune", action="store_true", help="also train: minutes per row")
    parser.add_argument(
        "--many",
        nargs="*",
        choices=NAMED,
        help="also train on 500 faces, with these names, or both: hours on a CPU",
    )
    parser.add_argument("--init", default="HIH_T", help="the start network, or a size, as in `hih-align adapt`")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    missed = []
    for points in [{"old": ON_OLD, "beside": BESIDE}[name] for name in options.points]:
        many = () if options.many is None else options.many or NAMED
        how = {"tune": options.fine_tune, "many": many, "faces": options.faces}
        found = [measure(points, draw, options.data, options.init, **how) for draw in options.draws]
        draws = " | ".join(f"draw {n}" for n in options.draws)
        print(f"\n| {points.title} | {draws} | mean | bar | seconds |", flush=True)
        print("| --- |" + " --- |" * (len(options.draws) + 3))
        for row in found[0]:
            errors, seconds = zip(*(draw[row] for draw in found), strict=True)
            mean, bar = float(np.mean(errors)), points.bars.get(row)
            cells = " | ".join(f"{error:.2f}" for error in errors)
            print(f"| {row} | {cells} | {mean:.2f} | {bar or ''} | {np.mean(seconds):.0f} |", flush=True)
            if bar is not None and mean > bar:
                missed.append(f"{points.title}, {row}: {mean:.2f}, bar {bar}")
    print("\n" + ("\n".join(f"missed: {text}" for text in missed) or "all bars of these rows hold"))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
