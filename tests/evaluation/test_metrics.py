"""`metrics`, compared with values calculated by hand and with a second way of summing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hih_align.evaluation.metrics import auc, ced, failure_rate, nme, point_errors

# Two faces of three points. The distances are 5, 0, 13 and 0, 0, 1; points 0 and 2 of each face are 10 and 4 apart
TARGET = np.array([[[0, 0], [5, 5], [6, 8]], [[0, 0], [1, 1], [0, 4]]], float)
PRED = TARGET + np.array([[[3, -4], [0, 0], [5, 12]], [[0, 0], [0, 0], [0, 1]]])

ERRORS = st.lists(st.floats(0, 40) | st.just(math.nan) | st.just(math.inf), max_size=40)


# NME


def test_nme_by_a_pair() -> None:
    errors = nme(PRED, TARGET, (0, 2))
    assert errors.shape == (2,)
    assert errors.dtype == np.float64
    assert errors.tolist() == pytest.approx([100 * (5 + 0 + 13) / 3 / 10, 100 * 1 / 3 / 4])


def test_the_pair_is_measured_in_the_target() -> None:
    pred = PRED.copy()
    pred[:, 2] += 1000
    assert nme(pred, TARGET, (0, 2), [[1, 1, 0]] * 2).tolist() == pytest.approx([25, 0])


def test_nme_by_distances() -> None:
    assert nme(PRED, TARGET, np.array([20.0, 0.5])).tolist() == pytest.approx([30, 100 / 1.5])
    assert nme(PRED, TARGET, [20.0, 0.5]).tolist() == pytest.approx([30, 100 / 1.5])
    # two numbers can be a pair of indices or two distances: integers are a pair
    assert nme(PRED, TARGET, [1.0, 2.0]).tolist() == pytest.approx([600, 100 / 6])
    assert nme(PRED, TARGET, [1, 2]).tolist() == pytest.approx([100 * 6 / math.hypot(1, 3), 100 / 3 / math.hypot(1, 3)])
    # for a number of faces other than two, integers are distances
    assert nme(PRED[:1], TARGET[:1], np.array([20])).tolist() == pytest.approx([30])
    assert nme(np.tile(PRED, (2, 1, 1)), np.tile(TARGET, (2, 1, 1)), [20, 1, 20, 1]).tolist() == pytest.approx(
        [30, 100 / 3] * 2
    )


def test_point_errors() -> None:
    assert point_errors(PRED, TARGET, (0, 2)) == pytest.approx(np.array([[50, 0, 130], [0, 0, 25]]))


def test_unlabelled_points_do_not_count() -> None:
    target = TARGET.copy()
    target[0, 1] = math.nan  # the coordinates of an unlabelled point do not matter
    labelled = np.array([[True, False, True], [False, True, False]])
    for mask in (labelled, labelled.astype(int) * 2, labelled.tolist()):
        assert nme(PRED, target, (0, 2), mask).tolist() == pytest.approx([90, 0])


def test_nme_without_labels_or_distance_is_nan() -> None:
    """A face without labelled points has no NME, and neither has a face whose normalising distance is 0."""
    labelled = [[0, 0, 0], [1, 1, 1]]
    assert nme(PRED, TARGET, (0, 2), labelled) == pytest.approx([math.nan, 25 / 3], nan_ok=True)
    for zero in (0.0, -1.0, math.nan):
        assert nme(PRED, TARGET, [zero, 4.0]) == pytest.approx([math.nan, 25 / 3], nan_ok=True)
    same = TARGET.copy()
    same[0, 2] = same[0, 0]
    assert np.isnan(nme(PRED, same, (0, 2))).tolist() == [True, False]
    # 0 / 0 is NaN, too: the prediction of the first face is exact and the distance is 0
    assert np.isnan(nme(same, same, (0, 2))).tolist() == [True, False]


def test_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    nme(PRED, TARGET, [0.0, math.nan], np.zeros((2, 3)))
    for metric in (failure_rate, auc, ced):
        metric([])
    assert not recwarn.list


def test_no_faces() -> None:
    nobody = np.zeros((0, 3, 2))
    assert nme(nobody, nobody, (0, 2)).shape == (0,)
    assert nme(nobody, nobody, np.zeros(0)).shape == (0,)
    assert nme(nobody, nobody, (0, 2), np.zeros((0, 3))).shape == (0,)


def test_nme_takes_other_types_and_keeps_its_arguments() -> None:
    expected = nme(PRED, TARGET, (0, 2))
    for kind in (np.float32, np.float16, int):
        got = nme(PRED.astype(kind), TARGET.astype(kind), (0, 2))
        assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert nme(PRED.tolist(), TARGET.tolist(), [0, 2]).tolist() == expected.tolist()
    assert nme(torch.tensor(PRED), torch.tensor(TARGET), np.array([0, 2])).tolist() == expected.tolist()
    before = PRED.copy(), TARGET.copy()
    nme(PRED, TARGET, (0, 2), [[1, 0, 1]] * 2)
    np.testing.assert_array_equal(PRED, before[0])
    np.testing.assert_array_equal(TARGET, before[1])


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        ((2, 3, 2), (2, 4, 2), "pred has shape"),
        ((2, 3, 2), (3, 3, 2), "pred has shape"),
        ((1, 3, 2), (2, 3, 2), "pred has shape"),
        ((3, 2), (3, 2), "pred has shape"),
        ((2, 3, 3), (2, 3, 3), "pred has shape"),
    ],
)
def test_nme_refuses_shapes(pred: tuple[int, ...], target: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}.* expected the same \(N, K, 2\)"):
        nme(np.ones(pred), np.ones(target), (0, 1))


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ((0, 3), r"norm names landmarks \[0, 3\], expected 0..2"),
        ((-1, 2), r"norm names landmarks \[-1, 2\]"),
        ((0, 1, 2), "norm has shape"),
        ([1.0, 2.0, 3.0], r"norm has shape \(3,\), expected a pair of landmark indices or \(2,\) distances"),
        (10.0, "norm has shape"),
        ([[10.0], [10.0]], "norm has shape"),
    ],
)
def test_nme_refuses_norm(norm: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nme(PRED, TARGET, norm)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 3), (2, 3, 2)])
def test_nme_refuses_labelled(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^labelled has shape .*, expected \(2, 3\)"):
        nme(PRED, TARGET, (0, 2), np.ones(shape))


# failure rate


def test_failure_rate() -> None:
    """An error above the threshold is a failure; an error equal to the threshold is not.

    The rate is in percent. Faces without an error (NaN) do not count.
    """
    errors = [3.0, 10.0, 10.0001, 12.0, math.nan]
    assert failure_rate(errors, 10) == 50
    assert failure_rate(errors) == 50
    assert failure_rate(errors, 9.99) == 75
    assert failure_rate(errors, 12) == 0
    assert failure_rate([math.inf, 1.0], 10) == 50
    assert isinstance(failure_rate(np.array(errors, np.float32), 10), float)
    assert math.isnan(failure_rate([]))
    assert math.isnan(failure_rate([math.nan]))


# AUC and CED


def test_auc_by_hand() -> None:
    """Errors of 2 and 6, threshold 10: half of the faces from 2 on, all from 6 on, so (0.5 * 4 + 1 * 4) / 10."""
    assert auc([2.0, 6.0], 10) == pytest.approx(0.6)
    assert auc([2.0, 6.0]) == pytest.approx(0.6)
    assert auc([2.0, 6.0, 30.0], 10) == pytest.approx((1 / 3 * 4 + 2 / 3 * 4) / 10)
    assert auc([2.0, math.nan], 10) == pytest.approx(0.8)
    assert auc([0.0], 10) == 1
    assert auc([10.0, math.inf], 10) == 0
    assert auc([0.02, 0.06], 0.1) == pytest.approx(0.6)
    assert isinstance(auc([1.0]), float)
    assert math.isnan(auc([]))
    assert math.isnan(auc([math.nan]))


@given(ERRORS, st.floats(0.5, 30))
@example([0.0, 5.0, 5.0, 5.0], 5.0)
def test_auc_is_the_area_under_the_steps(errors: list[float], threshold: float) -> None:
    """The AUC is exactly the sum of the rectangles under the steps, and nearly the mean of a finely sampled curve."""
    curve = ced(errors)
    if not len(curve.error):
        assert math.isnan(auc(errors, threshold))
        return
    below = curve.error < threshold
    edges = np.append(curve.error[below], threshold)
    area = float((np.diff(edges) * curve.share[below]).sum()) / threshold
    assert auc(errors, threshold) == pytest.approx(area, abs=1e-12)
    grid = (np.arange(4000) + 0.5) / 4000 * threshold
    known = np.array([e for e in errors if not math.isnan(e)])
    sampled = (known[:, None] <= grid).mean()
    assert auc(errors, threshold) == pytest.approx(float(sampled), abs=1 / 4000 + 1e-9)
    assert 0 <= auc(errors, threshold) <= 1


def test_ced() -> None:
    error, share = ced([5.0, math.nan, 1.0, 3.0, 3.0])
    assert error.tolist() == [1, 3, 3, 5]
    assert share.tolist() == [0.25, 0.5, 0.75, 1]
    assert [len(part) for part in ced([])] == [0, 0]


@given(ERRORS)
def test_ced_is_the_share_of_faces(errors: list[float]) -> None:
    curve = ced(errors)
    known = np.array([e for e in errors if not math.isnan(e)])
    assert (np.diff(curve.error[np.isfinite(curve.error)]) >= 0).all()
    for threshold in (0.0, 5.0, 40.0):
        reached = np.searchsorted(curve.error, threshold, side="right")
        share = curve.share[reached - 1] if reached else 0.0
        assert share == pytest.approx((known <= threshold).mean() if len(known) else 0.0)
        if len(known):
            assert failure_rate(errors, threshold) == pytest.approx(100 * (1 - share), abs=1e-9)


@pytest.mark.parametrize("threshold", [0, -1.0, math.nan])
def test_auc_refuses_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^threshold is .*, expected a positive error"):
        auc([1.0], threshold)
