"""Readouts: each landmark is a weighted sum of the points of several heads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hih_align.method.reading import Reading
from hih_align.method.readout import Readout, from_weights, pick, readout_from_dict


@pytest.fixture
def weights() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
    return found / found.sum(-1, keepdims=True)


#: The scale and the rotation of a face: the way from head 0 to head 4.
UPRIGHT = np.array([-1, 0, 0, 0, 1])


@pytest.fixture
def mirrored() -> np.ndarray:
    rng = np.random.default_rng(2)
    found = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
    return found - found.mean(-1, keepdims=True)


@pytest.mark.parametrize("both", [False, True])
def test_landmarks_move_rotate_and_scale_with_their_heads(
    weights: np.ndarray, mirrored: np.ndarray, both: bool
) -> None:
    readout = from_weights(weights, mirrored, UPRIGHT) if both else from_weights(weights)
    heads = np.random.default_rng(1).normal(size=(2, 5, 2))
    c, s = 1.7 * np.cos(0.4), 1.7 * np.sin(0.4)
    turned = heads @ np.array([[c, s], [-s, c]]) + (3, -8)
    np.testing.assert_allclose(readout.points(turned), readout.points(heads) @ [[c, s], [-s, c]] + (3, -8), atol=1e-7)


def test_the_second_weight_acts_at_a_right_angle() -> None:
    # the landmark is head 0 plus a step at a right angle to the way from head 0 to head 1; the step is clockwise in the
    # image, because y points down
    readout = Readout(2, (((0, 1.0, -1.0), (1, 0.0, 1.0)),))
    np.testing.assert_allclose(readout.points([[1.0, 1.0], [4.0, 1.0]]), [[1.0, 4.0]])


def test_mirrored_points_let_x_and_y_differ() -> None:
    """Landmark 0 is the place of head 0, moved by half of the way from head 0 to head 1, but only along the face."""
    readout = Readout(
        2, (((0, 0.75, 0.0), (1, 0.25, 0.0)),), (((0, -0.25, 0.0), (1, 0.25, 0.0)),), ((0, -1.0, 0.0), (1, 1.0, 0.0))
    )
    np.testing.assert_allclose(readout.points([[1.0, 1.0], [5.0, 1.0]]), [[3.0, 1.0]])
    level = Readout(2, readout.terms, readout.mirrored, ((0, 0.0, 1.0), (1, 0.0, -1.0)))  # the face looks down
    np.testing.assert_allclose(level.points([[1.0, 1.0], [5.0, 1.0]]), [[1.0, 1.0]], atol=1e-9)


def test_points_at_one_place_have_no_roll(weights: np.ndarray, mirrored: np.ndarray) -> None:
    found = from_weights(weights, mirrored, UPRIGHT).points(np.full((5, 2), 7.0))
    np.testing.assert_allclose(found, np.full((3, 2), 7.0), atol=1e-6)


def test_the_module_computes_what_the_readout_does(weights: np.ndarray, mirrored: np.ndarray) -> None:
    heads = np.random.default_rng(1).normal(size=(2, 5, 2), scale=30) + 128
    readout = from_weights(weights, mirrored, UPRIGHT)
    for change in ({}, {"mirrored": (), "upright": ()}):
        one = replace(readout, **change)
        found = Reading(one, middle=127.5)(torch.from_numpy(heads).float())
        np.testing.assert_allclose(found.numpy(), one.points(heads), atol=1e-3)
    order = np.array([3, 1, 4, 0, 2])
    some = Reading(readout, order)(torch.from_numpy(heads[:, order]).float())
    np.testing.assert_allclose(some.numpy(), readout.points(heads), atol=1e-3)


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


def test_readouts_with_mirrored_points_can_be_combined(weights: np.ndarray, mirrored: np.ndarray) -> None:
    heads = np.random.default_rng(1).normal(size=(5, 2))
    first = from_weights(weights, mirrored, UPRIGHT)
    second = first.then(np.array([[1j, 0.25, 0.75 - 1j]]))
    points = first.points(heads) @ (1, 1j)
    np.testing.assert_allclose(second.points(heads)[0] @ (1, 1j), points @ (1j, 0.25, 0.75 - 1j), atol=1e-6)


@pytest.mark.parametrize("both", [False, True])
def test_a_readout_is_read_back_from_plain_data(weights: np.ndarray, mirrored: np.ndarray, both: bool) -> None:
    readout = from_weights(weights, mirrored, UPRIGHT) if both else from_weights(weights)
    assert readout_from_dict(json.loads(json.dumps(readout.to_dict()))) == readout


@pytest.mark.parametrize(
    ("terms", "message"),
    [((), "no landmarks"), ((((2, 1.0, 0.0),),), "names head 2"), ((((0, 0.9, 0.0),),), "sum to 0.9")],
)
def test_wrong_readouts_are_refused(terms: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Readout(2, terms)


@pytest.mark.parametrize(
    ("mirrored", "upright", "message"),
    [
        ((((0, 1.0, 0.0),),), ((0, 1.0, 0.0), (1, -1.0, 0.0)), "mirrored landmark 0 sum to 1"),
        ((((0, 1.0, 0.0), (2, -1.0, 0.0)),), ((0, 1.0, 0.0), (1, -1.0, 0.0)), "mirrored landmark 0 names head 2"),
        (((), ()), ((0, 1.0, 0.0), (1, -1.0, 0.0)), "mirrored has 2 landmarks, expected 1"),
        (((),), ((0, 1.0, 0.0),), "weights of upright sum to 1"),
        (((),), (), "mirrored and upright belong together"),
        ((), ((0, 1.0, 0.0), (1, -1.0, 0.0)), "mirrored and upright belong together"),
    ],
)
def test_wrong_mirrored_terms_are_refused(mirrored: tuple, upright: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Readout(2, (((0, 1.0, 0.0),),), mirrored, upright)
