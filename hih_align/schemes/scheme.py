"""The class `Scheme`, which describes a landmark set, and the reader of scheme files.

Left and right mean the sides of the picture: ``left_eye`` is the eye that is further left in an upright photograph.
"""

from __future__ import annotations

import json
import operator
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

Group = tuple[int, ...]

#: The expected form of each key of a scheme file.
_FORMS = {
    "names": "a list of names, one for each landmark",
    "landmarks": "the number of landmarks, such as 5",
    "parts": "a mapping of names to lists of landmarks (numbers or names), such as {'mouth': [3, 4]}",
    "mirror": "a list of pairs of landmarks (numbers or names), such as [[0, 1], [3, 4]]",
    "contours": "a list of lists of landmarks (numbers or names), such as [[0, 1, 2]]",
    "normalizers": "a mapping of names to pairs of landmarks (numbers or names), such as {'pupils': [0, 1]}",
    "five": "5 groups of landmarks (numbers or names), such as [[0], [1], [2], [3], [4]]",
}


@dataclass(frozen=True, eq=False, repr=False)
class Scheme:
    """A landmark set. Indices are 0-based.

    Two schemes are equal if their contents are equal. A built-in scheme also equals its id: ``scheme == "300w"``.

    Attributes:
        id: lower-case name, as in the config of a checkpoint.
        names: the K names of the landmarks; all names differ.
        parts: groups of landmark indices by name, such as "left_eye"; groups may overlap.
        mirror: pairs of landmarks that exchange their places in a mirrored face. A landmark in no pair keeps its place.
            None: the pairs are unknown, and no face is mirrored.
        contours: lines to draw, as sequences of indices. A closed line ends with its first index.
        normalizers: by name, such as "inter-ocular", two groups of landmarks. The distance of the means of the two
            groups normalises errors.
        five: five groups of landmarks. Their means are the left eye, the right eye, the nose tip, the left and the
            right mouth corner. None: the scheme has no such points.

    Raises:
        ValueError: an index is outside 0..K-1, a group is empty, a name is repeated, or a landmark is in two mirror
            pairs.
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
                raise ValueError(f"scheme {self.id!r}: {key} has an empty group, expected landmark indices")
            for index in (i for group in groups for i in group):
                if not 0 <= index < len(self.names):
                    raise ValueError(
                        f"scheme {self.id!r}: {key} names landmark {index}, expected 0..{len(self.names) - 1}"
                    )
        paired = [i for pair in self.mirror or () for i in set(pair)]  # a landmark may be its own mirror image
        if len(set(paired)) != len(paired):
            raise ValueError(f"scheme {self.id!r}: mirror is not an involution: a landmark is in two pairs")

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"Scheme({self.id!r}, {len(self)} landmarks)"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):  # the id of a built-in scheme; compare contents, so that equality stays transitive
            from .builtin import SCHEMES

            other = SCHEMES.get(other)
        return other is self or (isinstance(other, Scheme) and self._content() == other._content())

    def same_landmarks(self, other: Scheme) -> bool:
        """Whether both schemes have the same id and landmark names. Groups and mirror pairs may differ."""
        return (self.id, self.names) == (other.id, other.names)

    def _content(self) -> tuple[object, ...]:
        rest = self.mirror, self.contours, self.five
        return self.id, self.names, dict(self.parts), dict(self.normalizers), *rest

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def permutation(self) -> NDArray[np.intp] | None:
        """(K,) intp: for each landmark the index of its mirror image. None if `mirror` is None."""
        if self.mirror is None:
            return None
        order = np.arange(len(self))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return order

    @property
    def default_normalizer(self) -> str:
        """Name of the distance that divides errors by default.

        "inter-ocular" if the scheme has it, else the first of `normalizers`, else "box", which means the longer side of
        the face's bounding box.
        """
        return next((name for name in ("inter-ocular", *self.normalizers) if name in self.normalizers), "box")

    @cached_property
    def _five_groups(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """The landmarks of `five` in a row, where each group begins, and (5, 1) how many it has."""
        if self.five is None:
            raise ValueError(f"scheme {self.id!r} does not define its five points (`Scheme.five`)")
        counts = [len(group) for group in self.five]
        begins = np.cumsum([0, *counts[:-1]])
        return np.concatenate([list(group) for group in self.five]), begins, np.array(counts, np.float64)[:, None]

    def five_points(self, points: ArrayLike) -> NDArray[np.float64]:
        """(..., K, 2) landmarks -> (..., 5, 2) left eye, right eye, nose tip, left and right mouth corner.

        Raises:
            ValueError: the scheme does not define them.
        """
        indices, begins, counts = self._five_groups
        five: NDArray[np.float64] = (
            np.add.reduceat(np.asarray(points, np.float64)[..., indices, :], begins, -2) / counts
        )
        return five

    def distance(self, points: ArrayLike, normalizer: str | None = None) -> NDArray[np.float64]:
        """The distance that normalises the errors of faces.

        Args:
            points: (..., K, 2) landmarks, in any unit.
            normalizer: a name of `normalizers`; None: `default_normalizer`.

        Returns:
            (...) float64, in the unit of ``points``.

        Raises:
            ValueError: the scheme has no such normalizer. "box" is not possible here, because landmarks alone do not
                give the side of a bounding box.
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
        """A new scheme of some of the landmarks, in the given order.

        Args:
            landmarks: indices or names; each landmark at most once.
            id: id of the new scheme; by default the old id and the number of landmarks, such as "300w-12".

        A part keeps its chosen landmarks. A normalizer and ``five`` stay only if all of their landmarks are chosen.
        Mirror pairs stay if both landmarks are chosen; if only one landmark of a pair is chosen, ``mirror`` becomes
        None. A contour is cut at each landmark that is left out.

        Raises:
            ValueError: the scheme lacks a landmark, a landmark is named twice, or ``landmarks`` is empty.
            TypeError: a landmark is neither an index nor a name.
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
            mirror = None if lone else mirror  # a landmark lost its mirror image: the face cannot be mirrored
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
        """The index, in 0..K-1, of a landmark that is given by its name or its index.

        A negative index counts from the end.

        Raises:
            ValueError: the scheme has no such landmark.
            TypeError: ``landmark`` is neither an index nor a name.
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
        """The scheme as a dictionary that `scheme_from_dict` reads."""
        return asdict(self) | {"parts": dict(self.parts), "normalizers": dict(self.normalizers)}


def scheme_from_dict(data: Mapping[str, Any]) -> Scheme:
    """Build a scheme from a dictionary.

    Args:
        data: the attributes of `Scheme` by name. ``id`` and ``names`` are required. ``landmarks``, the number of
            landmarks, may replace ``names``. A landmark may be given by its index or by its name, and a group of one
            landmark by the landmark.

    Raises:
        ValueError: a key is missing or unknown, or a value is not of the expected form.
    """
    known = {"id", "names", "landmarks", "parts", "mirror", "contours", "normalizers", "five"}
    if unknown := set(data) - known:
        raise ValueError(f"scheme has unknown keys {sorted(unknown)}, expected some of {sorted(known)}")
    if "id" not in data or ("names" not in data and "landmarks" not in data):
        raise ValueError(
            f"scheme has the keys {sorted(data)}, expected 'id' and 'names' (or 'landmarks', the number of landmarks)"
        )

    def number(value: Any) -> int:
        if not isinstance(value, str):
            return operator.index(value)  # int() would accept 0.5
        if value not in names:
            raise ValueError(f"got {value!r}, which is no landmark")
        return int(names.index(value))

    def group(value: Any) -> Group:
        return (number(value),) if isinstance(value, (str, SupportsIndex)) else tuple(map(number, value))

    def mapping(key: str) -> list[tuple[str, Any]]:
        value = data.get(key) or {}
        if not isinstance(value, Mapping):
            raise TypeError(f"got {type(value).__name__}")
        return [(str(name), entry) for name, entry in value.items()]

    mirror, five = data.get("mirror"), data.get("five")
    key = "names" if "names" in data else "landmarks"
    try:
        names = data["names"] if key == "names" else [str(i) for i in range(operator.index(data["landmarks"]))]
        if isinstance(names, str) or data.get("landmarks", len(names)) != len(names):
            raise ValueError(f"got {names!r} for {data.get('landmarks', 'some')} landmarks")
        names = [str(name) for name in names]
        key = "parts"
        parts = {name: group(part) for name, part in mapping(key)}
        key = "mirror"
        pairs = None if mirror is None else tuple((number(a), number(b)) for a, b in mirror)
        key = "contours"
        contours = tuple(group(line) for line in data.get(key) or ())
        key = "normalizers"
        normalizers = {name: (group(a), group(b)) for name, (a, b) in mapping(key)}
        key = "five"
        points = None if five is None else _five(tuple(group(g) for g in five))
    except (TypeError, ValueError) as error:
        got = str(error) if str(error).startswith("got ") else f"got {reprlib.repr(data[key])}"
        raise ValueError(
            f"scheme {data['id']!r}: {key} is not of the expected form: {got}, expected {_FORMS[key]}"
        ) from error
    return Scheme(
        id=str(data["id"]).lower(),
        names=tuple(names),
        parts=parts,
        mirror=pairs,
        contours=contours,
        normalizers=normalizers,
        five=points,
    )


def _five(groups: tuple[Group, ...]) -> tuple[Group, Group, Group, Group, Group]:
    if len(groups) != 5:
        raise ValueError(f"got {len(groups)} groups")
    return groups[0], groups[1], groups[2], groups[3], groups[4]


def load_scheme(path: str | os.PathLike[str]) -> Scheme:
    """Read a scheme from a JSON file, or from a YAML file if PyYAML is installed.

    `scheme_from_dict` says which keys the file has.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not JSON or YAML, or its content is not a scheme.
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
                raise ValueError(f"scheme: {path} is a YAML file, which needs PyYAML: pip install pyyaml") from error
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
