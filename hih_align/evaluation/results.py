"""The result of an evaluation: `Report`, its `Settings`, and its `ErrorSummary`. `report` writes and draws a report."""

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

#: Number of faces in WFLW's test set with at least one of its six attributes, and with none.
WFLW_TEST = (1966, 534)


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation.

    Attributes:
        box: see `face_boxes`; "detector": the faces were found.
        refine: number of refining passes.
        mirror: whether each result is averaged with the result of the mirrored face.
        decoder: the fields of the decoder.
        dtype: precision of the network.
        backend: the runtime of the network.
        normalizer: the distance that divides errors.
        keep: the condition that chose the faces, in words; None: all faces.
        calibrated: whether the scores are probabilities; see `Landmarks.calibrated`.
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
    """The errors of a set of faces, summed up.

    Attributes:
        faces: number of faces.
        measured: number of faces with an NME. The next six fields are about these faces.
        nme: mean NME of the faces, in percent of the normalizer.
        median: median NME of the faces.
        fr8, fr10: failure rates in percent: the share of faces with an NME above 8 and above 10.
        auc8, auc10: areas under the cumulative error distribution up to 8 and up to 10, in [0, 1].
        box_nme: mean error of the faces, in percent of the longer side of the annotated box.
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
    """The `ErrorSummary` of faces with NME (N,) and box NME (N,). NaN: not measured. Fields without data are NaN."""
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
    """An estimate for WFLW's whole test set from a sample of its faces.

    The sample may hold too many hard faces. Of the 2500 faces of WFLW's test set, 1966 have an attribute and 534 have
    none. So 0.7864 * mean(with) + 0.2136 * mean(without) estimates a mean over the whole set.

    Attributes:
        estimate: estimate for the whole set. Its median is not estimated (NaN).
        with_attribute, without_attribute: the faces of the sample with and without an attribute.
    """

    estimate: ErrorSummary
    with_attribute: ErrorSummary
    without_attribute: ErrorSummary


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Predictions for annotated faces, and their errors. N faces, K landmarks.

    Attributes:
        model: name of the checkpoint.
        dataset: name of the data set.
        scheme: scheme of the data set.
        settings: the settings of the evaluation.
        records: the N faces.
        boxes: (N, 4) float64, the boxes that the aligner was given.
        points: (N, K, 2) float32, the predicted points in pixels of each face's image, in the data set's scheme.
        scores: (N, K) float32.
        subsets: (N,) bool by the name of the subset.
        without_points: number of faces that were left out because they have no labelled points.
        missed: keys of the faces that the detector did not find. They are left out.
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
    missed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        nme = self.overall.nme
        return f"Report({self.model!r} on {self.dataset!r}, {len(self)} faces, NME {nme:.3f} %)"

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """(N, K) bool: whether the landmark is labelled."""
        return stack_labels(self.records)[2] > 0

    @cached_property
    def target(self) -> NDArray[np.float64]:
        """(N, K, 2) the labelled points; NaN for a landmark without a label."""
        return np.where(self.labelled[..., None], stack_labels(self.records)[1], np.nan)

    @cached_property
    def box_sides(self) -> NDArray[np.float64]:
        """(N,) the longer side of the annotated box, in pixels."""
        boxes = face_boxes(self.records)
        return (boxes[:, 2:] - boxes[:, :2]).max(-1)

    @cached_property
    def norm(self) -> NDArray[np.float64]:
        """(N,) the distance that divides the errors, in pixels; NaN if its landmarks are not labelled."""
        if self.settings.normalizer == "box":
            return self.box_sides
        return self.scheme.distance(self.target, self.settings.normalizer)  # NaN if one of its landmarks is NaN

    @cached_property
    def point_errors(self) -> NDArray[np.float64]:
        """(N, K) error in percent of `norm`; NaN for a landmark without a label."""
        return metrics.point_errors(self.points, self.target, self.norm)

    @cached_property
    def box_errors(self) -> NDArray[np.float64]:
        """(N, K) error in percent of the longer side of the annotated box; NaN for a landmark without a label."""
        return metrics.point_errors(self.points, self.target, self.box_sides)

    @cached_property
    def nme(self) -> NDArray[np.float64]:
        """(N,) mean error of each face in percent of `norm`; NaN if `norm` is NaN."""
        return metrics.nme(self.points, self.target, self.norm, self.labelled)

    @cached_property
    def box_nme(self) -> NDArray[np.float64]:
        """(N,) mean error of each face in percent of the longer side of the annotated box."""
        return metrics.nme(self.points, self.target, self.box_sides, self.labelled)

    @cached_property
    def overall(self) -> ErrorSummary:
        """The summary of all faces."""
        return summarize(self.nme, self.box_nme)

    @cached_property
    def by_subset(self) -> dict[str, ErrorSummary]:
        """The summary of each subset."""
        return {name: self._summary(mask) for name, mask in self.subsets.items()}

    @cached_property
    def landmark_nme(self) -> NDArray[np.float64]:
        """(K,) mean error of each landmark over the faces, in percent of `norm`; NaN if no face has the landmark."""
        return np.array([_mean(column) for column in self.point_errors.T])

    @cached_property
    def landmark_box_nme(self) -> NDArray[np.float64]:
        """(K,) mean error of each landmark, in percent of the longer side of the annotated box."""
        return np.array([_mean(column) for column in self.box_errors.T])

    @cached_property
    def full_set(self) -> FullSet | None:
        """The estimate for WFLW's whole test set.

        None if a face lacks one of WFLW's six attributes, or if all faces have an attribute, or none has.
        """
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
        """The quality of the scores of all labelled points."""
        known = ~np.isnan(self.box_errors)
        scores, errors = self.scores[known].astype(np.float64), self.box_errors[known] / 100
        faces = np.array([_mean(row) for row in np.where(known, self.scores, np.nan)])
        return measure_scores(scores, errors, rank_correlation(faces, self.box_nme))

    def worst(self, count: int = 16) -> NDArray[np.intp]:
        """Indices of the faces with the largest NME, the worst first. Faces without an NME are left out."""
        order = np.argsort(-self.nme, kind="stable")  # NaN sorts last
        return order[: min(count, self.overall.measured)]

    def _summary(self, mask: NDArray[np.bool_]) -> ErrorSummary:
        return summarize(self.nme[mask], self.box_nme[mask])


def _mean(values: NDArray[np.floating[Any]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
