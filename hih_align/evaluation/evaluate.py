"""An aligner against annotated faces: `evaluate` and its `Report`; `report` writes and draws it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..aligner import BATCH_SIZE, FaceAligner
from ..data.annotations import Attribute, Dataset, Record
from ..data.boxes import Box, face_boxes
from ..data.readers.wflw import ATTRIBUTES
from ..progress import progress_bar
from ..schemes import Scheme, conversion
from ..scores import TOLERANCE
from . import metrics

#: WFLW's test set: faces with any of its six attributes, and faces with none.
WFLW_TEST = (1966, 534)


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(?:attributes\.)?([\w-]+)\s*(?:%\s*(\d+)\s*)?(==|!=|<=|>=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True)
class Where:
    """Chooses faces by their attributes: ``Where("id%3!=0")(record)``.

    Attributes:
        text: ``NAME [% DIVISOR] OPERATOR VALUE``, the operator one of ``== != < <= > >=``, or several of these, all
            to hold, with ``and`` between: "id%3!=0", "pose==1 and blur==0", "subset==lfpw", "age>=18". Values that
            are not both numbers are compared as text.

    Raises:
        ValueError: text of another form; when called, a record that lacks the attribute, or text where a number is
            needed.
    """

    text: str

    def __post_init__(self) -> None:
        self._conditions()

    def __call__(self, record: Record) -> bool:
        return all(self._holds(record, *condition) for condition in self._conditions())

    def _conditions(self) -> list[tuple[str, int | None, str, str]]:
        found = []
        for part in re.split(r"\s+and(?:\s+|$)", self.text):
            match = _CONDITION.fullmatch(part)
            if match is None or (match[2] is not None and int(match[2]) == 0):
                raise ValueError(f"where is {self.text!r}, expected such as 'id%3!=0', 'pose==1' or 'subset==lfpw'")
            found.append((match[1], None if match[2] is None else int(match[2]), match[3], match[4]))
        return found

    def _holds(self, record: Record, name: str, divisor: int | None, compare: str, wanted: str) -> bool:
        if name not in record.attributes:
            raise ValueError(f"where is {self.text!r}, but {record.key} has only {sorted(record.attributes)}")
        value = record.attributes[name]
        left, right = _number(value), _number(wanted)
        if left is not None and right is not None:
            return _COMPARE[compare](left % divisor if divisor else left, right)
        if divisor or compare not in ("==", "!="):
            raise ValueError(f"where is {self.text!r}, but {name} of {record.key} is {value!r}, which is no number")
        return _COMPARE[compare](str(value), wanted)


def _number(value: Attribute) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


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
class Summary:
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


def summarize(nme: NDArray[np.float64], box_nme: NDArray[np.float64]) -> Summary:
    """(N,) NME and (N,) box NME of faces, NaN where not measured -> their `Summary`, NaN where nothing is."""
    known = nme[~np.isnan(nme)]
    return Summary(
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

    estimate: Summary
    with_attribute: Summary
    without_attribute: Summary


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
        return np.array([record.weights for record in self.records], np.float64) > 0

    @cached_property
    def target(self) -> NDArray[np.float64]:
        """(N, K, 2) the data's points, NaN where not labelled."""
        return np.where(self.labelled[..., None], np.array([r.points for r in self.records], np.float64), np.nan)

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
    def overall(self) -> Summary:
        """Of all faces."""
        return summarize(self.nme, self.box_nme)

    @cached_property
    def by_subset(self) -> dict[str, Summary]:
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
        marked = np.array([any(_flag(r.attributes[name]) for name in ATTRIBUTES) for r in self.records])
        some, none = self._summary(marked), self._summary(~marked)
        if not some.measured or not none.measured:
            return None
        share = WFLW_TEST[0] / sum(WFLW_TEST)
        means = {
            name: share * getattr(some, name) + (1 - share) * getattr(none, name)
            for name in ("nme", "fr8", "auc8", "fr10", "auc10", "box_nme")
        }
        estimate = Summary(faces=len(self), measured=self.overall.measured, median=float("nan"), **means)
        return FullSet(estimate, some, none)

    @cached_property
    def score_quality(self) -> ScoreQuality:
        """Of all labelled points."""
        known = ~np.isnan(self.box_errors)
        scores, errors = self.scores[known].astype(np.float64), self.box_errors[known] / 100
        faces = np.array([_mean(row) for row in np.where(known, self.scores, np.nan)])
        return _score_quality(scores, errors, _rank_correlation(faces, self.box_nme))

    def worst(self, count: int = 16) -> NDArray[np.intp]:
        """Indices of the faces with the largest NME, worst first; faces without one are never among them."""
        order = np.argsort(-self.nme, kind="stable")  # NaN goes last
        return order[: min(count, self.overall.measured)]

    def _summary(self, mask: NDArray[np.bool_]) -> Summary:
        return summarize(self.nme[mask], self.box_nme[mask])


def evaluate(
    aligner: FaceAligner,
    dataset: Dataset,
    *,
    box: Box = "annotated",
    refine: int | None = None,
    mirror: bool = False,
    subsets: Iterable[str] = (),
    batch_size: int = BATCH_SIZE,
    normalizer: str | None = None,
    keep: Callable[[Record], bool] | None = None,
    progress: bool = True,
) -> Report:
    """Align the faces of a dataset and measure the errors.

    Args:
        aligner: with its decoder and precision. Where its scheme is not the dataset's, its results are converted
            (98 -> 68, 98 -> 29).
        dataset: faces without labelled points are left out, and so are single points that are not labelled.
        box: which boxes the aligner gets, see `face_boxes`. "jitter" is drawn for all faces with points, before
            ``keep`` chooses among them: a face's box does not depend on which others are measured.
        refine, mirror: as in `FaceAligner.align`; None means the checkpoint's.
        subsets: attributes to report by, with or without a leading "attributes."; "attributes" alone means all that
            are 0 or 1 on every face. One of 0 and 1 gives the subset of the faces that have it, any other a subset
            for each value ("subset=lfpw").
        batch_size: faces that go through the network together.
        normalizer: one of the dataset's scheme, or "box" for the longer side of the annotated box; by default what
            `choose_normalizer` says. `Report.settings` names it.
        keep: chooses the faces, such as ``Where("id%3!=0")``.
        progress: show a progress bar on the standard error.

    Raises:
        ValueError: an unknown box, normalizer or subset, boxes that faces lack, no face left, a scheme to which no
            conversion is known; a bad image or box, naming the record.
        FileNotFoundError: a missing image, naming the record.
    """
    scheme = dataset.scheme
    if conversion(aligner.scheme, scheme).shape != (len(scheme), len(aligner.scheme)):
        raise ValueError(
            f"scheme {scheme.id!r} has {len(scheme)} points in the dataset, but {len(aligner.scheme)} in the model"
        )
    if normalizer not in (None, "box") and normalizer not in scheme.normalizers:
        expected = sorted([*scheme.normalizers, "box"])
        raise ValueError(f"normalizer is {normalizer!r}, expected for scheme {scheme.id!r} one of {expected}")
    complete = [record for record in dataset.records if record.points is not None]
    boxes = face_boxes(complete, box)
    chosen = [i for i, record in enumerate(complete) if keep is None or keep(record)]
    records, boxes = tuple(complete[i] for i in chosen), boxes[chosen]
    if not records:
        raise ValueError(f"dataset {dataset.name!r} has {len(complete)} faces with points, of which none was chosen")
    masks = subset_masks(records, subsets)
    normalizer = choose_normalizer(scheme, records) if normalizer is None else normalizer
    points, scores = _predict(aligner, records, boxes, scheme, batch_size, refine, mirror, progress)
    settings = Settings(
        box=box,
        refine=aligner.config.refine if refine is None else refine,
        mirror=mirror,
        decoder=asdict(aligner.decoder),
        dtype=str(aligner.dtype).removeprefix("torch."),
        backend=aligner.backend,
        normalizer=normalizer,
        keep=None if keep is None else getattr(keep, "text", "chosen by a function"),
        calibrated=aligner.calibrated,
    )
    left_out = len(dataset.records) - len(complete)
    return Report(aligner.config.name, dataset.name, scheme, settings, records, boxes, points, scores, masks, left_out)


def choose_normalizer(scheme: Scheme, records: Sequence[Record]) -> str:
    """What errors of faces are divided by where no normalizer is asked for: `Scheme.default_normalizer`, or "box"
    where no face has its landmarks labelled (profiles)."""
    name = scheme.default_normalizer
    if name == "box":
        return name
    ends = [i for group in scheme.normalizers[name] for i in group]
    return name if any((record.weights[ends] > 0).all() for record in records if record.weights is not None) else "box"


def normalizer_text(normalizer: str) -> str:
    """A normalizer in words: "longer side of the box", "inter-ocular distance"."""
    return "longer side of the box" if normalizer == "box" else f"{normalizer} distance"


def subset_masks(records: Sequence[Record], subsets: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """(N,) bool by name; see `evaluate` for what ``subsets`` may name.

    Raises:
        ValueError: an attribute that no record has, or one of more than 20 values.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for subset in subsets:
        flags = _flags(records) if subset == "attributes" else [subset.removeprefix("attributes.")]
        for name in flags:
            values = [record.attributes.get(name) for record in records]
            held = {value for value in values if value is not None}
            if not held:
                known = sorted({key for record in records for key in record.attributes})
                raise ValueError(f"subsets names {subset!r}, but the faces have only {known or 'no attributes'}")
            if held <= {0, 1}:
                masks[name] = np.array([value is not None and _flag(value) for value in values])
                continue
            if len(held) > 20:
                raise ValueError(f"subsets names {subset!r}, which has {len(held)} values, expected at most 20")
            for value in sorted(held, key=lambda v: (isinstance(v, str), v)):
                masks[f"{name}={value}"] = np.array([v == value for v in values])
    return masks


def _flags(records: Sequence[Record]) -> list[str]:
    names = [name for name in records[0].attributes if all(r.attributes.get(name) in (0, 1) for r in records)]
    if not names:
        raise ValueError("subsets names 'attributes', but the faces have none that are 0 or 1")
    return names


def _flag(value: Attribute) -> bool:
    return value == 1


def _predict(
    aligner: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    scheme: Scheme,
    batch_size: int,
    refine: int | None,
    mirror: bool,
    progress: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (N, K, 2) and scores (N, K) in the dataset's scheme; each image is read once."""
    of_image: dict[Path, list[int]] = {}
    for index, record in enumerate(records):
        of_image.setdefault(record.image, []).append(index)
    reading = records[0].key

    def images() -> Iterator[Path]:
        nonlocal reading
        for image, indices in of_image.items():
            reading = records[indices[0]].key
            yield image

    points = np.empty((len(records), len(scheme), 2), np.float32)
    scores = np.empty((len(records), len(scheme)), np.float32)
    given = (boxes[indices] for indices in of_image.values())
    results = aligner.stream(images(), given, batch_size, refine, mirror)
    with progress_bar(total=len(records), unit="face", disable=not progress, leave=False) as bar:
        try:
            for indices, faces in zip(of_image.values(), results, strict=True):
                found = faces.to(scheme)
                points[indices], scores[indices] = found.points, found.scores
                bar.update(len(indices))
        except (ValueError, FileNotFoundError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{reading}: {error}") from error
    return points, scores


def _mean(values: NDArray[np.floating[Any]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _score_quality(
    scores: NDArray[np.float64], errors: NDArray[np.float64], of_faces: float, bins: int = 10
) -> ScoreQuality:
    """(P,) scores and errors in shares of the box."""
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # empty bins: NaN
        score = np.bincount(place, scores, bins) / count
        found = np.bincount(place, errors < TOLERANCE, bins) / count
    gap = np.where(count > 0, np.abs(score - found), 0.0)
    return ScoreQuality(
        points=len(scores),
        error=float((gap * count).sum() / len(scores)) if len(scores) else float("nan"),
        rank_correlation=_rank_correlation(scores, errors),
        face_rank_correlation=of_faces,
        count=count,
        score=score,
        found=found,
    )


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, of pairs without NaN; NaN where one side does not vary."""
    from scipy.stats import spearmanr

    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
