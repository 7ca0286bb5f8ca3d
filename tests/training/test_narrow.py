"""`training.narrow`: a narrow network is made from channels of a wide network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_faces import no_curve, small  # noqa: F401
from torch import nn

from hih_align.data.annotations import Dataset
from hih_align.hub.checkpoints import save_checkpoint
from hih_align.hub.config import Config
from hih_align.method.network import HIHNet
from hih_align.method.sizes import Size
from hih_align.training import narrow
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer

NARROW, WIDE = Size(2, 8, 0.125, 256, 128), Size(2, 8, 0.25, 256, 128)


def doubled(network: HIHNet) -> HIHNet:
    """A network that computes the same as ``network``, with each channel twice and each input weight halved."""
    wide = HIHNet(network.landmarks, *WIDE)
    state, narrow_state = {}, network.state_dict()
    for name, value in wide.state_dict().items():
        found = narrow_state[name]
        for axis, (ours, theirs) in enumerate(zip(found.shape, value.shape, strict=True)):
            if theirs == 2 * ours:
                found = found.repeat_interleave(2, axis) / (2 if axis == 1 else 1)
        state[name] = found
    wide.load_state_dict(state)
    return wide.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(6, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_one_of_two_equal_channels_is_kept(images: torch.Tensor) -> None:
    """The narrow network then computes the same as the wide network. Taking the first channels does not."""
    torch.manual_seed(0)
    small_one = HIHNet(3, *NARROW)
    for module in small_one.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    narrow.measure_statistics(small_one, images)
    wide = doubled(small_one.eval())
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    with torch.inference_mode():
        expected = small_one(images)
        for got, there in zip(wide(images), expected, strict=True):
            torch.testing.assert_close(got, there, rtol=1e-3, atol=1e-3)
    found = narrow.narrowed(wide, NARROW, images)
    assert found.size == NARROW
    assert not found.training
    assert all(torch.equal(value, before[name]) for name, value in wide.state_dict().items())
    with torch.inference_mode():
        for got, there in zip(found(images), expected, strict=True):
            assert (got - there).std() < 0.05 * there.std()
    blind = HIHNet(3, *NARROW)
    with torch.no_grad():
        for name, value in blind.state_dict().items():
            value.copy_(before[name][tuple(slice(0, n) for n in value.shape)])
    narrow.measure_statistics(blind, images)
    with torch.inference_mode():
        for got, there in zip(blind.eval()(images), expected, strict=True):
            assert (got - there).std() > 0.2 * there.std()


def test_pivots_explain_most_variance() -> None:
    """The channels are a constant, x, x with noise, and y.

    With x chosen, its noisy copy adds little, and the constant adds nothing.
    """
    generator = torch.Generator().manual_seed(0)
    x, y, noise = torch.randn(3, 5000, generator=generator, dtype=torch.float64)
    covariance = torch.cov(torch.stack((torch.full_like(x, 7.0), x, x + 0.1 * noise, 0.5 * y)))
    assert narrow.pivots(covariance, 2).tolist() in ([1, 3], [2, 3])
    assert narrow.pivots(covariance, 3).tolist() == [1, 2, 3]
    assert narrow.pivots(covariance, 4).tolist() == [0, 1, 2, 3]


def test_which_sizes_are_narrower() -> None:
    assert narrow.is_wider(Size(1), Size(1, width=0.5))
    assert narrow.is_wider(Size(1), Size(1, head_channels=256))
    assert not narrow.is_wider(Size(1), Size(1))
    assert not narrow.is_wider(Size(1), Size(1, input_size=128))
    assert not narrow.is_wider(Size(1), Size(1, width=0.5, head_channels=1024))  # the head is wider
    network = HIHNet(2, 1, width=0.125)
    with pytest.raises(ValueError, match=r"size is .*expected a narrower size"):
        narrow.narrowed(network, Size(1, width=0.25), torch.zeros(1, 3, 128, 128))
    with pytest.raises(ValueError, match="as many stacks"):
        narrow.narrowed(network, Size(2, width=0.0625), torch.zeros(1, 3, 128, 128))


def test_training_starts_from_the_channels_of_a_wider_network(faces: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    """The run takes over all tensors, also the statistics. Without narrowing, no tensor would have the right shape."""
    torch.manual_seed(0)
    size = WIDE._replace(stacks=1)
    save_checkpoint(tmp_path / "wide", HIHNet(4, *size), Config(faces[0].scheme, **size._asdict()))
    stages = [{"epochs": 1, "batch": 2}]
    recipe = small(width=0.125, head_channels=256, input_size=128, size="T", stages=stages)
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path / "run", init=tmp_path / "wide", progress=False)
    assert trainer.size == NARROW._replace(stacks=1)
    start = trainer.warm_start
    assert start is not None
    assert not start.fresh
    assert not start.unused
    assert trainer.config.size == trainer.size
    # a stage without a size has the network's input size
    assert [stage.size for stage in trainer.recipe.stages] == [128]
