"""What a round takes along and trains: a YAML file, by default ``scripts/gpu_plan.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hih_align.training import plain


@dataclass(frozen=True)
class Pack:
    """Faces to take along.

    Attributes:
        data: annotation file or folder, from the checkout's folder on.
        scheme: of the landmarks.
        side, margin, quality: of a face's picture, as in `hih-align data pack`.
        where: only the faces of a split file or condition, as in `hih-align evaluate --where`; None: all.
        faces: at most so many of them, evenly taken; None: all.
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
        name: of its folder.
        recipe: as in `hih-align train`.
        data: packs to train on, each with its weight.
        size: as in `hih-align train`.
        init: start weights, a manifest id or a checkpoint folder; None: random ones.
        share: of the time, beside those of the other networks.
        set: the recipe's keys to change. ``seconds`` and ``calibrate`` are the round's own; ``stages`` is one stage.
    """

    name: str
    recipe: str
    data: dict[str, float]
    size: str | None = None
    init: str | None = None
    share: float = 1.0
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A round.

    Attributes:
        packs: by name.
        networks: in the order in which they are trained.
        val: pack that chooses each network's best epoch.
        keep: files of weights in the checkout that are taken along, because checks need them.
    """

    packs: dict[str, Pack]
    networks: tuple[Network, ...]
    val: str
    keep: tuple[str, ...] = ("hih_align/weights/HIH_T_300w.safetensors",)

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("networks is empty, expected at least one")
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", name) for name in names):
            raise ValueError(f"networks have the names {names}, expected different ones of letters, digits, _ and -")
        for name in [self.val, *(pack for network in self.networks for pack in network.data)]:
            if name not in self.packs:
                raise ValueError(f"pack {name!r} is used, and packs has {sorted(self.packs)}")
        for network in self.networks:
            if not network.data or not network.share > 0:
                raise ValueError(f"network {network.name}: data and share are {network.data} and {network.share}")


def read_plan(path: Path) -> Plan:
    """A plan from its file.

    Raises:
        ValueError: for what is no plan; it names the key.
    """
    return plain.from_plain(Plan, plain.parse_yaml(path.read_text("utf-8")), str(path))
