"""Recipes: everything that decides what a training run does, but for its data.

A recipe is a YAML file (``recipes/*.yaml``, or a user's own) whose keys are the attributes of `Recipe`. What a file
leaves out has the default given there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..method.heatmaps import Decoder
from ..method.losses import LossSettings
from ..method.network import SIZES, Size
from ..schemes import SCHEMES
from . import plain
from .augmentation import PRESETS, Augmentation
from .learner import size_of

#: Where the packaged recipes lie.
FOLDER = Path(__file__).parent / "recipes"

#: Keys that stand for the same key of every stage, for ``--set`` and keyword arguments.
_STAGE_SHORTHANDS = ("epochs", "batch", "lr", "schedule", "warmup")


@dataclass(frozen=True)
class Stage:
    """A part of a run at one resolution.

    Attributes:
        epochs: passes over the data.
        size: side of the crops in pixels, a multiple of 64; 0: the network's ``input_size``.
        batch: faces per optimiser step, over all processes and accumulated pieces.
        lr: the highest learning rate.
        schedule: "cosine" falls from it to ``lr * final``; "step" multiplies it by ``gamma`` at each of
            ``milestones``; "constant".
        warmup: epochs, fractions too, over which the rate first rises linearly from 0.
        milestones: epochs of this stage.
        gamma, final: see ``schedule``.
        subpixel: whether the subpixel head is trained, and used in validation. Decimal heatmaps of other sizes than
            the recipe's (at other crops than the network's ``input_size``) are interpolated to it.
    """

    epochs: int
    size: int = 0
    batch: int = 16
    lr: float = 1e-3
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final: float = 0.0
    subpixel: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"epochs and batch are {self.epochs} and {self.batch}, expected at least 1")
        if self.size < 0 or self.size % 64:
            raise ValueError(f"size is {self.size}, expected a multiple of 64, or 0 for the network's")
        if not self.lr > 0 or self.warmup < 0:
            raise ValueError(f"lr and warmup are {self.lr} and {self.warmup}, expected positive and at least 0")

    def rate(self, step: int, epoch_steps: int) -> float:
        """Learning rate of the stage's step, counted from 0, where an epoch has ``epoch_steps``."""
        warm, total = self.warmup * epoch_steps, self.epochs * epoch_steps
        if step < warm:
            return self.lr * min(1.0, (step + 1) / warm)
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(step >= milestone * epoch_steps for milestone in self.milestones)
        if self.schedule == "constant":
            return self.lr
        along = (step - warm) / max(total - warm, 1)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * along)))


@dataclass(frozen=True)
class Recipe:
    """A training run, but for its data.

    Attributes:
        stages: what is run, in order.
        scheme: id of the landmark scheme where none is asked for.
        size: "N", "T", "S" or "B", see `network.SIZES`; None: that of the start weights.
        decimal_size: 4, 8 or 16 (Tab. IX).
        width, head_channels, input_size: of the network, in place of the size's, see `network.Size`.
        losses: see `LossSettings`.
        augmentation: see `Augmentation`; in a file, a name ("none", "paper", "modern", "wild") or a mapping of its
            attributes, in which ``preset`` names what the others change.
        decoder: of validation, and of the network that comes out.
        optimizer: "adam" or "adamw".
        weight_decay, betas: of the optimiser; AdamW's decay spares batch norms and biases.
        eps: of Adam, added to the root of a gradient's mean square. Means over maps and landmarks have gradients of
            1e-8 and less near the end of training: the usual eps of 1e-8 all but stops what they move.
        clip: largest norm of the gradient; None: any.
        ema: decay of the moving average of weights and batch norm statistics that is validated and kept; 0: none.
        precision: "auto" (what the hardware has, see `autocast_precision`), "no" (float32), "bf16" or "fp16" autocast.
        channels_last, compile: memory layout, and `torch.compile`.
        accumulate: pieces that a step's batch is computed in, each in every process.
        frozen_statistics: batch norms keep the statistics and run as in inference: for few faces or tiny batches.
        crop_ratio: crop side over the box's longer side.
        store_side, store_margin: of decoded faces, see `FaceStore`.
        calibrate: what is chosen on the validation faces for the network that comes out, see `calibrate`: "all" is
            decoder, refining passes and score calibration; "scores" keeps the decoder; or "no".
        match: start weights' landmarks are matched by place (`matching.match`), not by name; what this makes without
            training is measured first, and stays ``best/`` until an epoch is better.
        min_steps: least optimiser steps; with fewer in the stages' epochs, each stage has more epochs by the same
            factor, of validations and warm-up too, and the moving average spans a tenth of the run at most.
        validate_every: epochs between validations; the last of each stage is always validated.
        seed: of weights, order and augmentation.
    """

    stages: tuple[Stage, ...]
    scheme: str | None = None
    size: str | None = None
    decimal_size: int = 8
    width: float | None = None
    head_channels: int | None = None
    input_size: int | None = None
    losses: LossSettings = field(default_factory=LossSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    decoder: Decoder = field(default_factory=Decoder)
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-11
    clip: float | None = 0.005
    ema: float = 0.998
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    accumulate: int = 1
    frozen_statistics: bool = False
    crop_ratio: float = 1.25
    store_side: int = 384
    store_margin: float = 2.0
    calibrate: Literal["all", "scores", "no"] = "all"
    match: bool = False
    min_steps: int = 0
    validate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages is empty, expected at least one")
        if self.size is not None:
            size_of(self.size)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected a decay in [0, 1)")
        if self.accumulate < 1 or self.validate_every < 1:
            raise ValueError(
                f"accumulate and validate_every are {self.accumulate} and {self.validate_every}, expected at least 1"
            )
        if not self.eps > 0 or not (self.clip is None or self.clip > 0):
            raise ValueError(f"eps and clip are {self.eps} and {self.clip}, expected positive")

    def network(self, start: Size | None) -> Size:
        """The network's numbers: those of the recipe's size, else of the start weights, else HIH_T's; with what the
        recipe says of its own."""
        size = size_of(self.size) if self.size else start or size_of("T")
        own = {name: value for name in ("width", "head_channels", "input_size") if (value := getattr(self, name))}
        return size._replace(decimal_size=self.decimal_size, **own)

    def with_steps(self, faces: int) -> Recipe:
        """The recipe for epochs of so many faces: stretched to ``min_steps``."""
        steps = sum(stage.epochs * -(-faces // stage.batch) for stage in self.stages)
        factor = math.ceil(self.min_steps / steps)
        if factor <= 1:
            return self
        stages = tuple(
            replace(
                stage,
                epochs=stage.epochs * factor,
                warmup=stage.warmup * factor,
                milestones=tuple(milestone * factor for milestone in stage.milestones),
            )
            for stage in self.stages
        )
        ema = min(self.ema, max(0.0, 1 - 20 / (steps * factor)))
        return replace(self, stages=stages, validate_every=self.validate_every * factor, ema=ema)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `recipe_from_dict` reads it back."""
        return plain.to_plain(self)


def recipe_from_dict(data: Any, source: str = "recipe") -> Recipe:
    """A recipe from plain data.

    Raises:
        ValueError: for unknown or missing keys and values out of range; it names the key.
    """
    if isinstance(data, Mapping) and data.get("variant") == "hih":  # runs of version 0.1 say so
        data = {key: value for key, value in data.items() if key != "variant"}
    if isinstance(data, Mapping) and "gradient_scale" in data:
        data = _without_gradient_scale(data, source)
    if isinstance(data, Mapping) and "augmentation" in data:
        data = {**data, "augmentation": _whole_augmentation(data["augmentation"], f"{source}.augmentation")}
    return plain.from_plain(Recipe, data, source, also=_STAGE_SHORTHANDS)


def _without_gradient_scale(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Recipes of version 0.1 multiplied the loss by ``gradient_scale``: the same is Adam's eps, and a clip, that much
    smaller."""
    changed = {key: value for key, value in data.items() if key != "gradient_scale"}
    scale = plain.from_plain(float, data["gradient_scale"], f"{source}.gradient_scale")
    if "eps" in data or not scale > 0:
        raise ValueError(
            f"{source}.gradient_scale is {scale:g}: recipes have eps in its place, which is 1e-8 / gradient_scale, and "
            "a clip that is divided by gradient_scale"
        )
    changed["eps"] = float(f"{1e-8 / scale:.12g}")
    if (clip := data.get("clip", 5.0)) is not None:
        changed["clip"] = float(f"{plain.from_plain(float, clip, f'{source}.clip') / scale:.12g}")
    return changed


def _whole_augmentation(value: Any, where: str) -> Any:
    """A preset's name, or a mapping in which ``preset`` names what the others change, as all of its attributes."""
    changes = {"preset": value} if isinstance(value, str) else value
    if not isinstance(changes, Mapping):
        raise ValueError(f"{where} is {value!r}, expected a preset's name or a mapping")
    preset = changes.get("preset", "modern")
    if preset not in PRESETS:
        raise ValueError(f"{where} is {preset!r}, expected one of {sorted(PRESETS)}")
    return asdict(PRESETS[preset]()) | {key: value for key, value in changes.items() if key != "preset"}


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def load_recipe(name: str, size: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, with overrides.

    Args:
        name: a YAML file; a packaged recipe ("modern/t", "paper/300w", "finetune"); or the id of a built-in scheme
            ("300w", "wflw", "cofw"), which is ``modern/{size}`` with that scheme.
        size: "N", "T", "S" or "B" ("HIH_N", ...), in place of the recipe's own; for a scheme's id, T unless given. A
            file's ``by_size`` mapping holds what a size changes.
        overrides: values by dotted key, such as ``{"losses.alpha": 0.05, "stages.0.epochs": 3}``. "epochs", "batch",
            "lr", "schedule" and "warmup" mean every stage's. With epochs, a recipe's ``min_steps`` does not count.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: an unknown name or key, or a value out of range.
    """
    if size is not None:
        size_of(size)
        size = size.upper().removeprefix("HIH_")
    scheme = None
    known = recipe_names()
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"recipe: no such file: {name}")
    elif name in SCHEMES:
        scheme, size = name, size or "T"
        path = FOLDER / "modern" / f"{size.lower()}.yaml"
    elif name in known:
        path = FOLDER / f"{name}.yaml"
    else:
        raise ValueError(f"recipe is {name!r}, expected a .yaml file or one of {[*SCHEMES, *known]}")
    data = _read(path)
    by_size = data.pop("by_size", None) or {}
    known = [size.removeprefix("HIH_") for size in SIZES]
    if not isinstance(by_size, Mapping) or not set(by_size) <= set(known):
        raise ValueError(f"{path}: by_size is {by_size!r}, expected mappings under {', '.join(known)}")
    size = size or data.get("size")
    if size is not None:
        data["size"] = size
        data = _merge(data, by_size.get(size) or {})
    if scheme is not None:
        data["scheme"] = scheme
    for key, value in (overrides or {}).items():
        _set(data, key, value)
    if "min_steps" not in (overrides or {}) and any(key.split(".")[-1] == "epochs" for key in overrides or {}):
        data["min_steps"] = 0  # who says how many epochs, has them
    return recipe_from_dict(data, str(path) if path.is_relative_to(FOLDER) is False else f"recipe {name}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = plain.parse_yaml(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"recipe: {path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"recipe: {path} holds {type(data).__name__}, expected a mapping")
    return data


def _merge(data: Any, changes: Any) -> Any:
    if not (isinstance(data, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**data, **{key: _merge(data.get(key), value) for key, value in changes.items()}}


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Put ``value`` at a dotted key of nested mappings and lists."""
    if key in _STAGE_SHORTHANDS:
        for stage in data.get("stages") or ():
            stage[key] = value
        return
    *parents, last = key.split(".")
    at: Any = data
    for i, name in enumerate(parents):
        if isinstance(at, list):
            at = _item(at, name, key)
            continue
        child = at.get(name) if isinstance(at, dict) else None
        if isinstance(child, str) and name == "augmentation":
            child = {"preset": child}
        if child is None and isinstance(at, dict):
            child = {}
        if not isinstance(child, (dict, list)):
            raise ValueError(f"override {key!r}: {'.'.join(parents[: i + 1])} holds {child!r}, nothing to set in it")
        at[name] = child
        at = child
    if isinstance(at, list):
        _item(at, last, key)
        at[int(last)] = value
    else:
        at[last] = value


def _item(items: list[Any], index: str, key: str) -> Any:
    if not index.isdecimal() or int(index) >= len(items):
        raise ValueError(f"override {key!r}: {index!r} is no index of its list, which has {len(items)} items")
    return items[int(index)]


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts to overrides of `load_recipe`; values are YAML ("3e-4", "null", "[1, 2]").

    Raises:
        ValueError: for a text without "=", or a value that is not YAML.
    """
    overrides = {}
    for item in items:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise ValueError(f"set is {item!r}, expected key=value")
        try:
            overrides[key.strip()] = plain.parse_yaml(text)
        except ValueError as error:
            raise ValueError(f"set is {item!r}, whose value is not YAML: {error}") from error
    return overrides


def write_recipe(recipe: Recipe, path: Path) -> None:
    """The recipe with all its values, as YAML."""
    import yaml

    from .. import files

    with files.replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False), "utf-8")
