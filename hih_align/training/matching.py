"""Matching: which landmark of a trained network is related to each landmark of another scheme, by their places.

The network runs on labelled faces. Each face has its own frame, in which the network's points are moved, turned and
scaled to a mean shape. In this frame the offset from an old landmark to a new one is nearly constant if the new
landmark moves with the old one. The spread of the offset measures this. A new landmark is computed from the old
landmark of least spread, plus the median offset, plus a part of the rest that the other old landmarks explain (ridge
regression). The result is a `Readout`, which needs no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..method.frame import Complex, Frame, both_sides, ridge
from ..method.readout import Readout, from_weights
from ..schemes import Scheme

#: An offset is used if it is longer than this many times its standard error; otherwise it may be chance.
CARRIED = 3.0

#: The ridge regression prefers a constant offset as strongly as this many faces would.
RIDGE_FACES = 3.0

#: With more spread than this, in shares of the face's longer side, no old landmark is related.
UNRELATED = 0.1

#: An old landmark of the same name is taken, unless another one has a spread that is smaller by this factor.
NAMED = 0.8

#: The nearest old landmark is taken if its spread is at most this many times the least spread, because it is simplest.
NEAREST = 1.2

#: The spread on fewer faces than this is mostly chance, so the nearest old landmark is taken.
ENOUGH = 5

How = Literal["same", "near", "from scratch"]


@dataclass(frozen=True)
class Match:
    """How a new landmark is computed.

    Attributes:
        landmark, source: names of the new landmark, and of the old landmark that is related best.
        index: index of the old landmark.
        distance: mean distance of the two, in percent of the longer side of the face's box.
        spread: mean deviation of the offset between them from the median offset in the face's frame, in the same unit.
        faces: number of faces on which the new landmark is labelled.
        how: "same": the point of the old landmark, unchanged; "near": the old point plus the offset; "from scratch": no
            old landmark is related, and the computed place is a guess.
    """

    landmark: str
    source: str
    index: int
    distance: float
    spread: float
    faces: int
    how: How


@dataclass(frozen=True)
class Matching:
    """How the landmarks of a scheme are computed from the landmarks of a network.

    Attributes:
        matches: one match per landmark.
        readout: the readout of the landmarks.
    """

    matches: tuple[Match, ...]
    readout: Readout

    @property
    def sources(self) -> NDArray[np.intp]:
        """(K,) indices of the old landmarks."""
        return np.array([match.index for match in self.matches], np.intp)

    def text(self) -> str:
        """The matches as a table of text."""
        rows = [("new point", "old point", "distance", "spread", "faces", "")]
        rows += [
            (m.landmark, m.source, f"{m.distance:.2f}", f"{m.spread:.2f}", str(m.faces), m.how) for m in self.matches
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [
            "  ".join(
                cell.rjust(width) if 2 <= column < 5 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "distance and spread: percent of the longer side of the face"])


def match(
    found: NDArray[np.floating],
    points: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    source: Scheme,
    target: Scheme,
) -> Matching:
    """Match the landmarks of a scheme with those of a network.

    Args:
        found: (N, H, 2) the points of the network on N faces.
        points: (N, K, 2) the labels, in the same pixels.
        labelled: (N, K).
        source, target: schemes of the H and of the K landmarks. If both have mirror pairs, each face also counts as its
            mirror image, so that both sides of the face get the same result.

    Raises:
        ValueError: a landmark is labelled on no face; the message names it.
    """
    if missing := [target.names[k] for k in np.flatnonzero(~labelled.any(0))]:
        raise ValueError(f"data: landmark {missing[0]!r} of scheme {target.id!r} is labelled on no face")
    count = labelled.sum(0)
    old, new, known = both_sides(found, points, labelled, source.permutation, target.permutation)
    frame = Frame(old)
    scale, rest = frame.scale(old), frame.rest(old)
    size = max(float(np.ptp(frame.mean.real)), float(np.ptp(frame.mean.imag)))
    names = {name: index for index, name in enumerate(source.names)}
    weights = np.zeros((len(target), len(source)), np.complex128)
    matches, near = [], []
    for k, name in enumerate(target.names):
        here = known[:, k]
        ways = (new[here, k, None] - old[here]) / scale[here, None] / size
        middle = _median(ways)
        spread = abs(ways - middle).mean(0)
        best = int(spread.argmin())
        if (named := names.get(name, -1)) >= 0 and spread[named] * NAMED <= spread[best]:
            best = named
        elif (apart := abs(ways).mean(0)).min() <= NEAREST * spread[best] or count[k] < ENOUGH:
            best = int(apart.argmin())
        distance = float(abs(ways[:, best]).mean())
        how: How = "same"
        weights[k, best] = 1
        if abs(middle[best]) > CARRIED * spread[best] / np.sqrt(count[k]):
            how = "near"
            near.append(k)
        how = "from scratch" if spread[best] > UNRELATED else how
        matches.append(
            Match(name, source.names[best], best, 100 * distance, 100 * float(spread[best]), int(count[k]), how)
        )
    if near:
        best_old = old[:, [matches[k].index for k in near]]
        strength = RIDGE_FACES / count[near] * known[:, near].sum(0)
        offsets = (new[:, near] - best_old) / scale[:, None]
        weights[near] += frame.weights(*ridge(offsets, rest, known[:, near], strength))
    return Matching(tuple(matches), from_weights(weights))


def cross_validated(
    found: NDArray[np.floating],
    points: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    source: Scheme,
    target: Scheme,
    groups: Sequence[object],
    folds: int = 5,
) -> NDArray[np.float64]:
    """(N, K, 2) points of each face by a `match` that has seen neither this face nor others of its group.

    Args:
        found, points, labelled, source, target: as in `match`.
        groups: (N,) the group of each face, such as its photograph. A group is never split.
        folds: number of parts that are left out in turn; fewer if there are fewer groups.

    NaN for a landmark that is labelled in no other part, and if there is only one group.
    """
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    fold = np.random.default_rng(0).permutation(len(number))[[number[group] for group in groups]] % max(
        min(folds, len(number)), 1
    )
    result = np.full(points.shape, np.nan)
    for out in range(fold.max() + 1):
        left = fold != out
        if (known := labelled[left].any(0)).any():
            some = target.select(np.flatnonzero(known).tolist()) if not known.all() else target
            matching = match(found[left], points[left][:, known], labelled[left][:, known], source, some)
            held = np.flatnonzero(~left)
            result[np.ix_(held, np.flatnonzero(known))] = matching.readout.points(found[held])
    return result


def _median(ways: Complex, steps: int = 30) -> Complex:
    """Geometric medians (H,) of offsets (N, H), by Weiszfeld's algorithm."""
    middle: Complex = ways.mean(0)
    for _ in range(steps):
        trust = 1 / np.maximum(abs(ways - middle), 1e-4)
        middle = (trust * ways).sum(0) / trust.sum(0)
    return middle
