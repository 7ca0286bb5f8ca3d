"""What an evaluation says: a `Report`, its `Settings` and its errors summed up; `report` writes and draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.boxes import face_boxes
from ..data.readers.wflw import ATTRIBUTES
from ..data.records import Record, stack_labels
from ..schemes import Scheme
from . import metrics
from .score_quality import ScoreQuality, measure_scores, rank_correlation
from .subsets import is_set

#: WFLW's test set: faces with any of its six attributes, and faces with none.
WFLW_TEST = (1966, 534)


@dataclass(frozen=True)
class Settings:
    """How an evaluation was run.

    Attributes:
        box: see `face_boxes`.
        refine: refining passes.
        mirror: whether averaged with the mirrored face.
        decoder: the decoder's fields.
        dtype: in which the network ran.
        backend: the runtime that ran it.
        normalizer: what errors are divided by.
        keep: which faces of the dataset, in words; None for all.
        calibrated: whether the scores are probabilities, see `Landmarks.calibrated`.
    """

    box: str = "annotated"
    refine: int = 0
    mirror: bool = False
    decoder: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    backend: str = "torch"
    normalizer: str = "inter-ocular"
    keep: str | None = None
    calibrated: bool = True


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of some faces.

    Attributes:
        faces: their number.
        measured: those with an NME; the next six fields are about these.
        nme: mean over faces, percent of the normaliser.
        median: of the faces' NME.
        fr8, fr10: failure rates in percent: share of faces with an NME above 8 and 10.
        auc8, auc10: areas under the cumulative error distribution up to 8 and 10, in [0, 1].
        box_nme: mean over faces, percent of the longer side of the annotated box.
    """

    faces: int
    measured: int
    nme: float
    median: float
    fr8: float
    auc8: float
    fr10: float
    auc10: float
    box_nme: float


def summarize(nme: NDArray[np.float64], box_nme: NDArray[np.float64]) -> ErrorSummary:
    """(N,) NME and (N,) box NME of faces, NaN where not measured -> their `ErrorSummary`, NaN where nothing is."""
    known = nme[~np.isnan(nme)]
    return ErrorSummary(
        faces=len(nme),
        measured=len(known),
        nme=_mean(nme),
        median=float(np.median(known)) if len(known) else float("nan"),
        fr8=metrics.failure_rate(nme, 8),
        auc8=metrics.auc(nme, 8),
        fr10=metrics.failure_rate(nme, 10),
        auc10=metrics.auc(nme, 10),
        box_nme=_mean(box_nme),
    )


@dataclass(frozen=True)
class FullSet:
    """What a sample of WFLW's test faces says of the whole test set.

    Hard faces may be in excess in the sample. Of WFLW's 2500 test faces 1966 carry an attribute and 534 carry none
    (``shared/data/README.md``), so 0.7864 * mean(with) + 0.2136 * mean(without) estimates every mean over faces.

    Attributes:
        estimate: of the whole set; its median is not estimated (NaN).
        with_attribute, without_attribute: the sample's faces of either kind.
    """

    estimate: ErrorSummary
    with_attribute: ErrorSummary
    without_attribute: ErrorSummary


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Predictions for annotated faces and what follows from them. N faces, K landmarks.

    Attributes:
        model: the checkpoint's name.
        dataset: the data's name.
        scheme: of the data.
        settings: how it was run.
        records: the N faces.
        boxes: (N, 4) float64, what the aligner was given.
        points: (N, K, 2) float32, what it found, in pixels of each face's image and in the data's scheme.
        scores: (N, K) float32.
        subsets: (N,) bool by name.
        without_points: faces of the data that have no labelled points and were left out.
    """

    model: str
    dataset: str
    scheme: Scheme
    settings: Settings
    records: tuple[Record, ...]
    boxes: NDArray[np.float64]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    without_points: int = 0

    def __repr__(self) -> str:
        nme = self.overall.nme
        return f"Report({self.model!r} on {self.dataset!r}, {len(self)} faces, NME {nme:.3f} %)"

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """(N, K) whether the data have the point."""
        return stack_labels(self.records)[2] > 0

    @cached_property
    def target(self) -> NDArray[np.float64]:
        """(N, K, 2) the data's points, NaN where not labelled."""
        return np.where(self.labelled[..., None], stack_labels(self.records)[1], np.nan)

    @cached_property
    def box_sides(self) -> NDArray[np.float64]:
        """(N,) longer side of the annotated box in pixels."""
        boxes = face_boxes(self.records)
        return (boxes[:, 2:] - boxes[:, :2]).max(-1)

    @cached_property
    def norm(self) -> NDArray[np.float64]:
        """(N,) what errors are divided by, in pixels; NaN where its points are not labelled."""
        if self.settings.normalizer == "box":
            return self.box_sides
        return self.scheme.distance(self.target, self.settings.normalizer)  # NaN if any end is

    @cached_property
    def point_errors(self) -> NDArray[np.float64]:
        """(N, K) percent of `norm`, NaN where not labelled."""
        return metrics.point_errors(self.points, self.target, self.norm)

    @cached_property
    def box_errors(self) -> NDArray[np.float64]:
        """(N, K) percent of the longer side of the annotated box, NaN where not labelled."""
        return metrics.point_errors(self.points, self.target, self.box_sides)

    @cached_property
    def nme(self) -> NDArray[np.float64]:
        """(N,) mean error of each face in percent of `norm`; NaN where that is not labelled."""
        return metrics.nme(self.points, self.target, self.norm, self.labelled)

    @cached_property
    def box_nme(self) -> NDArray[np.float64]:
        """(N,) mean error of each face in percent of the longer side of the annotated box."""
        return metrics.nme(self.points, self.target, self.box_sides, self.labelled)

    @cached_property
    def overall(self) -> ErrorSummary:
        """Of all faces."""
        return summarize(self.nme, self.box_nme)

    @cached_property
    def by_subset(self) -> dict[str, ErrorSummary]:
        """Of each subset's faces."""
        return {name: self._summary(mask) for name, mask in self.subsets.items()}

    @cached_property
    def landmark_nme(self) -> NDArray[np.float64]:
        """(K,) mean over faces of each landmark's error in percent of `norm`; NaN for one that no face has."""
        return np.array([_mean(column) for column in self.point_errors.T])

    @cached_property
    def landmark_box_nme(self) -> NDArray[np.float64]:
        """(K,) the same in percent of the longer side of the annotated box."""
        return np.array([_mean(column) for column in self.box_errors.T])

    @cached_property
    def full_set(self) -> FullSet | None:
        """The estimate for WFLW's whole test set; None for data of another kind: where a face lacks one of WFLW's six
        attributes, or all faces are with, or all without."""
        if not all(name in record.attributes for record in self.records for name in ATTRIBUTES):
            return None
        marked = np.array([any(is_set(r.attributes[name]) for name in ATTRIBUTES) for r in self.records])
        some, none = self._summary(marked), self._summary(~marked)
        if not some.measured or not none.measured:
            return None
        share = WFLW_TEST[0] / sum(WFLW_TEST)
        means = {
            name: share * getattr(some, name) + (1 - share) * getattr(none, name)
            for name in ("nme", "fr8", "auc8", "fr10", "auc10", "box_nme")
        }
        estimate = ErrorSummary(faces=len(self), measured=self.overall.measured, median=float("nan"), **means)
        return FullSet(estimate, some, none)

    @cached_property
    def score_quality(self) -> ScoreQuality:
        """Of all labelled points."""
        known = ~np.isnan(self.box_errors)
        scores, errors = self.scores[known].astype(np.float64), self.box_errors[known] / 100
        faces = np.array([_mean(row) for row in np.where(known, self.scores, np.nan)])
        return measure_scores(scores, errors, rank_correlation(faces, self.box_nme))

    def worst(self, count: int = 16) -> NDArray[np.intp]:
        """Indices of the faces with the largest NME, worst first; faces without one are never among them."""
        order = np.argsort(-self.nme, kind="stable")  # NaN goes last
        return order[: min(count, self.overall.measured)]

    def _summary(self, mask: NDArray[np.bool_]) -> ErrorSummary:
        return summarize(self.nme[mask], self.box_nme[mask])


def _mean(values: NDArray[np.floating[Any]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
