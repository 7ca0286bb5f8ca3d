from __future__ import annotations

from functools import partial

import pytest
import torch
from made_faces import lines, small

from hih_align.method import heatmaps
from hih_align.method.decoder import ARGMAX, Decoder
from hih_align.method.losses import LossSettings
from hih_align.method.network import HIHNet
from hih_align.method.sizes import Size
from hih_align.schemes import W300
from hih_align.training.learner import HIH, Output
from hih_align.training.sampling import Source
from hih_align.training.trainer import train
from hih_align.training.warmstart import Start, warm_start
from reproduction.rivals import (
    BASELINE_CHANNELS,
    Baseline,
    OffsetMap,
    OffsetValue,
    build,
    dark,
    load_rival,
    second_maximal,
)

K = 3
NARROW = Size(1, width=0.25)


def images(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["hih", "baseline", "wov", "wom"])
def test_rivals_train(name):
    torch.manual_seed(0)
    model = build(name, K, Size(1))
    output = model(images())
    assert output.integer.shape == (2, 1, K, 16, 16)
    points = torch.rand(2, K, 2) * 16
    weights = torch.ones(2, K)
    weights[1, 2] = 0
    loss = model.loss(output, points, weights, LossSettings(), None)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    # the output of the baseline's last fusion layer is not used
    idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(n.startswith("trunk.stacks.0.merge") for n in idle)
    assert not idle or name == "baseline"
    with torch.no_grad():
        decoded = model.decode(output, ARGMAX)
    assert decoded.shape == (2, K, 2)
    assert ((decoded >= -1) & (decoded <= 17)).all()


@pytest.mark.parametrize("name", ["hih", "wov", "wom"])
def test_missing_points_do_not_change_the_loss(name):
    torch.manual_seed(0)
    model = build(name, K, NARROW).eval()
    with torch.no_grad():
        output = model(images())
    points = torch.rand(2, K, 2) * 16
    weights = torch.ones(2, K)
    weights[0, 1] = 0
    wild = points.clone()
    wild[0, 1] = float("nan")
    losses = [model.loss(output, p, weights, LossSettings(), None).total for p in (points, wild)]
    assert torch.equal(*losses)
    assert torch.isfinite(losses[0])


@pytest.mark.parametrize("name", ["hih", "wov", "wom"])
def test_subpixel_head_can_be_left_out(name):
    torch.manual_seed(0)
    model = build(name, K, NARROW)
    output = model(images(), False)
    assert output.subpixel is None
    loss = model.loss(output, torch.rand(2, K, 2) * 16, torch.ones(2, K), LossSettings(), None)
    assert set(loss.parts) == {"integer"}
    loss.total.backward()
    assert all(p.grad is None for n, p in model.named_parameters() if "head" in n)
    with torch.no_grad():
        torch.testing.assert_close(model.decode(output, ARGMAX), heatmaps.peak(output.integer[:, -1]) + 0.5)


def test_hih_is_the_network_and_its_decoder():
    torch.manual_seed(0)
    network = HIHNet(K, 2, width=0.25).eval()
    model = HIH(network)
    with torch.no_grad():
        output = model(images(256))
        integer, decimal = network(images(256))
        assert torch.equal(output.integer, integer)
        assert torch.equal(output.subpixel, decimal)
        decoder = Decoder()
        assert torch.equal(model.decode(output, decoder), heatmaps.decode(integer[:, -1], decimal, decoder))


def test_hih_interpolates_decimal_maps_at_other_sizes():
    model = build("hih", K, Size(1)).eval()
    with torch.no_grad():
        assert model.network(images(128))[1].shape[-1] == 4
        assert model(images(128)).subpixel.shape == (2, K, 8, 8)


def test_baseline_has_280_channels_and_one_network_for_three_rules():
    torch.manual_seed(0)
    model = build("baseline", K, Size(1)).eval()
    assert isinstance(model, Baseline)
    assert model.trunk.stacks[0].predict.in_channels == BASELINE_CHANNELS == 280
    output = model(images())
    results = {}
    for rule in ("baseline", "wsm", "dark"):
        assert build(rule, K, Size(1)).state_dict().keys() == model.state_dict().keys()
        model.rule = rule
        results[rule] = model.decode(output, Decoder())
    top = heatmaps.peak(output.integer[:, -1])
    torch.testing.assert_close(results["baseline"], top + 0.5)
    assert set((results["wsm"] - top - 0.5).abs().unique().tolist()) <= {0.0, 0.25}
    assert not torch.equal(results["dark"], results["wsm"])


@pytest.mark.parametrize("name", ["baseline", "wov", "wom"])
def test_rivals_have_the_dimensions_of_their_size(name):
    narrow, wide = (build(name, K, Size(1, width=width, input_size=128)) for width in (0.25, 1.0))
    assert len(narrow.state_dict()) == len(wide.state_dict())
    assert narrow.trunk.stacks[0].predict.in_channels == (72 if name == "baseline" else 64)  # multiples of 8
    count = [sum(p.numel() for p in model.parameters()) for model in (narrow, wide)]
    assert count[0] < count[1] / 8
    if name == "wov":
        assert narrow.head[:-4](narrow.trunk(images(128))[1]).shape == (2, 96, 8, 8)


def test_second_maximal_moves_towards_the_larger_neighbour():
    maps = torch.zeros(2, 9, 9)
    maps[0, 4, 4], maps[0, 4, 5], maps[0, 3, 4] = 1, 0.5, 0.4
    maps[1, 0, 8] = 1  # at a corner there is no pair of neighbours to compare
    assert second_maximal(maps).tolist() == [[4.25, 3.75], [8.0, 0.0]]


@pytest.mark.parametrize("sigma", [1.5, 2.0])
def test_dark_finds_the_centre_of_a_gaussian(sigma):
    """DARK's Taylor step is exact for a Gaussian, and smoothing a Gaussian gives a Gaussian with the same centre."""
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 30 + 17
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    maps = torch.exp(
        -((x - points[:, 0, None, None]).square() + (y - points[:, 1, None, None]).square()) / (2 * sigma**2)
    )
    assert (dark(maps) - points).abs().max() < 0.02
    assert (heatmaps.peak(maps) - points).abs().max() > 0.4


def test_dark_does_not_move_at_a_border_or_on_flat_maps():
    maps = torch.zeros(2, 16, 16)
    maps[0, 0, 5] = 1
    assert dark(maps).tolist() == [[5.0, 0.0], [0.0, 0.0]]


def test_offset_map_is_read_at_the_landmarks_pixel():
    model = OffsetMap(2, Size(1))
    maps = torch.arange(2 * 4 * 5).float().reshape(1, 2, 4, 5)
    offsets = model.offsets(maps, torch.tensor([[[3.0, 2.0], [0.0, 1.0]]]))
    assert offsets.tolist() == [[[13.0, 33.0], [5.0, 25.0]]]


def test_correct_offset_values_have_no_loss():
    """A perfect head has an offset loss of 0, and its points are decoded exactly."""
    model = OffsetValue(2, Size(1))
    points = torch.tensor([[[3.25, 2.5], [10.75, 1.125]]])
    integer = heatmaps.encode(points, (16, 16)).integer[:, None]
    output = Output(integer, points - points.floor())
    loss = model.loss(output, points, torch.ones(1, 2), LossSettings(), None)
    assert loss.parts["offset"] == 0
    assert torch.equal(model.decode(output, ARGMAX), points)


def test_unknown_rival():
    with pytest.raises(ValueError, match="rival is 'softargmax'"):
        build("softargmax", K, Size(1))


def test_a_rival_is_trained_and_initializes_another(faces, tmp_path):
    recipe = small(stages=[{"epochs": 1, "size": 64, "batch": 3}])
    train(recipe, [Source(faces[0])], tmp_path / "first", progress=False, build=partial(build, "baseline"))
    start = load_rival(tmp_path / "first" / "best", "baseline")
    assert (start.stacks, start.landmarks, start.scheme) == (1, 4, faces[0].scheme)
    model = build("dark", 4, recipe.network(None))
    assert warm_start(model, start, faces[0].scheme).fresh == ()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start.network.parameters(), strict=True))
    options = {"init": start, "progress": False, "build": partial(build, "dark")}
    assert train(recipe, [Source(faces[0])], tmp_path / "second", **options).completed


def test_rivals_train_on_several_sources(faces, tmp_path):
    recipe = small(stages=[{"epochs": 1, "size": 64, "batch": 4}])
    sources = [Source(faces[0], 0.5), Source(faces[1], 2)]
    result = train(recipe, sources, tmp_path, progress=False, build=partial(build, "wov"))
    assert result.steps == 3  # batches of four from 3 + 6 faces
    assert "offset" in lines(tmp_path)[0]
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_stacks_of_another_width_are_not_copied():
    start = Start(HIHNet(68, 1), W300, "test")
    report = warm_start(build("baseline", 68, Size(2)), start, W300)  # 280 channels
    assert any("stacks.1" in name for name in report.fresh)
    assert report.copies == {}
