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


@dataclass(frozen=True, eq=False, repr=False)
class Scheme:
    """A set of landmarks. Indices are 0-based. Equal to another of the same content; the built-in ones also to their
    ids: ``== "300w"``.

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

    def __repr__(self) -> str:
        return f"Scheme({self.id!r}, {len(self)} landmarks)"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):  # stands for a built-in scheme: equality is transitive
            from .builtin import SCHEMES

            other = SCHEMES.get(other)
        return other is self or (isinstance(other, Scheme) and self._content() == other._content())

    def same_landmarks(self, other: Scheme) -> bool:
        """Whether points of one are points of the other: the same id and names. Groups and pairs may differ."""
        return (self.id, self.names) == (other.id, other.names)

    def _content(self) -> tuple[object, ...]:
        rest = self.mirror, self.contours, self.five
        return self.id, self.names, dict(self.parts), dict(self.normalizers), *rest

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

    @property
    def default_normalizer(self) -> str:
        """Name of the distance that errors are divided by where no other is asked for: "inter-ocular" where the scheme
        has it, else the first of `normalizers`, else "box", the longer side of the face's box."""
        return next((name for name in ("inter-ocular", *self.normalizers) if name in self.normalizers), "box")

    def distance(self, points: ArrayLike, normalizer: str | None = None) -> NDArray[np.float64]:
        """(..., K, 2) landmarks -> (...) the distance that normalises their errors.

        Args:
            points: landmarks, in any unit.
            normalizer: one of `normalizers`; `default_normalizer` if None.

        Raises:
            ValueError: if the scheme has no such normalizer. Landmarks alone do not give the side of a box.
        """
        normalizer = self.default_normalizer if normalizer is None else normalizer
        if normalizer not in self.normalizers:
            raise ValueError(
                f"normalizer is {normalizer!r}, scheme {self.id!r} has {sorted(self.normalizers) or 'none'}"
            )
        p = np.asarray(points, np.float64)
        a, b = (p[..., list(group), :].mean(-2) for group in self.normalizers[normalizer])
        return np.linalg.norm(a - b, axis=-1)

    def select(self, landmarks: Sequence[int | str], id: str | None = None) -> Scheme:
        """The scheme of some of its landmarks, in the order given.

        Args:
            landmarks: indices or names, no two alike.
            id: of the new scheme; by default the old one with the number of landmarks, "300w-12".

        Parts keep what is left of them; normalizers and ``five`` stay where all of their landmarks do, mirror pairs
        where both do. A contour falls into the runs of it that stay.

        Raises:
            ValueError: a landmark that the scheme does not have, one named twice, or none.
            TypeError: neither an index nor a name.
        """
        chosen = [self.index(landmark) for landmark in landmarks]
        if not chosen:
            raise ValueError("landmarks is empty, expected names or indices")
        if twice := [self.names[i] for i in dict.fromkeys(chosen) if chosen.count(i) > 1]:
            raise ValueError(f"landmarks names {twice[0]!r} twice")
        new = {old: place for place, old in enumerate(chosen)}

        def whole(groups: Sequence[Group]) -> bool:
            return all(i in new for group in groups for i in group)

        def moved(group: Sequence[int]) -> Group:
            return tuple(new[i] for i in group if i in new)

        parts = {name: moved(part) for name, part in self.parts.items() if any(i in new for i in part)}
        runs: list[list[int]] = []
        for line in self.contours:
            runs.append([])
            for i in line:
                if i in new:
                    runs[-1].append(new[i])
                else:
                    runs.append([])
        mirror = None
        if self.mirror is not None:
            mirror = tuple((new[a], new[b]) for a, b in self.mirror if a in new and b in new)
            lone = [i for a, b in self.mirror if a != b for i in (a, b) if i in new and (a in new) != (b in new)]
            mirror = None if lone else mirror  # a landmark without its mirror image: nothing can be mirrored
        five = None if self.five is None or not whole(self.five) else _five(tuple(moved(g) for g in self.five))
        return Scheme(
            id=id or f"{self.id}-{len(chosen)}",
            names=tuple(self.names[i] for i in chosen),
            parts=parts,
            mirror=mirror,
            contours=tuple(tuple(run) for run in runs if len(run) > 1),
            normalizers={name: (moved(a), moved(b)) for name, (a, b) in self.normalizers.items() if whole((a, b))},
            five=five,
        )

    def index(self, landmark: int | str) -> int:
        """Index of a landmark by its name, or a checked index; a negative one counts from the end.

        Raises:
            ValueError: the scheme has no such landmark.
            TypeError: neither an index nor a name.
        """
        if isinstance(landmark, str):
            if landmark not in self.names:
                raise ValueError(f"landmark is {landmark!r}, scheme {self.id!r} has {', '.join(self.names)}")
            return self.names.index(landmark)
        try:
            index = operator.index(landmark)
        except TypeError:
            raise TypeError(f"landmark is {type(landmark).__name__}, expected an index or a name") from None
        if not -len(self) <= index < len(self):
            raise ValueError(f"landmark is {index}, scheme {self.id!r} has 0..{len(self) - 1}")
        return index % len(self)

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
