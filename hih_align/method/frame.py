"""The frame of a face: its landmarks are moved, turned and scaled onto a mean shape. Points are complex, x + iy.

A quantity in this frame, such as the offset from one landmark to another, is nearly the same for all faces, whatever
their place, size and roll. A weighted sum of a face's points that is constant in the frame moves, turns and scales with
the face, so it can be part of a `Readout`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]

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

    def weights(self, constant: complex, others: Complex) -> Complex:
        """(H,) weights of a face's points that give an offset: ``constant``, plus `rest` times ``others`` (H,)."""
        found: Complex = constant * self.turned + others @ self.own
        return found


def ridge(ways: Complex, rest: Complex, strength: float) -> tuple[complex, Complex]:
    """Offsets as a constant plus a sum of the landmarks' deviations from the mean shape, by least absolute distances.

    Args:
        ways: (N,) offsets in the frame.
        rest: (N, H) deviations of the landmarks, see `Frame.rest`.
        strength: of the preference for a constant offset, in the units of a sum over the N faces.

    Returns:
        The constant, and the (H,) weights of the deviations.
    """
    constant, others = complex(ways.mean()), np.zeros(rest.shape[1], np.complex128)
    penalty = strength * np.eye(rest.shape[1])
    for _ in range(STEPS):
        error = abs(ways - constant - rest @ others)
        trust = 1 / np.maximum(error, 0.3 * np.median(error) + 1e-6)
        trust = trust / trust.mean()
        centre, middle = (trust[:, None] * rest).sum(0) / trust.sum(), (trust * ways).sum() / trust.sum()
        left = rest - centre
        weighted = left.conj().T * trust
        others = np.linalg.solve(weighted @ left + penalty, weighted @ (ways - middle))
        constant = complex(middle - centre @ others)
    return constant, others


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
