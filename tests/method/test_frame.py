"""The ridge regression in the frame of a face."""

from __future__ import annotations

import numpy as np

from hih_align.method.frame import ridge


def test_offsets_are_learnt_together_as_they_are_alone() -> None:
    """Each offset is learnt from the faces that have it, whatever is known of the others."""
    rng = np.random.default_rng(0)
    rest = 0.05 * (rng.normal(size=(700, 9)) + 1j * rng.normal(size=(700, 9)))
    true = rng.normal(size=(4, 9)) + 1j * rng.normal(size=(4, 9))
    constant = np.array([1, 2j, 0, -1])
    ways = constant + rest @ true.T
    known = rng.random((700, 4)) < [1, 0.5, 0.1, 0.9]
    ways[:70] += known[:70] * 3  # a tenth of the faces has wrong points
    strength = np.array([1e-6, 1e-6, 1e-6, 1e6])
    constants, weights = ridge(np.where(known, ways, np.nan), rest, known, strength)
    np.testing.assert_allclose(weights[:3], true[:3], atol=1e-2)
    np.testing.assert_allclose(constants[:3], constant[:3], atol=1e-2)
    assert abs(weights[3]).max() < 1e-3, "a strong preference for a constant offset"
    for k in range(4):
        here = known[:, k]
        alone = ridge(ways[here, k, None], rest[here], known[here, k, None], strength[k])
        np.testing.assert_allclose(constants[k], alone[0][0], atol=1e-9)
        np.testing.assert_allclose(weights[k], alone[1][0], atol=1e-9)
