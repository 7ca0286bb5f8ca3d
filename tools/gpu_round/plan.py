"""The plan of a round: a YAML file with its faces and its trainings, by default ``scripts/gpu_plan.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hih_align.training import plain


@dataclass(frozen=True)
class Pack:
    """Faces that are packed.

    Attributes:
        data: annotation file or folder, relative to the checkout.
        scheme: id of the scheme of the landmarks.
        side, margin, quality: size and quality of the pictures, as in `hih-align data pack`.
        where: a split file or a condition that selects faces, as in `hih-align evaluate --where`. None: all faces.
        faces: largest number of faces, which are spread evenly over the data. None: all faces.
    """

    data: str
    scheme: str
    side: int = 256
    margin: float = 1.8
    quality: int = 84
    where: str | None = None
    faces: int | None = None


@dataclass(frozen=True)
class Network:
    """A network to train.

    Attributes:
        name: name of its folder.
        recipe: as in `hih-align train`.
        data: the packs to train on, with their weights.
        size: as in `hih-align train`.
        init: start weights: a manifest id or a checkpoint folder. None: random weights.
        val: name of the pack for validation. None: the one of the plan.
        share: share of the time, relative to the shares of the other networks.
        set: keys of the recipe to change. The round sets ``seconds`` and ``calibrate``. ``stages`` must be one stage.
    """

    name: str
    recipe: str
    data: dict[str, float]
    size: str | None = None
    init: str | None = None
    val: str | None = None
    share: float = 1.0
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The plan of a round.

    Attributes:
        packs: the packs by name.
        networks: the networks in the order of their training.
        val: name of the pack for validation, which chooses the best epoch of each network without a ``val`` of its own.
        keep: files of weights in the checkout that the checks need. They are packed, too.
    """

    packs: dict[str, Pack]
    networks: tuple[Network, ...]
    val: str
    keep: tuple[str, ...] = (
        "hih_align/weights/HIH_T_300w.safetensors",
        "hih_align/weights/HIH_N_300w.safetensors",
    )

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("networks is empty, expected at least one")
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", name) for name in names):
            raise ValueError(f"networks have the names {names}, expected different names of letters, digits, _ and -")
        own = [network.val for network in self.networks if network.val is not None]
        for name in [self.val, *own, *(pack for network in self.networks for pack in network.data)]:
            if name not in self.packs:
                raise ValueError(f"pack is {name!r}, expected one of packs: {sorted(self.packs)}")
        for network in self.networks:
            if not network.data or not network.share > 0:
                raise ValueError(
                    f"network {network.name}: data and share are {network.data} and {network.share}, expected at least "
                    "one pack, and more than 0"
                )


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ValueError: the file is not a plan. The message names the key.
    """
    return plain.from_plain(Plan, plain.parse_yaml(path.read_text("utf-8")), str(path))
