"""`Config`, which describes the network of a checkpoint and how its output is read; stored as ``config.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import files
from ..method.decoder import Decoder, Rounding
from ..method.readout import Readout, readout_from_dict
from ..method.sizes import Size
from ..schemes import SCHEMES, Scheme, conversion, get_scheme, scheme_from_dict
from ..scores import Calibration

CONFIG_FILE = "config.json"
#: The subfolder of a training run that holds its best checkpoint.
BEST = "best"
#: The file of recipe, data and start weights of a training run, in its folder.
RUN_FILE = "run.json"


class CheckpointError(ValueError):
    """The content of a checkpoint is wrong: truncated, altered, or of another layout."""


def check_out(folder: str | os.PathLike[str]) -> None:
    """Check the folder for a model, before the work.

    Raises:
        NotADirectoryError: it is a file.
        ValueError: it holds a training run: another model in it would hide the run's own.
    """
    if Path(folder).is_file():
        raise NotADirectoryError(f"out: {os.fspath(folder)} is a file, expected a folder")
    if Path(folder, RUN_FILE).exists():
        raise ValueError(f"out: {os.fspath(folder)} holds a training run, expected another folder")


@dataclass(frozen=True)
class Config:
    """The description of a network and of the decoding of its output. It is the file ``config.json`` of a checkpoint.

    Attributes:
        scheme: the scheme of the landmarks: those of the network's heads, or those of ``readout``.
        stacks: number of stacked hourglasses.
        decimal_size, width, head_channels, input_size: see `Size`.
        name: the model's name in results, such as "HIH_T/300w".
        crop_ratio: side of the crop divided by the longer side of the box.
        rounding: the rounding of decimal labels in training, see `heatmaps.split`.
        decoder: the default decoder.
        refine: default number of refining passes.
        refine_above: a face is refined only if its box and the box of its points differ by more than this share
            (`passes.off`). None: every face is refined.
        calibration: logistic parameters of the scores, by decoder method. A method that is missing is not calibrated.
        output: id of the scheme that results are converted to; None: the scheme of the network.
        readout: how the landmarks of ``scheme`` are computed from the points of the network's heads; None: each head
            gives one landmark.
        correction: how the points of the heads correct each other (`evaluation.correction`), for the decoder
            "expectation". None: they are used as they are. It lies in the file of weights, not in ``config.json``.
        box: how far the boxes that the network expects reach beyond the tight box of its landmarks: left, top, right
            and bottom, as shares of the longer side of the tight box (`crops.extended`). None: the network expects
            tight boxes; with a ``readout``, None means unknown, and no pass makes a new box.
    """

    scheme: Scheme
    stacks: int
    decimal_size: int = 8
    width: float = 1.0
    head_channels: int = 384
    input_size: int = 256
    name: str = ""
    crop_ratio: float = 1.25
    rounding: Rounding = "round"
    decoder: Decoder = field(default_factory=Decoder)
    refine: int = 0
    refine_above: float | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    output: str | None = None
    readout: Readout | None = None
    box: tuple[float, float, float, float] | None = None
    correction: Readout | None = None

    def __post_init__(self) -> None:
        if not self.crop_ratio > 0:
            raise ValueError(f"crop_ratio is {self.crop_ratio}, expected a positive ratio")
        if self.rounding not in ("round", "floor"):
            raise ValueError(f"rounding is {self.rounding!r}, expected 'round' or 'floor'")
        if not 0 <= self.refine <= 8:
            raise ValueError(f"refine is {self.refine}, expected 0 to 8 passes")
        if self.refine_above is not None and not self.refine_above >= 0:
            raise ValueError(f"refine_above is {self.refine_above}, expected None or a share of the box, at least 0")
        if self.readout is not None and len(self.readout) != len(self.scheme):
            raise ValueError(
                f"readout has {len(self.readout)} landmarks, expected {len(self.scheme)} for scheme {self.scheme.id!r}"
            )
        if self.correction is not None and {self.correction.heads, len(self.correction)} != {self.heads}:
            raise ValueError(f"correction has {len(self.correction)} landmarks, expected {self.heads}, one per head")
        if self.correction is not None and self.readout is not None and self.readout.mirrored:
            raise ValueError("correction and a readout of mirrored points are both given, expected one of them")
        if self.box is not None and not (
            len(self.box) == 4 and np.isfinite(self.box).all() and min(np.add(self.box[:2], self.box[2:])) > -1
        ):
            raise ValueError(f"box is {self.box}, expected four finite shares that leave the box a positive size")
        if self.output is not None:
            conversion(self.scheme, get_scheme(self.output))  # raises if no conversion is known

    @property
    def size(self) -> Size:
        """The dimensions of the network, which is ``HIHNet(config.heads, *config.size)``."""
        return Size(self.stacks, self.decimal_size, self.width, self.head_channels, self.input_size)

    @property
    def resulting(self) -> Scheme:
        """The scheme of the results."""
        return self.scheme if self.output is None else SCHEMES[self.output]

    @property
    def heads(self) -> int:
        """Number of heads of the network, which is the number of landmarks if there is no `readout`."""
        return len(self.scheme) if self.readout is None else self.readout.heads

    @property
    def reading(self) -> Readout | None:
        """How `decoder` computes the landmarks from the heads: the `readout` of the corrected points. None: unchanged.

        The decoder "argmax" is the paper's, so it has no correction.
        """
        if self.correction is None or self.decoder.method == "argmax":
            return self.readout
        return self.correction if self.readout is None else self.correction.then(self.readout.weights)

    @property
    def sources(self) -> NDArray[np.intp]:
        """(K,) the head of each landmark, whose score the landmark has."""
        return np.arange(len(self.scheme)) if self.readout is None else self.readout.sources

    @property
    def refits(self) -> bool:
        """Whether a further pass can compute a box from the landmarks."""
        return self.readout is None or self.box is not None

    @property
    def bin_offset(self) -> float:
        """`Decoder.bin_offset` that fits the labels: 0.5 for floored labels, which mean the centre of a cell."""
        return 0.5 if self.rounding == "floor" else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The config as a dictionary for ``config.json``. A built-in scheme is stored as its id."""
        built_in = SCHEMES.get(self.scheme.id) == self.scheme
        own: dict[str, Any] = {} if self.readout is None else {"readout": self.readout.to_dict()}
        own |= {} if self.box is None else {"box": list(self.box)}
        return {
            "model": "hih",
            "name": self.name,
            "scheme": self.scheme.id if built_in else self.scheme.to_dict(),
            **self.size._asdict(),
            "crop_ratio": self.crop_ratio,
            "rounding": self.rounding,
            "decoder": {**asdict(self.decoder), "shift": list(self.decoder.shift)},
            "refine": self.refine,
            "refine_above": self.refine_above,
            "calibration": {method: asdict(c) for method, c in self.calibration.items()},
            "output": self.output,
            **own,
        }


def config_from_dict(data: Any, source: str) -> Config:
    """A `Config` from a dictionary.

    Args:
        data: the content of ``config.json``.
        source: the name of the source in errors.

    Raises:
        CheckpointError: a value is missing or of the wrong form.
    """
    try:
        if data["model"] != "hih":
            raise ValueError(f"model is {data['model']!r}, expected 'hih'")
        scheme = data["scheme"]
        return Config(
            scheme=SCHEMES[scheme] if isinstance(scheme, str) else scheme_from_dict(scheme),
            stacks=int(data["stacks"]),
            decimal_size=int(data["decimal_size"]),
            width=float(data.get("width", 1.0)),
            head_channels=int(data.get("head_channels", 384)),
            input_size=int(data.get("input_size", 256)),
            name=str(data.get("name") or ""),
            crop_ratio=float(data["crop_ratio"]),
            rounding=data.get("rounding", "round"),
            decoder=Decoder(**data["decoder"]),
            refine=int(data.get("refine", 0)),
            refine_above=None if data.get("refine_above") is None else float(data["refine_above"]),
            calibration={
                m: Calibration(float(c["slope"]), float(c["bias"])) for m, c in (data.get("calibration") or {}).items()
            },
            output=data.get("output"),
            readout=None if data.get("readout") is None else readout_from_dict(data["readout"]),
            box=None if data.get("box") is None else tuple(map(float, data["box"])),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{source} is not a hih-align config: {what}") from error


def own_folder(folder: Path) -> Path:
    """The folder itself or, for the folder of a training run, its subfolder with the best checkpoint."""
    best = folder / BEST
    return best if (best / CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file() else folder


def read_config(path: Path) -> Config:
    """Read a ``config.json``. Raises `CheckpointError` if the file is not a config."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    return config_from_dict(data, str(path))


def write_config(folder: Path, config: Config) -> None:
    """Write ``config.json``, atomically."""
    write_json(folder / CONFIG_FILE, config.to_dict())


def write_json(path: Path, data: Any) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
