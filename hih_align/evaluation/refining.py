"""For which faces a second pass pays: the threshold `Config.refine_above`, chosen on validation faces."""

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

#: Boxes for which the threshold is chosen: exact ones, those of careless callers, and those of common detectors.
BOXES: tuple[AnyBox, ...] = ("annotated", "jitter", "square")

#: Thresholds that are tried, in the unit of `passes.off`.
THRESHOLDS = tuple(round(0.02 + 0.0025 * step, 4) for step in range(93))

#: Most of the faces in exact boxes that may take a second pass.
MOST = 0.15

#: NME that may be lost against a second pass for every face, on any kind of `BOXES`, in percent.
LOSS = 0.01

#: A second pass has to take this share off the error, in the mean over the first two of `BOXES`.
WORTH = 0.01


@dataclass(frozen=True)
class Twice:
    """What a second pass does to N faces in one kind of boxes.

    Attributes:
        box: which boxes, as in `evaluate`.
        once, twice: (N,) NME in percent after one pass, and after two for every face.
        off: (N,) how far the first pass's points lay off the box (`passes.off`); infinite for faces that are looked
            at again in any case, because they are turned.
    """

    box: AnyBox
    once: NDArray[np.float64]
    twice: NDArray[np.float64]
    off: NDArray[np.float64]

    def nme(self, above: float) -> float:
        """Mean NME with a second pass for the faces that lie off by more than ``above``; infinite: for none."""
        return float(np.nanmean(np.where(self.off > above, self.twice, self.once)))

    def share(self, above: float) -> float:
        """Share of the faces that take a second pass."""
        return float((self.off > above).mean())


@dataclass(frozen=True)
class Refining:
    """What was chosen, and why.

    Attributes:
        refine: passes after the first, `Config.refine`.
        above: the threshold, `Config.refine_above`; None: no face takes them, or with ``refine`` every face.
        seen: what it was chosen on.
    """

    refine: int
    above: float | None
    seen: tuple[Twice, ...]

    def nme(self) -> dict[str, float]:
        """Mean NME by kind of boxes, with what was chosen."""
        at = np.inf if self.refine == 0 else -1.0 if self.above is None else self.above
        return {one.box: one.nme(at) for one in self.seen}

    def markdown(self) -> str:
        """A table of one pass, two, and as many as the threshold says; where none fits, as the best one would say."""
        fitting = [above for above in THRESHOLDS if fits(self.seen, above)]
        tried = _nearest(self.seen) if self.above is None else self.above
        known = f"{fitting[0]:g} to {fitting[-1]:g} fit" if fitting else f"none fits, shown is {tried:g}"
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
    """Errors after one pass and after two, and how far the first one's points lay off the box.

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
            # what a face does not gain by the further pass, it has had already: it was turned
            far = np.inf if same else off(points, given, 0.0, read_image(record.image), aligner.config.box)
            distances.append(far)
        found.append(Twice(box, once.nme[first], twice.nme[second], np.array(distances)))
    return found


def choose(seen: Sequence[Twice]) -> Refining:
    """For which faces a second pass pays.

    The threshold is the middle one of those that lose at most `LOSS` on any kind of boxes and ask at most `MOST` of the
    faces in exact ones (the first of ``seen``) for a second pass. Where none does, or it does not pay, every face gets
    the second pass if that pays (`WORTH`), else none.
    """
    one_pass = _mean(seen, np.inf)
    fitting = [above for above in THRESHOLDS if fits(seen, above)]
    if fitting and _mean(seen, above := fitting[len(fitting) // 2]) < (1 - WORTH) * one_pass:
        return Refining(1, above, tuple(seen))
    return Refining(int(_mean(seen, -1) < (1 - WORTH) * one_pass), None, tuple(seen))


def fits(seen: Sequence[Twice], above: float) -> bool:
    """Whether a threshold keeps within `LOSS` and `MOST`."""
    return seen[0].share(above) <= MOST and all(one.nme(above) <= one.nme(-1) + LOSS for one in seen)


def _nearest(seen: Sequence[Twice]) -> float:
    """Of the thresholds that ask few enough faces for a second pass, the one that loses least."""
    few = [above for above in THRESHOLDS if seen[0].share(above) <= MOST] or [THRESHOLDS[-1]]
    return min(few, key=lambda above: max(one.nme(above) - one.nme(-1) for one in seen))


def _mean(seen: Sequence[Twice], above: float) -> float:
    return float(np.mean([one.nme(above) for one in seen[:2]]))
