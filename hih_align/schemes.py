"""What a point set is: 300W (68), WFLW (98), COFW (29) and a user's own.

Left and right are those of the picture: ``left_eye`` is the eye further left in an upright photograph.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

Group = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scheme:
    """A set of landmarks. Indices are 0-based. Equal to another of the same content, and to its id: ``== "300w"``.

    Attributes:
        id: lower-case name, as in a checkpoint's config.
        names: one per landmark, K in all, no two alike.
        parts: index groups by name ("left_eye"); they may overlap.
        mirror: pairs of landmarks that a mirrored face exchanges; landmarks in no pair map to themselves. None where
            unknown: then nothing is mirrored.
        contours: lines to draw, as index sequences; a closed one ends with its first index.
        normalizers: the pair whose distance normalises errors, by name ("inter-ocular"); either end is the mean of
            an index group.
        five: index groups whose means are left eye, right eye, nose tip, left and right mouth corner; None if the
            scheme has no such points.

    Raises:
        ValueError: for indices outside 0..K-1, empty groups, repeated names, or mirror pairs that are not an
            involution.
    """

    id: str
    names: tuple[str, ...]
    parts: Mapping[str, Group] = field(default_factory=dict)
    mirror: tuple[tuple[int, int], ...] | None = None
    contours: tuple[Group, ...] = ()
    normalizers: Mapping[str, tuple[Group, Group]] = field(default_factory=dict)
    five: tuple[Group, Group, Group, Group, Group] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"scheme {self.id!r} has no landmarks")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"scheme {self.id!r} repeats landmark names")
        used: dict[str, Sequence[Sequence[int]]] = {
            "parts": list(self.parts.values()),
            "mirror": self.mirror or (),
            "contours": self.contours,
            "normalizers": [group for pair in self.normalizers.values() for group in pair],
            "five": self.five or (),
        }
        for key, groups in used.items():
            if not all(len(group) for group in groups):
                raise ValueError(f"scheme {self.id!r}: {key} has a group without landmarks")
            for index in (i for group in groups for i in group):
                if not 0 <= index < len(self.names):
                    raise ValueError(
                        f"scheme {self.id!r}: {key} names landmark {index}, expected 0..{len(self.names) - 1}"
                    )
        paired = [i for pair in self.mirror or () for i in set(pair)]  # a landmark may be its own mirror image
        if len(set(paired)) != len(paired):
            raise ValueError(f"scheme {self.id!r}: mirror is not an involution, a landmark is in two pairs")

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.id == other
        return isinstance(other, Scheme) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def permutation(self) -> NDArray[np.intp] | None:
        """(K,) index of each landmark's mirror image, or None where `mirror` is."""
        if self.mirror is None:
            return None
        order = np.arange(len(self))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return order

    def distance(self, points: ArrayLike, normalizer: str = "inter-ocular") -> NDArray[np.float64]:
        """(..., K, 2) landmarks -> (...) the distance that normalises their errors.

        Raises:
            ValueError: if the scheme has no such normalizer.
        """
        if normalizer not in self.normalizers:
            raise ValueError(
                f"normalizer is {normalizer!r}, scheme {self.id!r} has {sorted(self.normalizers) or 'none'}"
            )
        p = np.asarray(points, np.float64)
        a, b = (p[..., list(group), :].mean(-2) for group in self.normalizers[normalizer])
        return np.linalg.norm(a - b, axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `scheme_from_dict` reads it."""
        return asdict(self) | {"parts": dict(self.parts), "normalizers": dict(self.normalizers)}


def scheme_from_dict(data: Mapping[str, Any]) -> Scheme:
    """A scheme from plain data.

    Keys are the attributes of `Scheme`; ``id`` and ``names`` are required, and ``landmarks`` (a count) may stand for
    ``names``. A normalizer's ends may be single indices.

    Raises:
        ValueError: for missing or unknown keys, or wrong content.
    """
    known = {"id", "names", "landmarks", "parts", "mirror", "contours", "normalizers", "five"}
    if unknown := set(data) - known:
        raise ValueError(f"scheme has unknown keys {sorted(unknown)}, expected some of {sorted(known)}")
    if "id" not in data or ("names" not in data and "landmarks" not in data):
        raise ValueError("scheme needs 'id' and 'names' (or 'landmarks', their number)")

    def group(value: Any) -> Group:  # not int(): "12" is no group, and 0.5 no landmark
        return (operator.index(value),) if isinstance(value, SupportsIndex) else tuple(map(operator.index, value))

    def mapping(key: str) -> list[tuple[str, Any]]:
        value = data.get(key) or {}
        if not isinstance(value, Mapping):
            raise TypeError(f"{type(value).__name__}, expected names and groups")
        return [(str(name), entry) for name, entry in value.items()]

    mirror, five = data.get("mirror"), data.get("five")
    key = "names" if "names" in data else "landmarks"
    try:
        names = data["names"] if key == "names" else [str(i) for i in range(operator.index(data["landmarks"]))]
        if isinstance(names, str) or data.get("landmarks", len(names)) != len(names):
            raise ValueError(f"{names!r} for {data.get('landmarks', 'some')} landmarks")
        key = "parts"
        parts = {name: group(part) for name, part in mapping(key)}
        key = "mirror"
        pairs = None if mirror is None else tuple((operator.index(a), operator.index(b)) for a, b in mirror)
        key = "contours"
        contours = tuple(group(line) for line in data.get(key) or ())
        key = "normalizers"
        normalizers = {name: (group(a), group(b)) for name, (a, b) in mapping(key)}
        key = "five"
        points = None if five is None else _five(tuple(group(g) for g in five))
    except (TypeError, ValueError) as error:
        raise ValueError(f"scheme {data['id']!r}: {key} is not of the expected form: {error}") from error
    return Scheme(
        id=str(data["id"]).lower(),
        names=tuple(str(name) for name in names),
        parts=parts,
        mirror=pairs,
        contours=contours,
        normalizers=normalizers,
        five=points,
    )


def _five(groups: tuple[Group, ...]) -> tuple[Group, Group, Group, Group, Group]:
    if len(groups) != 5:
        raise ValueError(f"{len(groups)} groups, expected 5")
    return groups[0], groups[1], groups[2], groups[3], groups[4]


def load_scheme(path: str | os.PathLike[str]) -> Scheme:
    """A user's scheme from a JSON (or, with PyYAML installed, YAML) file; see `scheme_from_dict` for its keys.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON or YAML, or not a scheme.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"scheme: no such file: {path}")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if path.endswith((".yaml", ".yml")):
            try:
                import yaml
            except ImportError as error:
                raise ValueError(f"scheme: {path} is YAML, which needs PyYAML: pip install pyyaml") from error
            try:
                data = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
        else:
            data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"scheme: {path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"scheme: {path} holds a {type(data).__name__}, expected an object")
    return scheme_from_dict(data)


def _run(first: int, last: int) -> Group:
    return tuple(range(first, last + 1))


def _closed(first: int, last: int) -> Group:
    return (*_run(first, last), first)


def _numbered(parts: Mapping[str, Group]) -> tuple[str, ...]:
    """Names like ``jaw_0`` from parts that cover every landmark once, in order."""
    return tuple(f"{part}_{n}" if len(group) > 1 else part for part, group in parts.items() for n in range(len(group)))


def _pairs(*runs: tuple[Group, Group]) -> tuple[tuple[int, int], ...]:
    return tuple(pair for left, right in runs for pair in zip(left, right, strict=True))


_PARTS_68 = {
    "jaw": _run(0, 16),
    "left_brow": _run(17, 21),
    "right_brow": _run(22, 26),
    "nose_bridge": _run(27, 30),
    "nose_base": _run(31, 35),
    "left_eye": _run(36, 41),
    "right_eye": _run(42, 47),
    "outer_lips": _run(48, 59),
    "inner_lips": _run(60, 67),
}

W300 = Scheme(
    id="300w",
    names=_numbered(_PARTS_68),
    parts=_PARTS_68 | {"nose": _run(27, 35), "mouth": _run(48, 67)},
    mirror=_pairs(
        (_run(0, 7), _run(9, 16)[::-1]),
        (_run(17, 21), _run(22, 26)[::-1]),
        ((31, 32), (35, 34)),
        ((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46)),
        ((48, 49, 50, 59, 58), (54, 53, 52, 55, 56)),
        ((60, 61, 67), (64, 63, 65)),
    ),
    contours=(
        _run(0, 16),
        _run(17, 21),
        _run(22, 26),
        _run(27, 30),
        _run(31, 35),
        _closed(36, 41),
        _closed(42, 47),
        _closed(48, 59),
        _closed(60, 67),
    ),
    normalizers={"inter-ocular": ((36,), (45,)), "inter-pupil": (_run(36, 41), _run(42, 47))},
    five=(_run(36, 41), _run(42, 47), (30,), (48,), (54,)),
)

_PARTS_98 = {
    "jaw": _run(0, 32),
    "left_brow": _run(33, 41),
    "right_brow": _run(42, 50),
    "nose_bridge": _run(51, 54),
    "nose_base": _run(55, 59),
    "left_eye": _run(60, 67),
    "right_eye": _run(68, 75),
    "outer_lips": _run(76, 87),
    "inner_lips": _run(88, 95),
    "left_pupil": (96,),
    "right_pupil": (97,),
}

WFLW = Scheme(
    id="wflw",
    names=_numbered(_PARTS_98),
    parts=_PARTS_98 | {"nose": _run(51, 59), "mouth": _run(76, 95)},
    mirror=_pairs(
        (_run(0, 15), _run(17, 32)[::-1]),
        (_run(33, 37), _run(42, 46)[::-1]),
        (_run(38, 41), _run(47, 50)[::-1]),
        ((55, 56), (59, 58)),
        ((60, 61, 62, 63, 64, 65, 66, 67), (72, 71, 70, 69, 68, 75, 74, 73)),
        ((76, 77, 78, 87, 86), (82, 81, 80, 83, 84)),
        ((88, 89, 95), (92, 91, 93)),
        ((96,), (97,)),
    ),
    contours=(
        _run(0, 32),
        _closed(33, 41),
        _closed(42, 50),
        _run(51, 54),
        _run(55, 59),
        _closed(60, 67),
        _closed(68, 75),
        _closed(76, 87),
        _closed(88, 95),
    ),
    normalizers={"inter-ocular": ((60,), (72,)), "inter-pupil": ((96,), (97,))},
    five=(_run(60, 67), _run(68, 75), (54,), (76,), (82,)),
)

COFW = Scheme(
    id="cofw",
    names=(
        *("left_brow_outer", "right_brow_outer", "left_brow_inner", "right_brow_inner"),
        *("left_brow_top", "left_brow_bottom", "right_brow_top", "right_brow_bottom"),
        *("left_eye_outer", "right_eye_outer", "left_eye_inner", "right_eye_inner"),
        *("left_eye_top", "left_eye_bottom", "right_eye_top", "right_eye_bottom", "left_pupil", "right_pupil"),
        *("nose_left", "nose_right", "nose_tip", "nose_bottom", "mouth_left", "mouth_right"),
        *("upper_lip_top", "upper_lip_bottom", "lower_lip_top", "lower_lip_bottom", "chin"),
    ),
    parts={
        "left_brow": (0, 4, 2, 5),
        "right_brow": (3, 6, 1, 7),
        "left_eye": (8, 12, 10, 13),
        "right_eye": (11, 14, 9, 15),
        "left_pupil": (16,),
        "right_pupil": (17,),
        "nose": _run(18, 21),
        "mouth": _run(22, 27),
        "chin": (28,),
    },
    mirror=((0, 1), (2, 3), (4, 6), (5, 7), (8, 9), (10, 11), (12, 14), (13, 15), (16, 17), (18, 19), (22, 23)),
    contours=(
        (0, 4, 2, 5, 0),
        (3, 6, 1, 7, 3),
        (8, 12, 10, 13, 8),
        (11, 14, 9, 15, 11),
        (18, 21, 19),
        (20, 21),
        (22, 24, 23, 27, 22),
        (22, 25, 23, 26, 22),
    ),
    normalizers={"inter-ocular": ((8,), (9,)), "inter-pupil": ((16,), (17,))},
    five=((16,), (17,), (20,), (22,), (23,)),
)

#: The built-in schemes by id.
SCHEMES: Mapping[str, Scheme] = {scheme.id: scheme for scheme in (W300, WFLW, COFW)}


def get_scheme(scheme: str | os.PathLike[str] | Scheme) -> Scheme:
    """A built-in scheme by id, a user's by the path of its file, or the scheme given.

    Raises:
        ValueError: for an unknown id.
        FileNotFoundError: for a path that ends like a scheme file but does not exist.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, (str, os.PathLike)):
        raise TypeError(f"scheme is {type(scheme).__name__}, expected an id, a file or a Scheme")
    scheme = os.fspath(scheme)
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    if str(scheme).endswith((".json", ".yaml", ".yml")):
        return load_scheme(scheme)
    raise ValueError(f"scheme is {scheme!r}, expected one of {sorted(SCHEMES)}, a .json or .yaml file, or a Scheme")


# Each target landmark as source landmarks and their weights. 68 points mark each lid at about a third and two
# thirds of its length, 98 points at its quarters: a third lies a third of the way from the first to the second.
def _lid(first: int, middle: int, last: int) -> list[dict[int, float]]:
    return [{first: 2 / 3, middle: 1 / 3}, {middle: 1 / 3, last: 2 / 3}]


_WFLW_TO_W300: list[dict[int, float]] = [
    *({i: 1.0} for i in range(0, 33, 2)),
    *({i: 1.0} for i in (*range(33, 38), *range(42, 47), *range(51, 60))),
    *({60: 1.0}, *_lid(61, 62, 63), {64: 1.0}, *_lid(65, 66, 67)),
    *({68: 1.0}, *_lid(69, 70, 71), {72: 1.0}, *_lid(73, 74, 75)),
    *({i: 1.0} for i in range(76, 96)),
]

# COFW's brow ends lie between the upper and the lower edge at the inner side.
_WFLW_TO_COFW: list[dict[int, float]] = [
    *({33: 1.0}, {46: 1.0}, {37: 0.5, 38: 0.5}, {42: 0.5, 50: 0.5}),
    *({35: 1.0}, {40: 1.0}, {44: 1.0}, {48: 1.0}),
    *({i: 1.0} for i in (60, 72, 64, 68, 62, 66, 70, 74, 96, 97)),
    *({i: 1.0} for i in (55, 59, 54, 57, 76, 82, 79, 90, 94, 85, 16)),
]

_CONVERSIONS = {("wflw", "300w"): _WFLW_TO_W300, ("wflw", "cofw"): _WFLW_TO_COFW}


def conversion(source: Scheme, target: Scheme) -> NDArray[np.float64]:
    """(K target, K source) weights, rows summing to 1: ``target = conversion @ source``.

    Raises:
        ValueError: where none is known.
    """
    if source.id == target.id:
        return np.eye(len(source))
    rows = _CONVERSIONS.get((source.id, target.id))
    if rows is None:
        possible = sorted(t for s, t in _CONVERSIONS if s == source.id)
        raise ValueError(f"no conversion from scheme {source.id!r} to {target.id!r}, only to {possible or 'none'}")
    weights = np.zeros((len(target), len(source)))
    for row, parts in enumerate(rows):
        for index, weight in parts.items():
            weights[row, index] = weight
    return weights
