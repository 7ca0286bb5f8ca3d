"""The start of a run: creates the network, copies start weights, and decides which layers are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from ..data.records import Record
from ..method.decoder import Decoder
from ..method.network import Stack
from ..method.sizes import Size
from ..progress import warn
from ..schemes import Scheme
from .few import Few
from .grown import Grown
from .learner import HIH, Build, Learner, build_hih
from .looking import Seen
from .matched_start import MatchedStart, matched_start, training_reach
from .matching import Match
from .narrow import fitted
from .recipe import Recipe
from .supply import Supply
from .warmstart import Start, WarmStart, warm_start

#: Boxes lie in the same way about their points if their sides differ by less than this share of the longer side.
SAME_REACH = 0.3


@dataclass(frozen=True, eq=False)
class Beginning:
    """The start of a run.

    Attributes:
        model: the model to train.
        recipe: the recipe of the training. For few faces, the settings of `recipe.Few` are applied.
        matched: the matched start weights, which find the landmarks of the run without training. None if nothing was
            matched.
        warm_start: the tensors that were copied from the start weights. None without start weights.
        fast: layers with a higher learning rate, because some of their landmarks start from scratch.
    """

    model: Learner
    recipe: Recipe
    matched: MatchedStart | None = None
    warm_start: WarmStart | None = None
    fast: tuple[nn.Module, ...] = ()

    def decoder(self, scheme: Scheme) -> Decoder:
        """The decoder that measures the epochs: that of the recipe, or if the recipe has the default, of the start.

        A matched start is measured with its own decoder, which was chosen for it. With another one the epochs would
        look worse than they are. A network that never sees mirrored faces learns the bias of the labels itself, so its
        decoder must not add it again.
        """
        recipe = self.recipe
        if recipe.losses.rounding == "floor":
            return replace(recipe.decoder, bin_offset=0.5)
        own = None if self.matched is None else self.matched.config.decoder
        if own is None or own.bin_offset or recipe.decoder != Decoder():
            return recipe.decoder
        if recipe.augmentation.mirror and scheme.permutation is not None:
            return own
        return replace(own, shift=(-own.bias, own.shift[1]))


def begin(
    recipe: Recipe,
    start: Start | None,
    faces: Supply,
    scheme: Scheme,
    size: Size,
    *,
    build: Build = build_hih,
    device: torch.device,
    progress: bool = True,
    lost: bool = False,
    seen: Seen | None = None,
) -> Beginning:
    """Create the network of a run.

    Args:
        recipe: the recipe. The sizes of its stages must be known.
        start: the start weights. None: random weights.
        faces: the training faces.
        scheme: the scheme of their landmarks.
        size: the size of the network.
        build: creates the network.
        device: the device that runs the start network on the faces.
        progress: draw a progress bar on stderr.
        lost: for a run that goes on without its start weights: whether a landmark started from scratch.
        seen: as in `matched_start`.

    Warns:
        UserWarning: labels may be wrong, see `advice`.
    """
    matched = None
    if start is not None and recipe.match and build is build_hih:
        matched = matched_start(start, faces.records, scheme, device, progress, seen)
        for sentence in () if matched is None else matched.advice:
            warn(sentence)
        lost = matched is not None and any(match.how == "from scratch" for match in matched.matching.matches)
    if matched is not None and _grows(recipe, matched, len(faces), size):
        few = recipe.few
        stages = tuple(replace(stage, lr=few.lr) for stage in recipe.stages)
        made = matched.config
        assert made.reading is not None
        share = new_shares(matched.matching.matches, few)
        with torch.random.fork_rng(devices=[]):
            grown = Grown(matched.learner.network, made.reading, made.sources, made.decoder, share)
        recipe = replace(recipe, stages=stages, min_steps=few.steps, validate_every=2 * recipe.validate_every)
        return Beginning(grown, recipe, matched, grown.warm_start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(len(scheme), size)
    if start is None:
        return Beginning(model, recipe, fast=_last_layers(model) if lost else ())
    if isinstance(model, HIH):
        start = fitted(start, size, faces, recipe)
    sources = None if matched is None else matched.matching.sources
    kept = warm_start(model, start, scheme, sources)
    return Beginning(model, recipe, matched, kept, _last_layers(model) if lost else ())


def crops_of_start(start: Start | None, recipe: Recipe, records: Sequence[Record], scheme: Scheme) -> float:
    """The crop ratio of a run: that of the recipe, or if the recipe has the default, of the start.

    `adapt` and `fine_tune` enlarge the crops of landmarks whose tight boxes hold only a part of the face. Further
    training of such a model needs the same crops. They are taken if the faces have the same landmarks, and boxes that
    lie about them as those of the model do.
    """
    config = None if start is None or not recipe.match else start.config
    if config is None or recipe.crop_ratio != Recipe.crop_ratio or not config.scheme.same_landmarks(scheme):
        return recipe.crop_ratio
    tight = (0.0, 0.0, 0.0, 0.0)
    apart = np.subtract(training_reach(records) or tight, config.box or tight)
    return config.crop_ratio if np.abs(apart).max() < SAME_REACH else recipe.crop_ratio


def new_shares(matches: Sequence[Match], few: Few) -> list[float]:
    """Weight of the point of the new head in each landmark, see `Few.share`.

    A landmark that is the same as an old one needs no new head: the start network learned it from thousands of faces.
    """
    shares: dict[str, float] = {"same": 0.0, "near": few.share, "from scratch": 1.0}
    return [shares[match.how] for match in matches]


def may_grow(recipe: Recipe, faces: int) -> bool:
    """Whether a network may be trained as a `Grown` with so few faces. A resumed run then needs its start weights."""
    return recipe.match and faces < recipe.few.below


def _grows(recipe: Recipe, matched: MatchedStart, faces: int, size: Size) -> bool:
    """Whether the start network gets new heads (`Grown`). It needs the size and the crops of the run."""
    return (
        may_grow(recipe, faces)
        and matched.learner.network.size == size
        and [stage.size for stage in recipe.stages] == [size.input_size]
        and recipe.stages[0].subpixel
        and matched.crop_ratio == recipe.crop_ratio
    )


def _last_layers(model: Learner) -> tuple[nn.Module, ...]:
    if not isinstance(model, HIH):
        return ()
    stacks = cast("list[Stack]", list(model.network.trunk.stacks))
    return (*(stack.predict for stack in stacks), model.network.decimal_head.predict)
