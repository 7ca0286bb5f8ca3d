"""Choice of the threshold `Config.refine_above` on validation faces: it says which faces get a second pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..data.records import Dataset, Record
from ..images import read_image
from ..passes import off
from .evaluate import AnyBox, evaluate

#: Kinds of boxes for which the threshold is chosen: exact boxes, inaccurate boxes, and boxes of common detectors.
BOXES: tuple[AnyBox, ...] = ("annotated", "jitter", "square")

#: Candidates for the threshold, in the unit of `passes.off`.
THRESHOLDS = tuple(round(0.02 + 0.0025 * step, 4) for step in range(93))

#: Largest share of the faces in exact boxes that may get a second pass.
MOST = 0.15

#: Largest increase of the NME, in percentage points, compared with a second pass for every face. See `choose`.
LOSS = 0.01

#: A second pass must lower the error by more than this share. The error is the mean over all kinds of boxes.
WORTH = 0.01


@dataclass(frozen=True)
class Twice:
    """The errors of N faces in one kind of boxes after one pass and after two passes.

    Attributes:
        box: kind of boxes, as in `evaluate`.
        once, twice: (N,) NME in percent after one pass, and after two passes.
        off: (N,) difference between the given box and the box of the points of the first pass (`passes.off`). It is
            infinite for rotated faces, because these get a second pass in any case.
    """

    box: AnyBox
    once: NDArray[np.float64]
    twice: NDArray[np.float64]
    off: NDArray[np.float64]

    def nme(self, above: float) -> float:
        """Mean NME in percent if the faces with `off` above this threshold get a second pass. inf: no face does."""
        return float(np.nanmean(np.where(self.off > above, self.twice, self.once)))

    def share(self, above: float) -> float:
        """Share of the faces that get a second pass."""
        return float((self.off > above).mean())


@dataclass(frozen=True)
class Refining:
    """The choice, and the errors that it is based on.

    Attributes:
        refine: number of passes after the first, `Config.refine`.
        above: the threshold, `Config.refine_above`. None: all faces get ``refine`` further passes.
        seen: the errors for each kind of boxes.
    """

    refine: int
    above: float | None
    seen: tuple[Twice, ...]

    def nme(self) -> dict[str, float]:
        """Mean NME in percent for each kind of boxes, with the chosen settings."""
        at = np.inf if self.refine == 0 else -1.0 if self.above is None else self.above
        return {one.box: one.nme(at) for one in self.seen}

    def markdown(self) -> str:
        """A Markdown table of the errors with one pass, with two passes, and with the threshold.

        If no threshold is chosen, the table shows the one with the smallest increase of the NME.
        """
        fitting = [above for above in THRESHOLDS if fits(self.seen, above)]
        tried = _nearest(self.seen) if self.above is None else self.above
        known = f"{fitting[0]:g} to {fitting[-1]:g} fit" if fitting else "none fits"
        known += f", shown is {tried:g}" if self.above is None else ""
        lines = [
            f"- refining: refine={self.refine}, refine_above={self.above} ({known})",
            "",
            "| boxes | faces | NME, one pass | two for every face | two above the threshold | share of faces |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for one in self.seen:
            nme = f"{one.nme(np.inf):.3f} | {one.nme(-1):.3f} | {one.nme(tried):.3f}"
            lines.append(f"| {one.box} | {len(one.off)} | {nme} | {100 * one.share(tried):.1f} % |")
        return "\n".join([*lines, ""])


def look_twice(
    aligner: FaceAligner,
    dataset: Dataset,
    *,
    boxes: Sequence[AnyBox] = BOXES,
    normalizer: str | None = None,
    keep: Callable[[Record], bool] | None = None,
    progress: bool = True,
) -> list[Twice]:
    """Measure the errors after one pass and after two passes, and the differences of the boxes (`Twice.off`).

    Args:
        aligner: the model.
        dataset, normalizer, keep, progress: as in `evaluate`.
        boxes: kinds of boxes.
    """
    found = []
    for box in boxes:
        once, twice = (
            evaluate(aligner, dataset, box=box, refine=passes, normalizer=normalizer, keep=keep, progress=progress)
            for passes in (0, 1)
        )
        missed = {*once.missed, *twice.missed}
        first, second = (
            np.array([record.key not in missed for record in report.records], bool) for report in (once, twice)
        )
        moved = np.abs(once.points[first] - twice.points[second]).max((1, 2))
        distances = []
        for record, given, points, same in zip(
            [r for r in once.records if r.key not in missed],
            once.boxes[first],
            once.points[first].astype(np.float64),
            moved < 1e-3 * once.box_sides[first],
            strict=True,
        ):
            # if the second pass changes nothing, the face already got it, because it is rotated
            far = np.inf if same else off(points, given, 0.0, read_image(record.image), aligner.config.box)
            distances.append(far)
        found.append(Twice(box, once.nme[first], twice.nme[second], np.array(distances)))
    return found


def choose(seen: Sequence[Twice]) -> Refining:
    """Choose which faces get a second pass.

    A threshold fits if it meets two conditions. For each kind of boxes, the NME grows by at most `LOSS`. In exact boxes
    (the first of ``seen``), at most the share `MOST` of the faces gets a second pass. Of the thresholds that fit, the
    one with the lowest NME is chosen (mean over all kinds of boxes; the middle one of equal ones), if it lowers the
    error by more than `WORTH`. If no threshold fits, it is sufficient that the mean NME over all kinds of boxes grows
    by at most `LOSS`. Otherwise all faces get a second pass, if this lowers the error by more than `WORTH`. Otherwise
    no face does.
    """
    enough = (1 - WORTH) * _mean(seen, np.inf)
    fitting = [above for above in THRESHOLDS if fits(seen, above)]
    if few := fitting or [above for above in THRESHOLDS if seen[0].share(above) <= MOST]:
        best = _best(seen, few)
        if _mean(seen, best) < enough and (fitting or _mean(seen, best) <= _mean(seen, -1) + LOSS):
            return Refining(1, best, tuple(seen))
    return Refining(int(_mean(seen, -1) < enough), None, tuple(seen))


def fits(seen: Sequence[Twice], above: float) -> bool:
    """Whether a threshold meets the limits `LOSS` and `MOST`."""
    return seen[0].share(above) <= MOST and all(one.nme(above) <= one.nme(-1) + LOSS for one in seen)


def _nearest(seen: Sequence[Twice]) -> float:
    """The threshold with the smallest increase of the NME, among those that meet the limit `MOST`."""
    few = [above for above in THRESHOLDS if seen[0].share(above) <= MOST] or [THRESHOLDS[-1]]
    return min(few, key=lambda above: max(one.nme(above) - one.nme(-1) for one in seen))


def _best(seen: Sequence[Twice], thresholds: Sequence[float]) -> float:
    """The threshold with the lowest mean NME, the middle one of equal ones."""
    errors = np.array([_mean(seen, above) for above in thresholds])
    best = np.flatnonzero(errors <= errors.min() + 1e-9)
    return thresholds[best[len(best) // 2]]


def _mean(seen: Sequence[Twice], above: float) -> float:
    return float(np.mean([one.nme(above) for one in seen]))
