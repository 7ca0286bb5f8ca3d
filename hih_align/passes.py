"""How often a face goes through the network: once, and again where its crop was off, or turned.

A pass finds points in a crop. They say where the face is, how large and how much it is turned, and so whether the crop
was a good one. A face whose crop was good is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .boxes import next_box
from .crops import CROP_SIZE, Crop, square_crop
from .roll import roll_of
from .runtime.backend import Photograph

#: Faces that are turned by more than this, degrees, are looked at again upright.
TURN = 15.0

#: With a lower mean score the face may be turned too far to be seen: the other quarter turns are tried.
LOW = 0.5

#: With a lower one there is no face, and its points say nothing.
NOTHING = 0.25

#: A quarter turn has to have a score higher by this much.
BETTER = 0.1

#: Passes of a face because it is turned.
MOST_TURNS = 2

#: B photographs and crops of them -> points (B, K, 2) in pixels of each photograph, scores (B, K).
Look = Callable[[Sequence[Photograph], Sequence[Crop]], tuple[NDArray[np.float64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Rules:
    """When a face is looked at again.

    Attributes:
        ratio: crop side over the box's longer side.
        refine: most passes on the box of the points found before.
        above: of the faces only those whose points lie off the box by more than this, see `off`; None: all.
        five: points (K, 2) -> the five points (5, 2), as `Scheme.five_points`; None: rolls are not looked for.
        size: side of the crops in pixels.
        reach: how far boxes reach beyond the points' own, see `Config.box`.
        refit: whether boxes can be made of the points (`Config.refits`); else a further pass is on the same box.
    """

    ratio: float
    refine: int
    above: float | None = None
    five: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    size: int = CROP_SIZE
    reach: Sequence[float] | None = None
    refit: bool = True


@dataclass(eq=False)
class Face:
    """A face on its way through the network.

    Attributes:
        image: the photograph.
        given: (4,) the box that the caller has.
        roll: of its crop, degrees clockwise.
        find_roll: whether its points may say that it is turned by another angle.
        points: (K, 2) in pixels of the photograph, None before the first pass.
        scores: (K,).
    """

    image: Photograph
    given: NDArray[np.float64]
    roll: float = 0.0
    find_roll: bool = True
    points: NDArray[np.float64] | None = None
    scores: NDArray[np.float32] | None = None
    _box: NDArray[np.float64] = field(init=False)
    _refined: int = 0
    _turned: int = 0

    def __post_init__(self) -> None:
        self._box = self.given

    @property
    def done(self) -> bool:
        """Whether it has points."""
        return self.points is not None

    def crop(self, rules: Rules, quarter: float = 0.0) -> Crop:
        """Its crop, turned further by ``quarter``."""
        return square_crop(self._box, rules.ratio, rules.size, self.roll + quarter)

    def take(self, points: NDArray[np.float64], scores: NDArray[np.float32], rules: Rules) -> bool:
        """Take what a pass has found; returns whether another one is due."""
        if self._turned and self.scores is not None and scores.mean() < self.scores.mean() - BETTER:
            return False  # turned the wrong way: what was found before stays
        self.points, self.scores = points, scores
        by = self._by(rules)
        if abs(by) > TURN and self._turned < MOST_TURNS:
            self.roll += by
            self._turned += 1
        elif (
            not rules.refit
            or self._refined >= rules.refine
            or (
                rules.above is not None
                and off(points, self._box, self.roll, self.image.pixels, rules.reach) <= rules.above
            )
        ):
            return False
        self._refined += 1
        if rules.refit:
            self._box = next_box(self._box, points, self.image.pixels, self.roll, rules.reach)
        return True

    def _by(self, rules: Rules) -> float:
        """Degrees by which the points are turned in the crop."""
        if not self.find_roll or rules.five is None or self.points is None or self.scores is None:
            return 0.0
        if self.scores.mean() < NOTHING:
            return 0.0
        return (float(roll_of(rules.five(self.points))) - self.roll + 180) % 360 - 180


def off(
    points: NDArray[np.float64],
    box: NDArray[np.float64],
    roll: float,
    image: NDArray[np.uint8],
    reach: Sequence[float] | None = None,
) -> float:
    """How far the square of a box is from that of its points.

    The larger of two: the distance of their centres, in shares of the longer side of the points' box, and the logarithm
    of the ratio of their longer sides.
    """
    own = next_box(box, points, image, roll, reach)
    side, given = float((own[2:] - own[:2]).max()), float((box[2:] - box[:2]).max())
    shift = float(np.linalg.norm(own[:2] + own[2:] - box[:2] - box[2:])) / 2
    return max(shift / side, abs(float(np.log(given / side))))


def align_faces(faces: Sequence[Face], look: Look, rules: Rules) -> None:
    """Take faces through the network together, in place."""
    due = list(faces)
    first = True
    while due:
        points, scores = look([face.image for face in due], [face.crop(rules) for face in due])
        if first:
            points, scores = _quarters(due, points, scores, look, rules)
            first = False
        due = [face for face, p, s in zip(due, points, scores, strict=True) if face.take(p, s, rules)]


def _quarters(
    faces: Sequence[Face], points: NDArray[np.float64], scores: NDArray[np.float32], look: Look, rules: Rules
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The first pass, in the quarter turn of the best score where the upright one's is low."""
    low = np.flatnonzero(scores.mean(-1) < LOW).tolist() if rules.five is not None else []
    unsure = [n for n in low if faces[n].find_roll]
    best: dict[int, float] = {}
    for quarter in (90.0, 180.0, 270.0) if unsure else ():
        tried = [faces[n] for n in unsure]
        p, s = look([face.image for face in tried], [face.crop(rules, quarter) for face in tried])
        for n, found, sure in zip(unsure, p, s, strict=True):
            if sure.mean() > scores[n].mean() + BETTER:
                points[n], scores[n], best[n] = found, sure, quarter
    for n, quarter in best.items():
        faces[n].roll += quarter
    return points, scores
