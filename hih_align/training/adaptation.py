"""Own landmarks without training: they are computed from the landmarks of a trained network (`matching`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..crops import fitting_box, reach_of, tight_box
from ..data.annotations import Dataset, read_dataset
from ..evaluation.calibrate import fit_curve
from ..evaluation.normalizers import choose_normalizer, normalizer_text
from ..evaluation.results import Report, Settings
from ..hub.config import Config, check_out
from ..hub.download import WeightsUnavailableError
from ..hub.manifest import known_names, read_manifest
from ..method.decoder import Decoder
from ..method.sizes import SIZES
from ..progress import warn
from ..schemes import Scheme, get_scheme
from ..scores import TOLERANCE, Calibration
from .advice import advice, unseen
from .looking import Seen, look, match_seen
from .matching import Matching, cross_validated

#: Largest number of faces on which `compared` runs networks.
SOME = 96


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """The result of `adapt`.

    Attributes:
        aligner: the aligner for the new landmarks.
        matching: how each new landmark is computed.
        report: the errors by cross-validation. Each face is measured with a matching of other photographs, or of the
            other faces if all faces are of one photograph. A single face is measured with its own matching.
        compared: the cross-validated NME of each network that was tried, by its name. The result uses the network with
            the lowest one.
        advice: sentences about possible problems of the data or of the result. Empty if there are none.
        seconds: duration of `adapt` in seconds.
    """

    aligner: FaceAligner
    matching: Matching
    report: Report
    compared: Mapping[str, float]
    advice: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        return f"Adapted({self.aligner!r}, {self.report!r})"

    @property
    def start(self) -> str:
        """The name of the network that the result uses."""
        return closest(self.compared)

    def text(self) -> str:
        """A text for the user: the table of the matching, the error, and the advice."""
        report = self.report
        unit = normalizer_text(report.settings.normalizer)
        lines = [
            self.matching.text(),
            *([comparison(self.compared)] if len(self.compared) > 1 else []),
            f"{report.model} on {report.overall.measured} faces: NME {report.overall.nme:.3f} % of the "
            f"{unit}, without training, {self.seconds:.0f} s",
            *(f"warning: {sentence}" for sentence in self.advice),
        ]
        return "\n".join(lines)


def adapt(
    init: str | os.PathLike[str] | FaceAligner,
    data: str | os.PathLike[str] | Dataset,
    *,
    scheme: str | os.PathLike[str] | Scheme | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    backend: str = "torch",
    progress: bool = True,
) -> Adapted:
    """Create an aligner for own landmarks from a trained network and labelled faces, without training.

    Args:
        init: the network: "HIH_T/300w", a folder, a Hub repository, or an aligner. A size without a scheme ("HIH_T")
            stands for several networks (`candidates`). The one with the lowest error by cross-validation is taken.
        data: the labelled faces: a data set, or a path that `read_dataset` accepts. About 12 faces are sufficient if
            the new landmarks are landmarks of the network, and about 50 if they lie beside them.
        scheme: the scheme of the data if ``data`` is a path: the id of a built-in scheme, a scheme file, or a `Scheme`.
            None: the names of the landmarks in a COCO file.
        out: a folder in which the result is saved, as by `FaceAligner.save_pretrained`.
        device, backend: the device and the runtime of the network and of the result, as in
            `FaceAligner.from_pretrained`.
        progress: draw progress bars on stderr.

    A network is run once on each face. It is run once more if the boxes are not those that it was trained on, for
    example the tight boxes of a few landmarks.

    Raises:
        TypeError, ValueError, FileNotFoundError, OSError: the errors of `FaceAligner.from_pretrained` and
            `read_dataset`. ValueError: a landmark is labelled on no face, or ``out``
            holds a training run.
    """
    begun = time.perf_counter()
    if out is not None:
        check_out(out)  # before the work
    faces = open_dataset(data, scheme)
    if isinstance(init, FaceAligner):
        names: tuple[str, ...] = (init.config.name,)
        starts = {init.config.name: init}
    else:
        names = candidates(init, faces.scheme)
        starts = _loaded(names, device=device, backend=backend)
    tried = {name: _adapted(start, faces, look(start, faces, progress=progress)) for name, start in starts.items()}
    errors = {name: made.report.overall.nme for name, made in tried.items()}
    best = tried[closest(errors)]
    if len(names) == 1:
        best = replace(best, advice=(*best.advice, *other_starts(closest(errors), best.matching)))
    if out is not None:
        best.aligner.save_pretrained(out)
    return replace(best, compared=errors, seconds=time.perf_counter() - begun)


def _adapted(start: FaceAligner, faces: Dataset, seen: Seen) -> Adapted:
    start = start.with_config(replace(start.config, output=None))  # the landmarks of the network itself
    known = start.scheme
    seen, matching = match_seen(start, seen, faces.scheme)
    groups: list[object] = [record.image for record in seen.records]
    alone = len(set(groups)) == 1  # then nothing can be held out but single faces
    if alone:
        groups = list(range(len(groups)))
    held_out = cross_validated(seen.points, seen.target, seen.labelled, known, faces.scheme, groups)
    report = _report(seen, held_out, matching, seen.config.decoder, faces)
    config = adapted_config(start, seen, matching, faces.scheme)
    config = replace(config, calibration={start.decoder.method: _curve(report)})
    said = (
        *unseen(seen.heights),
        *_seen_before(held_out, seen.labelled, alone),
        *advice(report, matching, seen.points, known),
    )
    aligner = start.with_config(config, config.decoder)
    return Adapted(aligner, matching, report, {}, said, seconds=0.0)


def candidates(init: str | os.PathLike[str], scheme: Scheme | None) -> tuple[str, ...]:
    """The networks that a name stands for, as the start of a network for ``scheme``.

    A size without a scheme ("HIH_T") stands for the published network of this scheme. If there is none, it stands for
    all published networks of the size. Any other name stands for itself.
    """
    name = os.fspath(init)
    rows = read_manifest().values() if name in SIZES and scheme is not None else ()
    published = [row for row in rows if row.size == name and row.sha256 is not None]
    wanted = [row for row in published if scheme is not None and row.scheme == scheme.id] or published
    return tuple(f"{row.size}/{row.scheme}" for row in wanted) or (name,)


def other_starts(name: str, matching: Matching) -> tuple[str, ...]:
    """A sentence if landmarks are no landmarks of the published network ``name``, and there are others of its size."""
    size, published = name.partition("/")[0], known_names()
    others = [id for id in published if id.startswith(f"{size}/") and id != name]
    beside = [match.landmark for match in matching.matches if match.how != "same"]
    if name not in published or not others or not beside:
        return ()
    return (
        f"{len(beside)} of {len(matching.matches)} landmarks are no landmarks of {name}, first {beside[0]!r}: {size!r} "
        f"as the start also tries {', '.join(others)}, which may find them better",
    )


def compared(names: Sequence[str], faces: Dataset, progress: bool = True) -> tuple[dict[str, float], Seen]:
    """The cross-validated NME of `adapt` on some of the labelled faces, for each network; and what the best one found.

    Raises:
        ValueError, FileNotFoundError, OSError: as `adapt`.
    """
    starts = _loaded(names)
    seen = {name: look(start, faces, SOME, progress) for name, start in starts.items()}
    errors = {name: _adapted(start, faces, seen[name]).report.overall.nme for name, start in starts.items()}
    return errors, seen[closest(errors)]


def _loaded(names: Sequence[str], device: str | None = None, backend: str = "torch") -> dict[str, FaceAligner]:
    """The networks by name, without those of several whose weights are not here and cannot be downloaded."""
    found: dict[str, FaceAligner] = {}
    for number, name in enumerate(names, 1):
        try:
            found[name] = FaceAligner.from_pretrained(name, device=device, backend=backend)
        except WeightsUnavailableError as error:
            if number == len(names) and not found:
                raise
            warn(f"{name} is not tried: {error}")
    return found


def closest(errors: Mapping[str, float]) -> str:
    """The name of the network with the lowest error."""
    return min(errors, key=errors.__getitem__)


def comparison(errors: Mapping[str, float]) -> str:
    """A line for the user: the networks that were tried, and the one that is used."""
    tried = ", ".join(f"{name} {error:.3f} %" for name, error in errors.items())
    return f"networks tried: {tried}; used: {closest(errors)}"


def open_dataset(
    data: str | os.PathLike[str] | Dataset, scheme: str | os.PathLike[str] | Scheme | None = None
) -> Dataset:
    """Return a data set unchanged, or read it. Without a scheme, the landmarks are those that a COCO file names.

    Raises:
        ValueError: there is no scheme, and the file names no landmarks. Also the errors of `read_dataset`.
    """
    if isinstance(data, Dataset):
        return data
    if scheme is None:
        from ..data.readers.coco import scheme_of

        return read_dataset(data, scheme_of(Path(data)))
    return read_dataset(data, get_scheme(scheme if isinstance(scheme, Scheme) else os.fspath(scheme)))


def _seen_before(held_out: NDArray[np.float64], labelled: NDArray[np.bool_], alone: bool) -> tuple[str, ...]:
    """A sentence if the errors may be lower than those of new photographs."""
    if alone:
        return ("all faces are of one photograph: the errors of faces in other photographs may be larger",)
    share = float(np.isnan(held_out[labelled]).any(-1).mean())
    if not share:
        return ()
    return (
        f"{share:.0%} of the labels could not be left out, because too few faces have these landmarks. Their errors "
        "are those of the faces that the matching was computed from, and are too low",
    )


def _report(seen: Seen, held_out: NDArray[np.float64], matching: Matching, decoder: Decoder, faces: Dataset) -> Report:
    """The errors of cross-validated points. A landmark that cannot be cross-validated has the points of `match`."""
    own = matching.readout.points(seen.points)
    return Report(
        model="not cross-validated, measured" if np.isnan(held_out).all() else "cross-validated",
        dataset=faces.name,
        scheme=faces.scheme,
        settings=Settings(
            decoder=asdict(decoder),
            normalizer=choose_normalizer(faces.scheme, seen.records),
            keep=faces.chosen,
            calibrated=False,
        ),
        records=seen.records,
        boxes=seen.boxes,
        points=np.where(np.isnan(held_out), own, held_out).astype(np.float32),
        scores=seen.heights[:, matching.readout.sources].astype(np.float32),
    )


def adapted_config(start: FaceAligner, seen: Seen, matching: Matching, scheme: Scheme) -> Config:
    """The config for the new landmarks without training, with the readout and the boxes that the network needs."""
    readout = matching.readout
    if start.config.readout is not None:
        readout = start.config.readout.then(readout.weights)
    own = tight_box(matching.readout.points(seen.points))
    return replace(
        start.config,
        scheme=scheme,
        name=f"{start.config.name.partition('/')[0]}/{scheme.id}" if start.config.name else scheme.id,
        decoder=seen.config.decoder,
        readout=readout,
        output=None,
        crop_ratio=seen.config.crop_ratio,
        refine=seen.config.refine,
        refine_above=None,
        box=_reach(start, seen, own),
    )


def _curve(report: Report) -> Calibration:
    """The calibration of heights by cross-validated errors."""
    known = ~np.isnan(report.box_errors)
    return fit_curve(
        report.scores[known].astype(np.float64), (report.box_errors[known] < 100 * TOLERANCE).astype(float)
    )


def _reach(start: FaceAligner, seen: Seen, own: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
    """How far the boxes that the network needs reach beyond the tight boxes of the new points (`Config.box`).

    None if a tight box has no size, or if the network does not compute boxes from points.
    """
    if (own[:, 2:] - own[:, :2]).min() < 1 or not start.config.refits:
        return None
    fitting = fitting_box(seen.points, start.config.box)
    middle, half = (fitting[:, :2] + fitting[:, 2:]) / 2, (fitting[:, 2:] - fitting[:, :2]) / 2
    half = half * start.config.crop_ratio / seen.config.crop_ratio
    return reach_of(np.concatenate((middle - half, middle + half), 1), own)
