from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hih_align.method import heatmaps
from hih_align.method.losses import LossSettings, csc_loss, expectation_loss, hih_loss, integer_loss, near, one_hot

K, SIZE, CELLS = 5, 16, 8


def example(seed: int = 0, stacks: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    integer = torch.rand(3, stacks, K, SIZE, SIZE, generator=generator)
    decimal = torch.randn(3, K, CELLS, CELLS, generator=generator)
    points = torch.rand(3, K, 2, generator=generator) * (SIZE - 4) + 2
    weights = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0.5, 1], [0, 0, 0, 0, 0.25]])
    return integer.requires_grad_(), decimal.requires_grad_(), points, weights


def softmax(values: np.ndarray) -> np.ndarray:
    e = np.exp(values - values.max())
    return e / e.sum()


def eq6(integer: np.ndarray, decimal: np.ndarray, points: torch.Tensor, alpha: float, temperature: float) -> float:
    """Eq. 6 for one face whose landmarks are all labelled, in plain loops."""
    target = heatmaps.encode(points, (SIZE, SIZE), CELLS)
    total = 0.0
    for k in range(K):
        p = softmax(target.decimal[k].numpy().astype(np.float64).ravel() / temperature)
        q = softmax(decimal[k].astype(np.float64).ravel())
        mse = ((target.integer[k].numpy() - integer[k]) ** 2).sum() / SIZE**2
        total += mse + alpha / CELLS**2 * (p * np.log(p / q)).sum()
    return total / K


@pytest.mark.parametrize(("alpha", "temperature"), [(0.1, 1.0), (0.05, 1.0), (0.1, 0.1)])
def test_total_is_eq_6(alpha, temperature):
    integer, decimal, points, _ = example()
    settings = LossSettings(alpha=alpha, temperature=temperature)
    loss = hih_loss(integer[:1], decimal[:1], points[:1], torch.ones(1, K), settings)
    with torch.no_grad():
        expected = eq6(integer[0, -1].numpy(), decimal[0].numpy(), points[0], alpha, temperature)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.parts["integer"].item() + alpha * loss.parts["decimal"].item() == pytest.approx(expected, rel=1e-5)


def test_csc_is_zero_only_at_the_target_distribution():
    target = heatmaps.encode(torch.tensor([[5.3, 7.8]]), (SIZE, SIZE), CELLS).decimal
    weights = torch.ones(1)
    assert csc_loss(target, target, weights).item() == pytest.approx(0, abs=1e-7)
    assert csc_loss(target / 0.1, target, weights, temperature=0.1).item() == pytest.approx(0, abs=1e-7)
    assert csc_loss(target, target, weights, temperature=0.1).item() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        LossSettings(),
        LossSettings(supervise="all", decimal="mse"),
        LossSettings(temperature=0.1, gate=1.0, expectation=0.5),
        LossSettings(hard_labels=True, expectation=1.0, rounding="floor"),
    ],
)
def test_missing_landmarks_have_no_gradient(settings):
    integer, decimal, points, weights = example()
    points = torch.where((weights > 0)[..., None], points, math.nan)
    points[0, 2] = torch.tensor([-3.0, 4.0])  # this point is outside the map
    missing = weights == 0
    missing[0, 2] = True
    hih_loss(integer, decimal, points, weights, settings).total.backward()
    assert integer.grad is not None
    assert decimal.grad is not None
    assert (integer.grad.transpose(1, 2)[missing] == 0).all()
    assert (decimal.grad[missing] == 0).all()
    assert (integer.grad[:, -1][~missing].abs().amax((-2, -1)) > 0).all()
    assert torch.isfinite(integer.grad).all()
    assert torch.isfinite(decimal.grad).all()


def test_the_coordinates_of_missing_landmarks_do_not_matter():
    integer, decimal, points, weights = example()
    settings = LossSettings(expectation=1.0)
    before = hih_loss(integer, decimal, points, weights, settings).total
    moved = torch.where((weights > 0)[..., None], points, points + 3)
    assert torch.equal(before, hih_loss(integer, decimal, moved, weights, settings).total)


def test_weights_scale_gradients():
    integer, decimal, points, weights = example()
    hih_loss(integer, decimal, points, weights, LossSettings()).total.backward()
    halved = integer.grad[1, -1, 3].clone()
    integer.grad = decimal.grad = None
    weights = weights.clone()
    weights[1, 3] = 1
    hih_loss(integer, decimal, points, weights, LossSettings()).total.backward()
    torch.testing.assert_close(2 * halved, integer.grad[1, -1, 3])


def test_pieces_of_a_batch_add_up():
    integer, decimal, points, weights = example()
    settings = LossSettings(temperature=0.1, gate=4.0, expectation=0.3)
    whole = hih_loss(integer, decimal, points, weights, settings).total
    count = float((weights > 0).sum()) / 3
    pieces = [
        hih_loss(integer[i : i + 1], decimal[i : i + 1], points[i : i + 1], weights[i : i + 1], settings, count).total
        for i in range(3)
    ]
    torch.testing.assert_close(torch.stack(pieces).mean(), whole)


def test_supervise_last_gives_earlier_stacks_no_gradient():
    integer, decimal, points, weights = example(stacks=3)
    hih_loss(integer, decimal, points, weights, LossSettings()).total.backward()
    assert (integer.grad[:, :-1] == 0).all()
    last = integer_loss(integer[:, -1], heatmaps.encode(points, (SIZE, SIZE)).integer, weights)
    integer.grad = None
    everything = hih_loss(integer, decimal, points, weights, LossSettings(supervise="all"))
    everything.total.backward()
    assert (integer.grad[0].abs().amax((-2, -1)) > 0).all()
    assert everything.parts["integer"] > last


def test_temperature_sharpens_the_decimal_signal():
    """At the paper's temperature the target distribution is nearly uniform; so the recipes use another temperature."""
    target = heatmaps.encode(torch.tensor([[5.3, 7.8]]), (SIZE, SIZE), CELLS).decimal
    signal = []
    for temperature in (1.0, 0.1):
        maps = torch.zeros(1, CELLS, CELLS, requires_grad=True)
        csc_loss(maps, target, torch.ones(1), temperature).backward()
        signal.append(maps.grad.abs().max().item())
    assert signal[1] > 15 * signal[0]


def test_hard_labels_are_one_hot():
    target = heatmaps.encode(torch.tensor([[5.3, 7.8], [2.5, 2.5]]), (SIZE, SIZE), CELLS).decimal
    hard = one_hot(target)
    assert (hard.sum((-2, -1)) == 1).all()
    assert hard[0, 6, 2] == 1
    assert hard[1, 4, 4] == 1


def test_gate_takes_decimal_loss_only_near_the_integer_label():
    points = torch.tensor([[[5.9, 7.1], [5.9, 7.1], [5.9, 7.1]]])
    integer = torch.zeros(1, 1, 3, SIZE, SIZE)
    for k, (x, y) in enumerate([(5, 7), (6, 8), (7, 7)]):
        integer[0, 0, k, y, x] = 1
    assert near(integer[:, -1], points, 1).tolist() == [[True, True, False]]
    decimal = torch.zeros(1, 3, CELLS, CELLS, requires_grad=True)
    hih_loss(integer, decimal, points, torch.ones(1, 3), LossSettings(gate=1.0)).total.backward()
    assert (decimal.grad.abs().amax((-2, -1)) > 0).tolist() == [[True, True, False]]


def test_expectation_loss_moves_the_decoded_point():
    integer, decimal, points, _ = example(stacks=1)
    settings = LossSettings(decimal="none", expectation=1.0)

    def distance() -> float:
        with torch.no_grad():
            decoded = heatmaps.decode(integer[:, -1], decimal, settings.decoder)
        return (decoded - points).norm(dim=-1).median().item()

    before = distance()
    optimizer = torch.optim.Adam([integer, decimal], 0.05)
    for _ in range(40):
        loss = hih_loss(integer, decimal, points, torch.ones(3, K), settings)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert distance() < 0.3 * before
    assert (decimal.grad != 0).any()


def test_without_decimals_the_expectation_loss_moves_the_centroid_to_the_pixel():
    integer, _, points, _ = example(stacks=1)
    settings = LossSettings(expectation=1.0)

    def distance() -> float:
        with torch.no_grad():
            found = heatmaps.centroid(integer[:, -1], settings.decoder.radius, settings.decoder.power)
        return (found - points.floor()).norm(dim=-1).median().item()

    before = distance()
    optimizer = torch.optim.Adam([integer], 0.05)
    for _ in range(40):
        loss = hih_loss(integer, None, points, torch.ones(3, K), settings)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert distance() < 0.3 * before
    assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()), rel=1e-5)


def test_expectation_loss_by_hand():
    predicted, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.1, 4.0]])
    # within beta: 0.5 * 0.1^2 / 0.25; beyond beta: 2 - 0.125
    assert expectation_loss(predicted, target, torch.ones(1)).item() == pytest.approx((0.02 + 1.875) / 2)


def test_without_labels_the_loss_is_zero():
    integer, decimal, points, _ = example()
    loss = hih_loss(integer, decimal, points, torch.zeros(3, K), LossSettings(expectation=1.0)).total
    loss.backward()
    assert loss == 0
    assert (integer.grad == 0).all()


@pytest.mark.parametrize(
    "values", [{"supervise": "first"}, {"decimal": "kl"}, {"temperature": 0.0}, {"alpha": -1.0}, {"gate": -1.0}]
)
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        LossSettings(**values)
