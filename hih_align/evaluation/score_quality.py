"""Whether scores are what they claim to be: expected calibration error and rank correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scores import TOLERANCE


@dataclass(frozen=True, eq=False)
class ScoreQuality:
    """Whether scores are what they claim to be: the probability that a point's error is below 5 % of its box.

    Attributes:
        points: labelled points measured.
        error: expected calibration error over 10 bins of equal width: the mean over points of the difference between
            their bin's mean score and the share of its points found.
        rank_correlation: Spearman's, of the points' scores with their errors in shares of the box; -1 is best.
        face_rank_correlation: the same of the faces' mean scores with their mean errors.
        count: (10,) points in each bin.
        score: (10,) mean score in each bin, NaN in an empty one.
        found: (10,) share of points with an error below 5 % of the longer side of the annotated box.
    """

    points: int
    error: float
    rank_correlation: float
    face_rank_correlation: float
    count: NDArray[np.int64]
    score: NDArray[np.float64]
    found: NDArray[np.float64]


def measure_scores(
    scores: NDArray[np.float64], errors: NDArray[np.float64], of_faces: float, bins: int = 10
) -> ScoreQuality:
    """What (P,) scores say of (P,) errors.

    Args:
        scores: float64 in [0, 1].
        errors: float64 in shares of the longer side of the annotated box.
        of_faces: becomes `ScoreQuality.face_rank_correlation`.
        bins: of equal width.
    """
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # empty bins: NaN
        score = np.bincount(place, scores, bins) / count
        found = np.bincount(place, errors < TOLERANCE, bins) / count
    gap = np.where(count > 0, np.abs(score - found), 0.0)
    return ScoreQuality(
        points=len(scores),
        error=float((gap * count).sum() / len(scores)) if len(scores) else float("nan"),
        rank_correlation=rank_correlation(scores, errors),
        face_rank_correlation=of_faces,
        count=count,
        score=score,
        found=found,
    )


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, of pairs without NaN; NaN where one side does not vary."""
    from scipy.stats import spearmanr

    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
