"""The start of a fine-tuning: landmarks matched by place, and the untrained network that this makes already."""

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
from ..crops import reach_of, tight_box
from ..data.records import Dataset, Record, stack_labels
from ..hub.config import Config
from ..method.decoder import Decoder
from ..method.network import HIHNet
from ..method.readout import Readout, pick
from ..schemes import Scheme
from .adaptation import Seen, adapted_config, look, look_twice
from .advice import doubtful_mirror, scratch
from .learner import HIH, Output
from .matching import Matching, match
from .warmstart import Start

#: Boxes that reach beyond the points by less than this, in shares of their side, are taken for the points' own.
TIGHT = 0.03

#: A landmark lies on its source where their mean distance is at most this many times the labels' spread.
COINCIDING = 1.2


class Untrained(HIH):
    """A trained network whose heads are read as other landmarks."""

    def __init__(self, network: HIHNet, readout: Readout, decoder: Decoder) -> None:
        super().__init__(network)
        self._decoder = decoder
        weights = torch.from_numpy(readout.weights)
        self.register_buffer("mix", torch.stack((weights.real, weights.imag)))
        self.register_buffer("sources", torch.from_numpy(readout.sources))

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        found = super().decode(output, self._decoder).double()
        real, imaginary = self.get_buffer("mix").unbind(0)
        x, y = found[..., 0], found[..., 1]
        return torch.stack((x @ real.T - y @ imaginary.T, x @ imaginary.T + y @ real.T), -1)

    def heights(self, output: Output) -> Tensor:
        return scores.score(output.integer[:, -1], None)[:, self.get_buffer("sources")]


@dataclass(frozen=True, eq=False)
class MatchedStart:
    """What `match` found for a run's landmarks.

    Attributes:
        matching: between the start network's landmarks and the run's.
        learner: the start network, read so.
        config: of the checkpoint that it is.
        crop_ratio: that the start network was trained with.
        rebox: gives faces the boxes that the start network wants, those of what it finds; None where the faces' own
            are such boxes.
        untouched: the start network, of which each landmark is its source's point as it is.
        coinciding: (M,) numbers of the landmarks that lie on their sources: `untouched` finds them, too.
        advice: sentences on what may be wrong with the labels.
    """

    matching: Matching
    learner: Untrained
    config: Config
    crop_ratio: float
    rebox: Callable[[Sequence[Record]], tuple[Record, ...]] | None
    untouched: Untrained
    coinciding: NDArray[np.intp]
    advice: tuple[str, ...]


def matched_start(
    start: Start, records: Sequence[Record], scheme: Scheme, device: torch.device, progress: bool = True
) -> MatchedStart | None:
    """Run start weights on labelled faces, and match the landmarks.

    Args:
        start: of a `HIHNet`, with a scheme; else there is nothing to match, and None is returned.
        records: the faces.
        scheme: of their labels.
        device: where the network runs.
        progress: draw a progress bar on stderr.
    """
    network = start.network.network if isinstance(start.network, HIH) else start.network
    if not isinstance(network, HIHNet) or start.scheme is None:
        return None
    config = start.config or Config(start.scheme, **network.size._asdict(), name=start.source)
    aligner = FaceAligner(network, replace(config, output=None), device=device)
    faces = Dataset("training faces", scheme, tuple(records), Path())
    seen = look(aligner, faces, progress=progress)
    matching = match(seen.points, seen.target, seen.labelled, start.scheme, scheme)
    made = replace(adapted_config(aligner, seen, matching, scheme), calibration={})
    assert made.readout is not None
    as_it_is = config.readout or pick(config.heads, range(config.heads))
    picked = as_it_is.then(np.eye(len(start.scheme))[matching.sources])
    return MatchedStart(
        matching,
        Untrained(network, made.readout, made.decoder).to(device).eval(),
        made,
        config.crop_ratio,
        partial(_reboxed, aligner, seen) if seen.config.refine else None,
        Untrained(network, picked, made.decoder).to(device).eval(),
        np.flatnonzero([m.distance <= COINCIDING * m.spread or m.how == "same" for m in matching.matches]),
        (*scratch(matching), *doubtful_mirror(seen.points, _known(seen), start.scheme, scheme)),
    )


def _reboxed(aligner: FaceAligner, seen: Seen, records: Sequence[Record]) -> tuple[Record, ...]:
    """Faces in the tight boxes of what a network finds on them; of those that were seen, of what it found."""
    found = {record.key: points for record, points in zip(seen.records, seen.points, strict=True)}
    if new := [record for record in records if record.key not in found]:
        points, _ = look_twice(aligner, new, seen.config.crop_ratio / aligner.config.crop_ratio, progress=False)
        found |= {record.key: p for record, p in zip(new, points, strict=True)}
    return tuple(replace(r, boxes={**r.boxes, "annotated": tight_box(found[r.key][None])[0]}) for r in records)


def _known(seen: Seen) -> NDArray[np.float64]:
    return np.where(seen.labelled[..., None], seen.target, np.nan)


def training_reach(records: Sequence[Record]) -> tuple[float, float, float, float] | None:
    """How the faces' boxes lie to their points (`Config.box`); None where they are the points' own, or no face has all
    of its landmarks labelled."""
    whole = [r for r in records if r.labels is not None and r.labels.known.all() and "landmarks" in r.boxes]
    if not whole:
        return None
    own = tight_box(stack_labels(whole)[1])
    reach = reach_of(np.array([r.box for r in whole], np.float64), own)
    return None if max(map(abs, reach)) < TIGHT else reach
