"""The mean shape of a data set, and checks of left and right that use it.

``points`` is (N, K, 2) and ``labelled`` is (N, K) bool. Points that are not labelled may hold anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemes import Scheme

_Complex = NDArray[np.complex128]


def mean_shape(points: NDArray[np.float64], labelled: NDArray[np.bool_], rounds: int = 10) -> NDArray[np.float64]:
    """The mean of faces that are aligned for position, scale and roll (generalised Procrustes analysis).

    Returns:
        (K, 2), centred, of root mean square radius 1, with the roll of one of the faces. NaN for a landmark that no
        face has labelled.

    The weight of a face falls with its distance from the mean, so that a few wrong faces do not distort the mean.
    """
    z, w = _complex(points, labelled), labelled.astype(np.float64)
    mean = _central(z, labelled)
    for _ in range(rounds):
        mean = _unit(mean)
        known = w * ~np.isnan(mean)
        usable = known.sum(1) >= min(3, z.shape[1])
        trust = usable / np.maximum(_distances(z, known, mean), 0.05)
        share = w * trust[:, None]
        total = share.sum(0)
        mean = np.where(total > 0, (share * _align(z, known, mean)).sum(0) / np.maximum(total, 1e-12), np.nan)
    mean = _unit(mean)
    return np.stack((mean.real, mean.imag), -1)


def _central(z: _Complex, labelled: NDArray[np.bool_], tried: int = 9) -> _Complex:
    """(K,) the points of a complete face that most faces resemble. The first one may be a face with wrong labels."""
    count = labelled.sum(1)
    complete = np.flatnonzero(count == count.max())
    some = complete[np.unique(np.linspace(0, len(complete) - 1, tried).round().astype(int))]
    shapes = [np.where(labelled[i], z[i], np.nan) for i in some]
    apart = [np.median(_distances(z, labelled * ~np.isnan(shape), _unit(shape))) for shape in shapes]
    return shapes[int(np.argmin(apart))]


def upright(mean: NDArray[np.float64], permutation: NDArray[np.intp]) -> NDArray[np.float64]:
    """A mean shape, turned upright (paired landmarks level, left on the left) and averaged with its mirror image.

    Args:
        mean: (K, 2), as `mean_shape` returns it. A landmark becomes NaN if it, or its mirror image, is NaN.
        permutation: `Scheme.permutation`.
    """
    m = mean @ np.array([1, 1j])
    left = np.arange(len(m)) < permutation
    m = m * np.exp(-1j * np.angle(np.nansum((m[permutation] - m)[left])))
    m = _unit((m - m.conj()[permutation]) / 2)
    return np.stack((m.real, m.imag), -1)


def aligned(points: NDArray[np.float64], labelled: NDArray[np.bool_], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K, 2) faces that are moved, scaled and turned to the best fit with a mean shape."""
    m = mean @ np.array([1, 1j])
    z = _align(_complex(points, labelled), labelled * ~np.isnan(m), m)
    return np.stack((z.real, z.imag), -1)


def turns(
    points: NDArray[np.float64], labelled: NDArray[np.bool_], mean: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """(N,) complex factors that scale and turn faces to the best fit with a mean shape.

    The factor times x + iy of a difference in pixels is that difference in units of the mean shape. A face of fewer
    than two points has the factor 0.
    """
    m = mean @ np.array([1, 1j])
    return _turns(_complex(points, labelled), labelled * ~np.isnan(m), m)[:, 0]


def distances(
    points: NDArray[np.float64], labelled: NDArray[np.bool_], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) root mean square distance from the mean shape after alignment, divided by the radius of the face.

    About 0.15 for near-frontal faces, up to 0.6 for extreme poses and expressions, 1 for points that form no face.
    """
    m = mean @ np.array([1, 1j])
    return _distances(_complex(points, labelled), labelled * ~np.isnan(m), m)


def swapped(
    points: NDArray[np.float64], labelled: NDArray[np.bool_], mean: NDArray[np.float64], permutation: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """(N,) bool: left and right are swapped. Such a face is far from the mean shape, but close to it once permuted."""
    straight = distances(points, labelled, mean)
    crossed = distances(points[:, permutation], labelled[:, permutation], mean)
    return (straight > 0.7) & (crossed < straight / 2)


def left_right_problem(points: NDArray[np.float64], labelled: NDArray[np.bool_], scheme: Scheme) -> str | None:
    """A message about a mirror table, or about left and right in the data, that is clearly wrong; None if all is well.

    The mean shape is compared with its mirrored and permuted copy. With a right table the two are nearly the same: each
    landmark is 0.01 to 0.1 radii from its copy, or more if all faces look to the same side. So a few outlying landmarks
    count only where the other landmarks agree. All landmarks together count only if no pose explains the difference:
    the lines between paired landmarks are not parallel, or the mirrored shape is no face. With fewer faces the evidence
    must be clearer. A table that exchanges only direct neighbours is not found.
    """
    usable = labelled.sum(1) >= 3
    points, labelled = points[usable], labelled[usable]
    if not len(points):
        return None
    mean = mean_shape(points, labelled)
    m = mean @ np.array([1, 1j])
    if scheme.five is not None and (problem := _eyes_crossed(m, scheme)):
        return problem
    order = scheme.permutation
    if order is None:
        return None
    if (order == np.arange(len(order))).all():
        return _no_pairs(m, scheme)
    crossed = int(swapped(points, labelled, mean, order).sum())
    if crossed >= 3 and crossed > 0.05 * len(points):
        return f"left and right are swapped in {crossed} of {len(points)} faces"
    return _table_problem(m, labelled, order, scheme)


def _no_pairs(m: _Complex, scheme: Scheme) -> str | None:
    """A table without pairs states that all landmarks lie on the symmetry line of a face; check that they do."""
    known = m[~np.isnan(m)]
    if len(known) < 3:
        return None
    spread = np.linalg.svd(np.stack(((known - known.mean()).real, (known - known.mean()).imag)), compute_uv=False)
    if spread[1] < 0.35 * spread[0]:
        return None
    return (
        f"the mirror table of scheme {scheme.id!r} does not fit the data: mirror has no pairs, so each landmark would "
        "be its own mirror image, and a mirrored face comes out as no face at all; name the pairs of landmarks that a "
        "mirrored face exchanges, such as [[0, 1]], or leave mirror out"
    )


def _table_problem(m: _Complex, labelled: NDArray[np.bool_], order: NDArray[np.intp], scheme: Scheme) -> str | None:
    both = ~np.isnan(m) & ~np.isnan(m[order])
    if both.sum() < 4:
        return None
    doubt = 1 / np.sqrt(np.maximum(np.minimum(labelled.sum(0), labelled.sum(0)[order]), 1))
    other, w = -m.conj()[order], both.astype(np.float64)
    apart = abs(_align(other[None], w[None], m)[0] - m)
    table = f"the mirror table of scheme {scheme.id!r} does not fit the data: "
    if np.sqrt((apart[both] ** 2).mean()) > 0.85:
        return table + "a mirrored face comes out as no face at all"
    left = np.flatnonzero(both & (np.arange(len(m)) < order))
    if len(left) >= 3:
        lines = m[order[left]] - m[left]
        lines = lines * np.exp(-1j * np.angle(lines.sum()))
        if np.sqrt((lines.imag**2).mean()) > 0.2 + 0.5 * doubt[left].mean():
            return table + "the lines between paired landmarks are not parallel"
    if len(left) < 2:  # half of a face: the remaining landmarks lie roughly on one line
        return None
    for _ in range(10):  # approach least absolute distances, which a few wrong pairs do not distort
        apart = abs(_align(other[None], w[None], m)[0] - m)
        w = np.where(both, 1 / np.maximum(apart, 0.02), 0)
    limit = np.maximum(0.3, 10 * np.median(apart[both])) + doubt
    wrong = [
        i for i in np.flatnonzero(both & (apart > limit)) if i <= order[i] or not apart[order[i]] > limit[order[i]]
    ]
    if wrong:
        pairs = ", ".join(f"{i} {scheme.names[i]!r} with {order[i]} {scheme.names[order[i]]!r}" for i in wrong[:5])
        return table + f"it exchanges {pairs}{' and more' if len(wrong) > 5 else ''}"
    return None


def _eyes_crossed(m: _Complex, scheme: Scheme) -> str | None:
    """Above the mouth, the left eye lies on the left at any roll: this is the sign of a cross product."""
    assert scheme.five is not None
    left_eye, right_eye, _, left_corner, right_corner = (m[list(group)].mean() for group in scheme.five)
    across, down = right_eye - left_eye, (left_corner + right_corner - left_eye - right_eye) / 2
    sine = (across.conj() * down).imag / max(abs(across) * abs(down), 1e-9)
    if sine < -0.5:  # false if a landmark is not labelled (NaN)
        return (
            f"left and right are swapped in the data: scheme {scheme.id!r} gives in 'five' the left eye and the left "
            "mouth corner first, where left is the left side of the picture"
        )
    return None


def _complex(points: NDArray[np.float64], labelled: NDArray[np.bool_]) -> _Complex:
    z: _Complex = np.where(labelled[..., None], points, 0) @ np.array([1, 1j])
    return z


def _unit(mean: _Complex) -> _Complex:
    if np.isnan(mean).all():  # no face has enough labels
        return mean
    mean = mean - np.nanmean(mean)
    return mean / max(float(np.sqrt(np.nanmean(abs(mean) ** 2))), 1e-12)


def _align(z: _Complex, w: NDArray[Any], mean: _Complex) -> _Complex:
    """(N, K) faces that are moved, turned and scaled to the best fit with ``mean`` (K,), where ``w`` (N, K) > 0."""
    z, mean = np.nan_to_num(z), np.nan_to_num(mean)
    return _turns(z, w, mean) * (z - _middle(z, w)) + _middle(mean, w)


def _turns(z: _Complex, w: NDArray[Any], mean: _Complex) -> _Complex:
    """(N, 1) the factors of `_align`, by least squares."""
    z, mean = np.nan_to_num(z), np.nan_to_num(mean)
    d = z - _middle(z, w)
    size = np.maximum((w * abs(d) ** 2).sum(1, keepdims=True), 1e-12)
    return (w * d.conj() * (mean - _middle(mean, w))).sum(1, keepdims=True) / size


def _middle(z: _Complex, w: NDArray[Any]) -> _Complex:
    return (w * z).sum(1, keepdims=True) / np.maximum(w.sum(1, keepdims=True), 1e-12)


def _distances(z: _Complex, w: NDArray[Any], mean: _Complex) -> NDArray[np.float64]:
    total = np.maximum(w.sum(1), 1e-12)
    off = (w * abs(_align(z, w, mean) - np.nan_to_num(mean)) ** 2).sum(1)
    middle = (w * np.nan_to_num(mean)).sum(1) / total
    size = (w * abs(np.nan_to_num(mean) - middle[:, None]) ** 2).sum(1)
    return np.sqrt(off / np.maximum(size, 1e-12))
