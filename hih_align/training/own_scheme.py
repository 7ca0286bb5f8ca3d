"""A scheme for landmarks of one's own, guessed from labelled faces and a network that knows faces."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..schemes import Scheme
from .adaptation import look
from .advice import guessed_mirror, places_in_frame

#: Faces that are looked at.
FACES = 60


def guessed_scheme(aligner: FaceAligner, data: Dataset, progress: bool = True) -> Scheme:
    """The data's scheme with the mirror pairs that its landmarks seem to have, and "outermost" as normalizer.

    Args:
        aligner: of a scheme with mirror pairs: its points say where a face's middle is.
        data: labelled faces.
        progress: draw a progress bar on stderr.

    Two landmarks are a pair where each is the other's nearest mirror image (`advice.guessed_mirror`). The normalizer
    is the distance of the pair that lies furthest apart.

    Raises:
        ValueError: the aligner's scheme has no mirror pairs; no face has labels.
    """
    seen = look(aligner, data, FACES, progress)
    target = np.where(seen.labelled[..., None], seen.target, np.nan)
    places = places_in_frame(seen.points, target, aligner.scheme)
    if places is None:
        raise ValueError(f"scheme {aligner.scheme.id!r} has no mirror pairs: take another network")
    if (missing := np.flatnonzero(np.isnan(places))).size:
        warnings.warn(f"{data.scheme.names[missing[0]]!r} is labelled on none of the faces looked at", stacklevel=2)
    pairs = guessed_mirror(places)
    normalizers = dict(data.scheme.normalizers)
    if pairs and not normalizers:
        a, b = max(pairs, key=lambda pair: abs(places[pair[0]] - places[pair[1]]))
        normalizers = {"outermost": ((a,), (b,))}
    return replace(data.scheme, mirror=pairs, normalizers=normalizers)
