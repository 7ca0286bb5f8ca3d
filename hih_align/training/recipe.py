"""Recipes: all settings of a training run except its data.

A recipe is a YAML file (``recipes/*.yaml``, or a user's own). Its keys are the attributes of `Recipe`. A key that the
file leaves out has the default of the attribute.

The file has more than 400 lines because the keys of a recipe, their defaults and how they are read belong together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..method.decoder import Decoder
from ..method.losses import LossSettings
from ..method.sizes import SIZES, Size
from ..schemes import SCHEMES
from . import plain
from .augmentation import PRESETS, Augmentation
from .few import Few, follow_stages
from .learner import size_of

#: The folder of the packaged recipes.
FOLDER = Path(__file__).parent / "recipes"

#: Keys that set the same key in every stage, for ``--set`` and keyword arguments.
_STAGE_SHORTHANDS = ("epochs", "batch", "lr", "schedule", "warmup")


@dataclass(frozen=True)
class Stage:
    """A part of a run at one resolution.

    Attributes:
        epochs: number of passes over the data.
        size: side of the crops in pixels, a multiple of 64; 0: the network's ``input_size``.
        batch: faces per optimiser step, over all processes and accumulated pieces.
        lr: highest learning rate.
        schedule: how the rate falls from ``lr``: "cosine" to ``lr * final``; "step" multiplies it by ``gamma`` at each
            of ``milestones``; "constant" keeps it.
        warmup: number of epochs (may be a fraction) in which the rate first rises linearly from 0.
        milestones: epochs of this stage; see ``schedule``.
        gamma, final: see ``schedule``.
        subpixel: train the subpixel head, and use it in validation. At another crop size than the network's
            ``input_size`` the decimal heatmaps have another size; they are interpolated to that of the recipe.
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

    def rate(self, step: float, epoch_steps: int) -> float:
        """The learning rate of a step of the stage.

        ``step`` counts from 0, and an epoch has ``epoch_steps`` steps. ``step`` need not be a whole number, because it
        may be computed from a share of a run's time.
        """
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
    """All settings of a training run except its data.

    Attributes:
        stages: the stages, in order.
        scheme: id of the default landmark scheme.
        size: "N", "T", "S" or "B", see `sizes.SIZES`; None: the size of the start weights.
        decimal_size: 4, 8 or 16 (Tab. IX).
        width, head_channels, input_size: replace those of the size, see `sizes.Size`.
        losses: see `LossSettings`.
        augmentation: see `Augmentation`. In a file: a name ("none", "paper", "modern", "wild"), or a mapping of its
            attributes, in which ``preset`` names the preset that the other keys change.
        decoder: the decoder of validation and of the resulting checkpoint.
        optimizer: "adam" or "adamw".
        weight_decay, betas: of the optimiser. AdamW does not decay batch norms and biases.
        eps: eps of Adam, which is added to the root of a gradient's mean square. The losses are means over maps and
            landmarks, so near the end of training their gradients are 1e-8 and less. The usual eps of 1e-8 would then
            almost stop the training.
        clip: largest norm of the gradient; None: no limit.
        ema: decay of the moving average of weights and batch norm statistics, which is validated and saved; 0: no
            average.
        precision: "auto" (the best that the hardware supports, see `autocast_precision`), "no" (float32), "bf16" or
            "fp16" autocast.
        channels_last: memory layout.
        compile: the mode of `torch.compile`. False: not compiled. True: its default. "cudagraphs": the steps are only
            recorded on a GPU, which needs little time. "reduce-overhead": the steps are compiled and recorded.
        accumulate: number of pieces in which each process computes its part of a step's batch.
        frozen_statistics: batch norms keep their statistics and run as in inference; for few faces or tiny batches.
        crop_ratio: side of the crop divided by the longer side of the box.
        store_side, store_margin: of decoded faces, see `FaceStore`.
        calibrate: what is chosen on the validation faces at the end of the run, see `calibrate`. "all": decoder,
            refining passes and score calibration; "scores": the decoder is kept; "no": nothing. If the result is the
            matched start, "all" means "scores".
        match: match the landmarks of the start weights by place (`matching.match`), not by name. The matched network is
            measured before training, if it has the size of the run. It stays in ``best/`` until an epoch is better.
        seconds: time of the run in seconds, for training and validation together. It replaces the epochs: the run ends
            after this time, and the learning rate depends on the share of the time that is over. The epochs of the
            stage are then only the unit of ``warmup`` and ``milestones``. Only for a recipe with one stage, and for one
            process.
        few: settings for training from few faces, see `Few`. They need ``match``.
        min_steps: smallest number of optimiser steps. If the epochs of the stages have fewer steps, the epochs of all
            stages, their warm-up and ``validate_every`` are multiplied by the same factor, and the moving average spans
            at most a tenth of the run.
        validate_every: number of epochs between validations. The last epoch of each stage is always validated.
        seed: seed of the weights, the order of the faces and the augmentation.
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
    compile: Literal[False, True, "cudagraphs", "reduce-overhead"] = False
    accumulate: int = 1
    frozen_statistics: bool = False
    crop_ratio: float = 1.25
    store_side: int = 384
    store_margin: float = 2.0
    calibrate: Literal["all", "scores", "no"] = "all"
    match: bool = False
    seconds: float | None = None
    few: Few = field(default_factory=Few)
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
        if isinstance(self.compile, str) and self.accumulate > 1:
            raise ValueError(
                f"accumulate is {self.accumulate} with compile {self.compile!r}, which records one step, expected 1"
            )
        if self.seconds is not None and not (0 < self.seconds < math.inf and len(self.stages) == 1):
            raise ValueError(
                f"seconds is {self.seconds:g} for {len(self.stages)} stages, expected a positive number and one stage: "
                "stages=[{size: 256, epochs: 8, batch: 16, lr: 4.0e-4}] for instance"
            )
        if self.store_side < 1 or not self.store_margin > 0:
            raise ValueError(
                f"store_side and store_margin are {self.store_side} and {self.store_margin}, expected at least 1 pixel "
                "and a positive ratio"
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected at least 0")
        if not self.eps > 0 or not (self.clip is None or self.clip > 0):
            raise ValueError(f"eps and clip are {self.eps} and {self.clip}, expected positive")

    def network(self, start: Size | None) -> Size:
        """The dimensions of the network.

        They come from the recipe's ``size``, else from the start weights, else from HIH_T. The recipe's ``width``,
        ``head_channels`` and ``input_size`` replace them.
        """
        size = size_of(self.size) if self.size else start or size_of("T")
        own = {name: value for name in ("width", "head_channels", "input_size") if (value := getattr(self, name))}
        return size._replace(decimal_size=self.decimal_size, **own)

    def with_crops(self, ratio: float) -> Recipe:
        """The recipe with another ``crop_ratio``, and with stored faces that are large enough for it."""
        if ratio == self.crop_ratio:
            return self
        return replace(self, crop_ratio=ratio, store_margin=max(self.store_margin, 1.6 * ratio))

    def with_steps(self, faces: int) -> Recipe:
        """The recipe for epochs of ``faces`` faces, with more epochs if this is necessary for ``min_steps``.

        A recipe with ``seconds`` is not changed.
        """
        if self.seconds is not None:
            return self
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
        """Number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a dictionary, which `recipe_from_dict` reads back."""
        return plain.to_plain(self)


def recipe_from_dict(data: Any, source: str = "recipe") -> Recipe:
    """Make a recipe from a dictionary.

    Raises:
        ValueError: a key is unknown or missing, or a value is out of range; the message names the key.
    """
    if isinstance(data, Mapping) and data.get("variant") == "hih":  # written by version 0.1
        data = {key: value for key, value in data.items() if key != "variant"}
    if isinstance(data, Mapping) and "gradient_scale" in data:
        data = _without_gradient_scale(data, source)
    if isinstance(data, Mapping) and "augmentation" in data:
        data = {**data, "augmentation": _whole_augmentation(data["augmentation"], f"{source}.augmentation")}
    return plain.from_plain(Recipe, data, source, also=_STAGE_SHORTHANDS)


def _without_gradient_scale(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Convert a recipe of version 0.1, which multiplied the loss by ``gradient_scale``.

    The same effect has an Adam eps, and a clip, that are divided by it.
    """
    changed = {key: value for key, value in data.items() if key != "gradient_scale"}
    scale = plain.from_plain(float, data["gradient_scale"], f"{source}.gradient_scale")
    if "eps" in data or not scale > 0:
        raise ValueError(
            f"{source}.gradient_scale is {scale:g}: recipes have eps instead, which is 1e-8 / gradient_scale, and a "
            "clip that is divided by gradient_scale"
        )
    changed["eps"] = float(f"{1e-8 / scale:.12g}")
    if (clip := data.get("clip", 5.0)) is not None:
        changed["clip"] = float(f"{plain.from_plain(float, clip, f'{source}.clip') / scale:.12g}")
    return changed


def _whole_augmentation(value: Any, where: str) -> Any:
    """All attributes of an augmentation that is given as the name of a preset, or as a mapping with changes."""
    changes = {"preset": value} if isinstance(value, str) else value
    if not isinstance(changes, Mapping):
        raise ValueError(f"{where} is {value!r}, expected the name of a preset or a mapping")
    preset = changes.get("preset", "modern")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"{where} is {preset!r}, expected one of {sorted(PRESETS)}")
    return asdict(PRESETS[preset]()) | {key: value for key, value in changes.items() if key != "preset"}


def recipe_names() -> list[str]:
    """The names of the packaged recipes."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def load_recipe(name: str, size: str | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe by name, and change values of it.

    Args:
        name: a YAML file; a packaged recipe ("modern/t", "paper/300w", "finetune"); or the id of a built-in scheme
            ("300w", "wflw", "cofw"), which means ``modern/{size}`` with that scheme.
        size: "N", "T", "S" or "B" ("HIH_N", ...). It replaces the recipe's size; for the id of a scheme the default is
            T. The mapping ``by_size`` of a file holds values that depend on the size.
        overrides: values by dotted key, such as ``{"losses.alpha": 0.05, "stages.0.epochs": 3}``. "epochs", "batch",
            "lr", "schedule" and "warmup" set the value in every stage. If epochs are set, ``min_steps`` is ignored.
            Learning rates and epochs of stages, and "min_steps", also change the settings for few faces (`Few`).

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a name or key is unknown, or a value is out of range.
    """
    overrides = dict(overrides or {})
    if (wanted := overrides.pop("size", None)) is not None:  # it replaces the settings of the size, too
        size = wanted
    size = None if size is None else _letter(size)
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
    size = size or (None if data.get("size") is None else _letter(data["size"]))
    if size is not None:
        data["size"] = size
        data = _merge(data, by_size.get(size) or {})
    if scheme is not None:
        data["scheme"] = scheme
    for key, value in overrides.items():
        _set(data, key, value)
    given, stages = overrides, data.get("stages") or [{}]

    def of_stages(name: str) -> bool:
        """Whether a setting of the stages was given: of all stages, of one of them, or with new stages."""
        return any(key in (name, "stages") or re.fullmatch(rf"stages\.\d+(\.{name})?", key) for key in given)

    if "min_steps" not in given and of_stages("epochs"):
        data["min_steps"] = 0  # the given number of epochs is exact
    if isinstance(few := data.get("few"), dict):
        lr = stages[-1].get("lr") if of_stages("lr") and isinstance(stages[-1], dict) else None
        steps = data.get("min_steps", 0) if "min_steps" in given or of_stages("epochs") else None
        follow_stages(few, given, lr, steps)
    recipe = recipe_from_dict(data, str(path) if path.is_relative_to(FOLDER) is False else f"recipe {name}")
    if recipe.store_margin < recipe.crop_ratio:  # beyond the margin, the crops of the training would be black
        raise ValueError(
            f"store_margin is {recipe.store_margin:g}, expected at least crop_ratio, which is {recipe.crop_ratio:g}, "
            f"better 1.6 times as much: store_margin={1.6 * recipe.crop_ratio:g}"
        )
    return recipe


def _letter(size: object) -> str:
    """The letter of a size: "T" for "HIH_T" and "t"."""
    size_of(str(size))
    return str(size).upper().removeprefix("HIH_")


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
    """Set ``value`` at a dotted key in nested mappings and lists."""
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
            raise ValueError(
                f"override {key!r}: {'.'.join(parents[: i + 1])} is {child!r}, expected a mapping or a list"
            )
        at[name] = child
        at = child
    if isinstance(at, list):
        _item(at, last, key)
        at[int(last)] = value
    else:
        at[last] = value


def _item(items: list[Any], index: str, key: str) -> Any:
    if not index.isdecimal() or int(index) >= len(items):
        raise ValueError(f"override {key!r}: index is {index!r}, expected 0..{len(items) - 1}")
    return items[int(index)]


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts into overrides of `load_recipe`. Values are YAML ("3e-4", "null", "[1, 2]").

    Raises:
        ValueError: a text has no "=", or its value is not YAML.
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
    """Write the recipe with all of its values as YAML."""
    import yaml

    from .. import files

    with files.replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False), "utf-8")
