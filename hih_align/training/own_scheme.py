"""A scheme for own landmarks, guessed from labelled faces and from a network that knows faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..aligner import FaceAligner
from ..data.annotations import Dataset
from ..progress import warn
from ..schemes import Scheme
from .advice import guessed_five, guessed_mirror, places_in_frame, unseen
from .looking import look

#: Largest number of faces that are used.
FACES = 60


def guessed_scheme(aligner: FaceAligner, data: Dataset, progress: bool = True) -> Scheme:
    """Guess a scheme: the data's scheme with likely mirror pairs, the normalizer "outermost", and the five points.

    Args:
        aligner: a network whose scheme has mirror pairs. Its points show the middle of each face, and the five points
            if its scheme defines them.
        data: labelled faces.
        progress: draw a progress bar on stderr.

    Two landmarks are a pair if each is the nearest mirror image of the other (`advice.guessed_mirror`). The normalizer
    is the distance of the pair whose landmarks are furthest apart. The five points (`Scheme.five`) are guessed if each
    of them is the place of a landmark, or the middle of two (`advice.guessed_five`).

    Raises:
        ValueError: the scheme of the aligner has no mirror pairs, or no face has labels.

    Warns:
        UserWarning: a landmark is labelled on none of the faces, or the network sees no face in most boxes.
    """
    aligner = aligner.with_config(replace(aligner.config, output=None))  # the landmarks of the network itself
    seen = look(aligner, data, FACES, progress)
    for sentence in unseen(seen.heights):
        warn(sentence)
    target = np.where(seen.labelled[..., None], seen.target, np.nan)
    places = places_in_frame(seen.points, target, aligner.scheme)
    if places is None:
        raise ValueError(f"scheme {aligner.scheme.id!r} of the model has no mirror pairs: choose another model")
    if (missing := np.flatnonzero(np.isnan(places))).size:
        warn(f"landmark {data.scheme.names[missing[0]]!r} is labelled on none of the faces that were used")
    pairs = guessed_mirror(places)
    normalizers = dict(data.scheme.normalizers)
    if pairs and not normalizers:
        a, b = max(pairs, key=lambda pair: abs(places[pair[0]] - places[pair[1]]))
        normalizers = {"outermost": ((a,), (b,))}
    five = data.scheme.five
    if five is None and aligner.scheme.five is not None:
        found = places_in_frame(seen.points, aligner.scheme.five_points(seen.points), aligner.scheme)
        assert found is not None  # as for the landmarks
        five = guessed_five(places, pairs, found)
    return replace(data.scheme, mirror=pairs, normalizers=normalizers, five=five)
