"""Readouts: each landmark is a weighted sum of the points of several heads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hih_align.method.readout import Readout, from_weights, pick, readout_from_dict


@pytest.fixture
def weights() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
    return found / found.sum(-1, keepdims=True)


def test_landmarks_move_rotate_and_scale_with_their_heads(weights: np.ndarray) -> None:
    readout = from_weights(weights)
    heads = np.random.default_rng(1).normal(size=(2, 5, 2))
    c, s = 1.7 * np.cos(0.4), 1.7 * np.sin(0.4)
    turned = heads @ np.array([[c, s], [-s, c]]) + (3, -8)
    np.testing.assert_allclose(readout.points(turned), readout.points(heads) @ [[c, s], [-s, c]] + (3, -8), atol=1e-7)


def test_the_second_weight_acts_at_a_right_angle() -> None:
    # the landmark is head 0 plus a step at a right angle to the way from head 0 to head 1; the step is clockwise in the
    # image, because y points down
    readout = Readout(2, (((0, 1.0, -1.0), (1, 0.0, 1.0)),))
    np.testing.assert_allclose(readout.points([[1.0, 1.0], [4.0, 1.0]]), [[1.0, 4.0]])


def test_pick_takes_heads_unchanged() -> None:
    readout = pick(5, [3, 0])
    assert readout.picks
    assert readout.sources.tolist() == [3, 0]
    assert readout.used.tolist() == [0, 3]
    assert not from_weights(np.array([[0.5, 0.5]])).picks


def test_readouts_can_be_combined(weights: np.ndarray) -> None:
    heads = np.random.default_rng(1).normal(size=(5, 2))
    first = from_weights(weights)
    second = first.then(np.array([[0.0, 0.25, 0.75]]))
    np.testing.assert_allclose(second.points(heads)[0], first.points(heads)[1:].T @ (0.25, 0.75), atol=1e-7)


def test_a_readout_is_read_back_from_plain_data(weights: np.ndarray) -> None:
    readout = from_weights(weights)
    assert readout_from_dict(json.loads(json.dumps(readout.to_dict()))) == readout


@pytest.mark.parametrize(
    ("terms", "message"),
    [((), "no landmarks"), ((((2, 1.0, 0.0),),), "names head 2"), ((((0, 0.9, 0.0),),), "sum to 0.9")],
)
def test_wrong_readouts_are_refused(terms: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Readout(2, terms)
