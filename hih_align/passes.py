"""Passes of a face through the network: one pass, and further passes if the crop was inaccurate or the face is turned.

A pass finds points in a crop. The points show the place, size and roll of the face, and so whether the crop was
accurate. A face with an accurate crop needs no further pass.
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

#: A face that is turned by more than this, in degrees, gets another pass on an upright crop.
TURN = 15.0

#: With a lower mean score the face may be turned too far for the network, so the other quarter turns are tried. Some
#: networks give more than 0.5 to upside-down faces. Chosen on the choosing part of wflw_dev; `benchmarks/roll.py` shows
#: the effect.
LOW = 0.65

#: With a lower mean score there is no face, and the points mean nothing.
NOTHING = 0.25

#: A quarter turn is used only if its score is higher by this much.
BETTER = 0.1

#: Largest number of further passes of a face because it is turned.
MOST_TURNS = 2

#: Weight of the points of the pass before in the points of a refined face, and how fast it falls with `off`. The errors
#: of two passes differ, so a mean is more accurate than the second pass alone, unless the first box was far off. Chosen
#: on 300w_val with HIH_N and HIH_T, for annotated, shifted, square and found boxes.
BEFORE, FADES = 0.25, 0.15

#: A pass: B photographs and crops -> points (B, K, 2) in pixels of each photograph, and scores (B, K).
Look = Callable[[Sequence[Photograph], Sequence[Crop]], tuple[NDArray[np.float64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Rules:
    """The rules for further passes.

    Attributes:
        ratio: side of the crop divided by the longer side of the box.
        refine: largest number of passes on the box of the points of the pass before.
        above: a face is refined only if its points lie off the box by more than this, see `off`; None: all faces.
        five: computes the five points (5, 2) from points (K, 2), as `Scheme.five_points`; None: rolls are not searched.
        size: side of the crops in pixels.
        reach: how far boxes reach beyond the tight box of the points, see `Config.box`.
        refit: whether a box can be computed from the points (`Config.refits`). If not, further passes use the same box.
        scale: factor of the limits `LOW`, `NOTHING` and `BETTER` (`scores.limit_scale`).
    """

    ratio: float
    refine: int
    above: float | None = None
    five: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    size: int = CROP_SIZE
    reach: Sequence[float] | None = None
    refit: bool = True
    scale: float = 1.0


@dataclass(eq=False)
class Face:
    """A face and its state between the passes.

    Attributes:
        image: the photograph.
        given: (4,) the box that the caller gave.
        roll: roll of its crop, in degrees clockwise.
        find_roll: whether the points may show another roll.
        points: (K, 2) in pixels of the photograph; None before the first pass.
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
    _before: float = 0.0  # weight of the present points in those of the next pass

    def __post_init__(self) -> None:
        self._box = self.given

    @property
    def done(self) -> bool:
        """Whether the face has points."""
        return self.points is not None

    def crop(self, rules: Rules, quarter: float = 0.0) -> Crop:
        """The crop of the face, turned further by ``quarter`` degrees."""
        return square_crop(self._box, rules.ratio, rules.size, self.roll + quarter)

    def take(self, points: NDArray[np.float64], scores: NDArray[np.float32], rules: Rules) -> bool:
        """Store the result of a pass. Returns whether another pass is needed."""
        if self._turned and self.scores is not None and scores.mean() < self.scores.mean() - BETTER * rules.scale:
            return False  # turned the wrong way: keep the earlier result
        if self._before and self.points is not None:
            points = self._before * self.points + (1 - self._before) * points
        self._before = 0.0
        self.points, self.scores = points, scores
        by = self._by(rules)
        if abs(by) > TURN and self._turned < MOST_TURNS:
            self.roll += by
            self._turned += 1
        elif not rules.refit or self._refined >= rules.refine:
            return False
        else:
            away = off(points, self._box, self.roll, self.image.pixels, rules.reach)
            if rules.above is not None and away <= rules.above:
                return False
            self._before = weight_before(away)
        self._refined += 1
        if rules.refit:
            self._box = next_box(self._box, points, self.image.pixels, self.roll, rules.reach)
        return True

    def _by(self, rules: Rules) -> float:
        """The rotation of the points in the crop, in degrees."""
        if not self.find_roll or rules.five is None or self.points is None or self.scores is None:
            return 0.0
        if self.scores.mean() < NOTHING * rules.scale:
            return 0.0
        return (float(roll_of(rules.five(self.points))) - self.roll + 180) % 360 - 180


def off(
    points: NDArray[np.float64],
    box: NDArray[np.float64],
    roll: float,
    image: NDArray[np.uint8],
    reach: Sequence[float] | None = None,
) -> float:
    """The difference between the square of a box and the square of its points.

    It is the larger one of two values: the distance of the centres, in shares of the longer side of the points' box,
    and the logarithm of the ratio of the longer sides.
    """
    own = next_box(box, points, image, roll, reach)
    side, given = float((own[2:] - own[:2]).max()), float((box[2:] - box[:2]).max())
    shift = float(np.linalg.norm(own[:2] + own[2:] - box[:2] - box[2:])) / 2
    return max(shift / side, abs(float(np.log(given / side))))


def weight_before(away: float) -> float:
    """Weight of the points of a pass in the points of the next pass, by `off` of the pass."""
    return BEFORE * float(np.exp(-((away / FADES) ** 2)))


def align_faces(faces: Sequence[Face], look: Look, rules: Rules) -> None:
    """Run all passes of several faces together, in place."""
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
    """The first pass. If the score of a face is low, its quarter turn with the best score is used."""
    low = np.flatnonzero(scores.mean(-1) < LOW * rules.scale).tolist() if rules.five is not None else []
    unsure = [n for n in low if faces[n].find_roll]
    best: dict[int, float] = {}
    for quarter in (90.0, 180.0, 270.0) if unsure else ():
        tried = [faces[n] for n in unsure]
        p, s = look([face.image for face in tried], [face.crop(rules, quarter) for face in tried])
        for n, found, sure in zip(unsure, p, s, strict=True):
            if sure.mean() > scores[n].mean() + BETTER * rules.scale:
                points[n], scores[n], best[n] = found, sure, quarter
    for n, quarter in best.items():
        faces[n].roll += quarter
    return points, scores
