"""The built-in schemes: 300W (68 landmarks), WFLW (98 landmarks) and COFW (29 landmarks)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .scheme import Group, Scheme, load_scheme


def _run(first: int, last: int) -> Group:
    return tuple(range(first, last + 1))


def _closed(first: int, last: int) -> Group:
    return (*_run(first, last), first)


def _numbered(parts: Mapping[str, Group]) -> tuple[str, ...]:
    """Landmark names such as ``jaw_0``. The parts must cover every landmark once, in order."""
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
    """Return a scheme.

    Args:
        scheme: the id of a built-in scheme ("300w", "wflw", "cofw"), the path of a scheme file, or a `Scheme`, which
            is returned as it is.

    Raises:
        TypeError: ``scheme`` is none of these.
        ValueError: the id is unknown.
        FileNotFoundError: the path ends in .json, .yaml or .yml, and the file does not exist.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, (str, os.PathLike)):
        raise TypeError(f"scheme is {type(scheme).__name__}, expected an id, the path of a scheme file or a Scheme")
    scheme = os.fspath(scheme)
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    if str(scheme).endswith((".json", ".yaml", ".yml")):
        return load_scheme(scheme)
    raise ValueError(
        f"scheme is {scheme!r}, expected one of {sorted(SCHEMES)}, the path of a .json or .yaml file, or a Scheme"
    )
