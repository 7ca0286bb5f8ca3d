"""The start of a fine-tuning: the landmarks are matched by place, and the result is a network without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import scores
from ..aligner import FaceAligner
from ..crops import fitting_box, reach_of, tight_box
from ..data.records import Dataset, Record, stack_labels, whole
from ..hub.config import Config
from ..method.decoder import Decoder
from ..method.network import HIHNet
from ..method.reading import Reading
from ..method.readout import Readout, pick
from ..schemes import Scheme
from .adaptation import adapted_config
from .advice import doubtful_mirror, scratch, unseen
from .learner import HIH, Output
from .looking import Seen, look, look_twice, match_seen
from .matching import Matching
from .warmstart import Start

#: A box that reaches beyond the points by less than this share of its side counts as the tight box of the points.
TIGHT = 0.03

#: A landmark coincides with its source if their mean distance is at most this many times the spread of the labels.
COINCIDING = 1.2


class Untrained(HIH):
    """A trained network whose heads are read as other landmarks, by a readout. The scores are those of ``sources``."""

    def __init__(self, network: HIHNet, readout: Readout, decoder: Decoder, sources: NDArray[np.intp]) -> None:
        super().__init__(network)
        self._decoder = decoder
        self.reading = Reading(readout, dtype=torch.float64)
        self.register_buffer("sources", torch.from_numpy(sources))

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        found: Tensor = self.reading(super().decode(output, self._decoder).double())
        return found

    def heights(self, output: Output) -> Tensor:
        return scores.score(output.integer[:, -1], None)[:, self.get_buffer("sources")]


def untrained(network: HIHNet, config: Config) -> Untrained:
    """A trained network that is read as ``config`` says, which has a readout."""
    assert config.reading is not None
    return Untrained(network, config.reading, config.decoder, config.sources)


@dataclass(frozen=True, eq=False)
class MatchedStart:
    """The result of `matched_start`.

    Attributes:
        matching: how the landmarks of the run are computed from those of the start network.
        learner: the start network, read by this matching.
        config: the config of ``learner`` as a checkpoint.
        crop_ratio: the crop ratio with which the start network was trained.
        rebox: replaces the boxes of faces by the boxes of the points that the start network finds, because the network
            needs such boxes. None if the boxes of the faces are already such boxes.
        untouched: the start network with each landmark at the point of its source, without an offset.
        as_it_is: the config of ``untouched`` as a checkpoint.
        coinciding: (M,) indices of the landmarks that coincide with their sources. `untouched` finds them, too.
        advice: sentences about possible errors of the labels.
    """

    matching: Matching
    learner: Untrained
    config: Config
    crop_ratio: float
    rebox: Callable[[Sequence[Record]], tuple[Record, ...]] | None
    untouched: Untrained
    as_it_is: Config
    coinciding: NDArray[np.intp]
    advice: tuple[str, ...]


def matched_start(
    start: Start,
    records: Sequence[Record],
    scheme: Scheme,
    device: torch.device,
    progress: bool = True,
    seen: Seen | None = None,
) -> MatchedStart | None:
    """Run the start network on labelled faces, and match the landmarks.

    Args:
        start: the start network.
        records: the faces.
        scheme: the scheme of their labels.
        device: the device that runs the network.
        progress: draw a progress bar on stderr.
        seen: what the start network found on faces. If it is on all of ``records``, the network is not run again.

    Returns:
        The result. None if ``start`` is not a `HIHNet`, or has no scheme.
    """
    network = start.network.network if isinstance(start.network, HIH) else start.network
    if not isinstance(network, HIHNet) or start.scheme is None:
        return None
    config = start.config or Config(start.scheme, **network.size._asdict(), name=start.source)
    aligner = FaceAligner(network, replace(config, output=None), device=device)
    faces = Dataset("training faces", scheme, tuple(records), Path())
    looked = look(aligner, faces, progress=progress) if seen is None or seen.records != faces.records else seen
    seen, matching = match_seen(aligner, looked, scheme)
    made = replace(adapted_config(aligner, seen, matching, scheme), calibration={})
    as_it_is = config.readout or pick(config.heads, range(config.heads))
    sources = as_it_is.then(np.eye(len(start.scheme))[matching.sources])
    picked = replace(made, readout=sources, decoder=config.decoder)
    return MatchedStart(
        matching,
        untrained(network, made).to(device).eval(),
        made,
        config.crop_ratio,
        partial(_reboxed, aligner, looked) if seen.config.refine else None,
        untrained(network, picked).to(device).eval(),
        picked,
        np.flatnonzero([m.distance <= COINCIDING * m.spread or m.how == "same" for m in matching.matches]),
        (*unseen(seen.heights), *scratch(matching), *doubtful_mirror(seen.points, _known(seen), start.scheme, scheme)),
    )


def _reboxed(aligner: FaceAligner, seen: Seen, records: Sequence[Record]) -> tuple[Record, ...]:
    """Give faces the tight boxes of the points that a network finds. It runs only on faces that are not in ``seen``."""
    found = {record.key: points for record, points in zip(seen.records, seen.points, strict=True)}
    if new := [record for record in records if record.key not in found]:
        points, _ = look_twice(aligner, new, seen.config.crop_ratio / aligner.config.crop_ratio, progress=False)
        found |= {record.key: p for record, p in zip(new, points, strict=True)}
    reach = aligner.config.box
    return tuple(replace(r, boxes={**r.boxes, "annotated": fitting_box(found[r.key], reach)}) for r in records)


def _known(seen: Seen) -> NDArray[np.float64]:
    return np.where(seen.labelled[..., None], seen.target, np.nan)


def training_reach(records: Sequence[Record]) -> tuple[float, float, float, float] | None:
    """How far the boxes of the faces reach beyond their points (`Config.box`).

    None if the boxes are the tight boxes of the points, or if there is no face with all landmarks labelled.
    """
    faces = whole(records)
    if not faces:
        return None
    own = tight_box(stack_labels(faces)[1])
    reach = reach_of(np.array([r.box for r in faces], np.float64), own)
    return None if max(map(abs, reach)) < TIGHT else reach
