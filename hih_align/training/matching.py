"""Which landmark of a trained network follows each landmark of another scheme, by where they lie on labelled faces.

The network is run on the faces. In each face's own frame (moved, turned and scaled like the network's points of it) the
way from an old landmark to a new one is about constant where the old one follows the new one: the spread of that way
says how well. A new landmark is read from the old one of least spread, plus the median way, plus what the other old
landmarks explain of the rest (ridge regression). All of it is a `Readout`: it needs no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..method.readout import Readout, from_weights
from ..schemes import Scheme

_Complex = NDArray[np.complex128]

#: A way is carried where it is longer than this many times its standard error; else it may be chance.
CARRIED = 3.0

#: The ridge regression holds on to the constant way as if so many faces said so.
RIDGE_FACES = 12.0

#: Of more spread, in shares of the face's longer side, the landmark follows no old one.
UNRELATED = 0.1

#: A landmark of the same name is taken unless another one's spread is smaller by this factor.
NAMED = 0.8

#: The nearest landmark is taken where its distance is at most this many times the least spread: the simplest will do.
NEAREST = 1.2

#: Steps towards least absolute distances, which faces that the network got wrong do not bend.
STEPS = 8

How = Literal["same", "near", "from scratch"]


@dataclass(frozen=True)
class Match:
    """What a new landmark is read from.

    Attributes:
        landmark, source: names of the new landmark, and of the old one that follows it best.
        index: of the old one.
        distance: mean distance of the two, percent of the longer side of the face's box.
        spread: mean deviation of the way between them from the median way in the face's frame, in the same unit.
        faces: on which the new landmark is labelled.
        how: "same": the old point as it is; "near": with the way between them; "from scratch": nothing follows it,
            and what is read from the old one is a guess.
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
    """How a scheme's landmarks are read from a network's.

    Attributes:
        matches: one for each landmark.
        readout: of the landmarks.
    """

    matches: tuple[Match, ...]
    readout: Readout

    @property
    def sources(self) -> NDArray[np.intp]:
        """(K,) indices of the old landmarks."""
        return np.array([match.index for match in self.matches], np.intp)

    def text(self) -> str:
        """The table, for people."""
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
    """How a scheme's landmarks lie to a network's.

    Args:
        found: (N, H, 2) what the network finds on N faces.
        points: (N, K, 2) the labels, in the same pixels.
        labelled: (N, K).
        source, target: of the H and the K landmarks. Where both know their mirror pairs, both sides agree: each face
            counts as its mirror image too.

    Raises:
        ValueError: a landmark that is labelled on no face; its message names it.
    """
    if missing := [target.names[k] for k in np.flatnonzero(~labelled.any(0))]:
        raise ValueError(f"data: landmark {missing[0]!r} of scheme {target.id!r} is labelled on no face")
    old, new, known = _complex(found), _complex(np.where(labelled[..., None], points, 0.0)), labelled
    count = labelled.sum(0)
    if source.permutation is not None and target.permutation is not None:
        old = np.concatenate((old, -old.conj()[:, source.permutation]))
        new = np.concatenate((new, -new.conj()[:, target.permutation]))
        known = np.concatenate((known, known[:, target.permutation]))
    mean = _mean_shape(old)
    frame = mean.conj() / (abs(mean) ** 2).sum()  # a face's scale and turn is this sum of its points
    scale = old @ frame - old.mean(-1) * frame.sum()
    size = max(float(np.ptp(mean.real)), float(np.ptp(mean.imag)))
    rest = (old - old.mean(-1, keepdims=True)) / scale[:, None] - mean
    turned = frame - frame.sum() / len(frame)  # the same sum, of points that are not centred
    own = np.eye(len(mean)) - 1 / len(mean) - np.outer(mean, turned)  # rest times scale, as a sum of points
    names = {name: index for index, name in enumerate(source.names)}
    weights = np.zeros((len(target), len(source)), np.complex128)
    matches = []
    for k, name in enumerate(target.names):
        here = known[:, k]
        ways = (new[here, k, None] - old[here]) / scale[here, None] / size
        middle = _median(ways)
        spread = abs(ways - middle).mean(0)
        best = int(spread.argmin())
        if (named := names.get(name, -1)) >= 0 and spread[named] * NAMED <= spread[best]:
            best = named
        elif (apart := abs(ways).mean(0)).min() <= NEAREST * spread[best]:
            best = int(apart.argmin())
        distance = float(abs(ways[:, best]).mean())
        how: How = "same"
        weights[k, best] = 1
        if abs(middle[best]) > CARRIED * spread[best] / np.sqrt(count[k]):
            how = "near"
            way, others = _ridge(ways[:, best] * size, rest[here], count[k])
            weights[k] += way * turned + others @ own
        how = "from scratch" if spread[best] > UNRELATED else how
        matches.append(
            Match(name, source.names[best], best, 100 * distance, 100 * float(spread[best]), int(count[k]), how)
        )
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
    """(N, K, 2) points of each face by a `match` that has not seen it, nor others of its group.

    Args:
        found, points, labelled, source, target: as in `match`.
        groups: (N,) what faces may not be told apart by, such as their photographs.
        folds: parts that are left out in turn; fewer where there are fewer groups.

    NaN where a landmark is labelled in no other part, or there is one group alone.
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


def _complex(points: NDArray[np.floating]) -> _Complex:
    p = np.asarray(points, np.float64)
    return p[..., 0] + 1j * p[..., 1]


def _mean_shape(faces: _Complex, rounds: int = 10) -> _Complex:
    """(N, H) faces -> (H,) their mean in one frame, centred, of root mean square radius 1; all points are known."""
    centred = faces - faces.mean(-1, keepdims=True)
    centred = centred / np.maximum(np.sqrt((abs(centred) ** 2).mean(-1, keepdims=True)), 1e-9)
    mean: _Complex = centred[0]
    for _ in range(rounds):
        turn = centred @ mean.conj()
        mean = (centred * (turn.conj() / np.maximum(abs(turn), 1e-9))[:, None]).mean(0)
        mean = mean / max(float(np.sqrt((abs(mean) ** 2).mean())), 1e-9)
    upright = np.sqrt((mean**2).sum())  # real where mean is symmetric about an axis: its sign does not matter
    return mean * (abs(upright) / upright if abs(upright) > 1e-9 else 1)


def _median(ways: _Complex, steps: int = 30) -> _Complex:
    """(N, H) -> (H,) geometric medians (Weiszfeld)."""
    middle: _Complex = ways.mean(0)
    for _ in range(steps):
        trust = 1 / np.maximum(abs(ways - middle), 1e-4)
        middle = (trust * ways).sum(0) / trust.sum(0)
    return middle


def _ridge(ways: _Complex, rest: _Complex, faces: int) -> tuple[complex, _Complex]:
    """The way as a constant and a sum of the other landmarks' deviations, by least absolute distances.

    Args:
        ways: (N,) in the frame's units.
        rest: (N, H) how far the old landmarks are from the mean shape.
        faces: of which these are, and their mirror images.
    """
    constant, others = complex(ways.mean()), np.zeros(rest.shape[1], np.complex128)
    ridge = RIDGE_FACES / max(faces, 1) * len(ways) * np.eye(rest.shape[1])
    for _ in range(STEPS):
        error = abs(ways - constant - rest @ others)
        trust = 1 / np.maximum(error, 0.3 * np.median(error) + 1e-6)
        trust = trust / trust.mean()
        centre, middle = (trust[:, None] * rest).sum(0) / trust.sum(), (trust * ways).sum() / trust.sum()
        left = rest - centre
        weighted = left.conj().T * trust
        others = np.linalg.solve(weighted @ left + ridge, weighted @ (ways - middle))
        constant = complex(middle - centre @ others)
    return constant, others
