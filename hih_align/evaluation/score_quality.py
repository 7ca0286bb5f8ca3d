"""The quality of scores: expected calibration error and rank correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scores import TOLERANCE


@dataclass(frozen=True, eq=False)
class ScoreQuality:
    """The quality of scores. A score should be the probability that the point's error is below 5 % of its box.

    Attributes:
        points: number of labelled points.
        error: expected calibration error over 10 bins of equal width. It is the mean over points of the difference
            between the mean score of the point's bin and the share of correct points in that bin.
        rank_correlation: Spearman correlation of the scores with the errors in shares of the box; -1 is best.
        face_rank_correlation: the same for the mean scores and mean errors of faces.
        count: (10,) number of points in each bin.
        score: (10,) mean score in each bin; NaN in an empty bin.
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
    """Compare scores (P,) with errors (P,).

    Args:
        scores: float64 in [0, 1].
        errors: float64, in shares of the longer side of the annotated box.
        of_faces: value of `ScoreQuality.face_rank_correlation`.
        bins: number of bins of equal width.
    """
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # an empty bin becomes NaN
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
    """Spearman correlation of the pairs without NaN; NaN if one side is constant."""
    from scipy.stats import spearmanr

    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
