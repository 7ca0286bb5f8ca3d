"""The frame of a face: its landmarks are moved, turned and scaled onto a mean shape. Points are complex, x + iy.

A quantity in this frame, such as the offset from one landmark to another, is nearly the same for all faces, whatever
their place, size and roll. A weighted sum of a face's points that is constant in the frame moves, turns and scales with
the face, so it can be part of a `Readout`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Deviations = NDArray[np.complex128] | NDArray[np.float64]

#: Steps of `ridge` towards least absolute distances, which faces with a wrong result do not distort.
STEPS = 8


class Frame:
    """The frame of faces with H landmarks.

    Args:
        faces: (N, H) points of faces, all known. Their mean shape defines the frame.

    Attributes:
        mean: (H,) the mean shape, centred, with a root mean square radius of 1.
        turned: (H,) weights. The sum of a face's points with these weights is the face's scale and rotation.
        own: (H, H) weights. The sums of a face's points with these weights are its `rest` times its scale and rotation.

    A `Readout` has the frame in its attribute ``upright``, which is `turned`.
    """

    def __init__(self, faces: Complex) -> None:
        self.mean = _mean_shape(faces)
        frame = self.mean.conj() / (abs(self.mean) ** 2).sum()
        # the sum of these weights is 0, so the points need not be centred
        self.turned: Complex = np.asarray(frame - frame.sum() / len(frame))
        self.own: Complex = np.eye(len(frame)) - 1 / len(frame) - np.outer(self.mean, self.turned)

    def scale(self, faces: Complex) -> Complex:
        """(N,) scale and rotation of faces (N, H)."""
        found: Complex = faces @ self.turned
        return found

    def rest(self, faces: Complex) -> Complex:
        """(N, H) deviations of faces (N, H) from the mean shape, in the frame."""
        moved: Complex = (faces - faces.mean(-1, keepdims=True)) / self.scale(faces)[:, None]
        return moved - self.mean

    def weights(self, constant: Complex, others: Complex) -> Complex:
        """(K, H) weights of a face's points that give K offsets: ``constant`` (K,) + `rest` times ``others`` (K, H)."""
        found: Complex = constant[:, None] * self.turned + others @ self.own
        return found

    def regress(
        self, ways: Complex, faces: Complex, known: NDArray[np.bool_], strength: float | NDArray[np.float64]
    ) -> tuple[Complex, Complex]:
        """Offsets as a constant plus a weighted sum of the deviations in x and in y (`ridge`).

        Args:
            ways, known, strength: as in `ridge`.
            faces: (N, H) points of the faces.

        Returns:
            The (K, H) weights of a face's points, and those of its mirrored points (`Readout.mirrored`).
        """
        rest = self.rest(faces)
        constant, others = ridge(ways, np.concatenate((rest.real, rest.imag), 1), known, strength)
        by_x, by_y = np.split(others, 2, 1)
        # x = (z + z*) / 2 and y = (z - z*) / 2i, where z* is the mirrored z
        mirrored: Complex = (by_x + 1j * by_y) / 2 @ self.own.conj()
        return self.weights(constant, (by_x - 1j * by_y) / 2), mirrored


def ridge(
    ways: Complex, rest: Deviations, known: NDArray[np.bool_], strength: float | NDArray[np.float64]
) -> tuple[Complex, Complex]:
    """Offsets as a constant plus a sum of the landmarks' deviations from the mean shape, by least absolute distances.

    Args:
        ways: (N, K) K offsets of each face, in the frame.
        rest: (N, H) deviations of the landmarks, see `Frame.rest`, or other numbers of each face, real or complex.
        known: (N, K). Offsets that are not known are not read. Each of the K offsets is known on at least one face.
        strength: of the preference for a constant offset, in the units of a sum over the faces; one number, or (K,).

    Returns:
        The (K,) constants, and the (K, H) weights of the deviations.
    """
    faces, count = known.sum(0), rest.shape[1]
    ways = np.where(known, ways, 0)
    constant, others = ways.sum(0) / faces, np.zeros((ways.shape[1], count), np.complex128)
    for _ in range(STEPS):
        error = np.where(known, abs(ways - constant - rest @ others.T), np.nan)
        trust = np.where(known, 1 / np.maximum(error, 0.3 * np.nanmedian(error, 0) + 1e-6), 0.0)
        trust *= faces / trust.sum(0)
        centre, middle = trust.T @ rest / faces[:, None], (trust * ways).sum(0) / faces
        matrix = _products(trust, rest) - np.einsum("k,ki,kj->kij", faces, centre.conj(), centre)
        matrix[:, range(count), range(count)] += np.reshape(strength, (-1, 1))
        right = (trust * ways).T @ rest.conj() - (faces * middle)[:, None] * centre.conj()
        others = np.linalg.solve(matrix, right[..., None])[..., 0]
        constant = middle - (centre * others).sum(-1)
    return constant, others


def _products(trust: NDArray[np.float64], rest: Deviations, together: int = 512) -> Deviations:
    """(K, H, H) sums of the products conj(rest[i]) rest[j] over the faces, weighted by ``trust`` (N, K).

    They are one large real product for ``together`` faces. On cores that other programs use, many small products took
    45 times as long: the threads of the BLAS library waited for each other in each of them.
    """
    rows, columns = np.triu_indices(rest.shape[1])
    kind: Any = rest.dtype
    sums = np.zeros((trust.shape[1], len(rows)), kind)
    for start in range(0, len(rest), together):
        some = rest[start : start + together]
        products = np.take(some.conj(), rows, 1) * np.take(some, columns, 1)
        sums.view(np.float64)[:] += trust[start : start + together].T @ products.view(np.float64)
    matrix: Deviations = np.empty((trust.shape[1], rest.shape[1], rest.shape[1]), kind)
    matrix[:, columns, rows] = sums.conj()
    matrix[:, rows, columns] = sums
    return matrix


def as_complex(points: NDArray[np.floating]) -> Complex:
    """(..., 2) points as complex numbers (...)."""
    p = np.asarray(points, np.float64)
    return p[..., 0] + 1j * p[..., 1]


def both_sides(
    found: NDArray[np.floating],
    labels: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    source: NDArray[np.intp] | None,
    target: NDArray[np.intp] | None,
) -> tuple[Complex, Complex, NDArray[np.bool_]]:
    """Faces, followed by their mirror images if both schemes have mirror pairs. So both sides of a face count equally.

    Args:
        found: (N, H, 2) points of a network.
        labels: (N, K, 2) labels; where ``labelled`` (N, K) is False they are not read, and the result is 0.
        source, target: the permutations of the landmarks (`Scheme.permutation`) of ``found`` and of ``labels``.

    Returns:
        (N or 2 N, H) found points, (N or 2 N, K) labels, and whether each is labelled.
    """
    old, new = as_complex(found), as_complex(np.where(labelled[..., None], labels, 0.0))
    if source is None or target is None:
        return old, new, labelled
    return (
        np.concatenate((old, -old.conj()[:, source])),
        np.concatenate((new, -new.conj()[:, target])),
        np.concatenate((labelled, labelled[:, target])),
    )


def _mean_shape(faces: Complex, rounds: int = 10) -> Complex:
    """(H,) mean of faces (N, H) in one frame, centred, of root mean square radius 1."""
    centred = faces - faces.mean(-1, keepdims=True)
    centred = centred / np.maximum(np.sqrt((abs(centred) ** 2).mean(-1, keepdims=True)), 1e-9)
    mean: Complex = centred[0]
    for _ in range(rounds):
        turn = centred @ mean.conj()
        mean = (centred * (turn.conj() / np.maximum(abs(turn), 1e-9))[:, None]).mean(0)
        mean = mean / max(float(np.sqrt((abs(mean) ** 2).mean())), 1e-9)
    upright = np.sqrt((mean**2).sum())  # real if the mean is symmetric about an axis; its sign does not matter
    return mean * (abs(upright) / upright if abs(upright) > 1e-9 else 1)
