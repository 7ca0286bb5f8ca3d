"""`network`: its sizes, the shapes of its outputs, and that each weight has an effect."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hih_align.method.network import HIHNet, Unit, down_steps
from hih_align.method.sizes import SIZES, Size


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(landmarks: int, stacks: int, decimal_size: int = 8) -> HIHNet:
    torch.manual_seed(0)
    return HIHNet(landmarks, stacks, decimal_size, width=0.25).eval()  # a sixteenth of the work


#: The same network for all tests that do not change it.
unchanged = cache(network)


@pytest.mark.parametrize(("size", "millions"), [("HIH_T", 10.37), ("HIH_S", 14.47), ("HIH_B", 22.68)])
def test_parameter_count_is_that_of_the_paper(size: str, millions: float) -> None:
    """The authors' count includes shortcut layers that their network stores and never uses.

    Each residual block whose input and output have equal width has one: one of 128 channels in the stem, and 14 of 256
    channels in each stack (13 in the hourglass, one after it).
    """
    stacks = SIZES[size].stacks
    with torch.device("meta"):
        ours = sum(p.numel() for p in HIHNet(98, *SIZES[size]).parameters())

    def shortcut(channels: int) -> int:
        return channels**2 + 2 * channels

    assert round((ours + shortcut(128) + 14 * stacks * shortcut(256)) / 1e6, 2) == millions


def test_sizes() -> None:
    assert {name: size.stacks for name, size in SIZES.items()} == {"HIH_N": 1, "HIH_T": 1, "HIH_S": 2, "HIH_B": 4}
    for name in ("HIH_T", "HIH_S", "HIH_B"):  # the paper's sizes
        assert SIZES[name] == (SIZES[name].stacks, 8, 1.0, 384, 256)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_size_builds_its_network_and_is_read_back_from_it(size: Size) -> None:
    with torch.device("meta"):
        net = HIHNet(5, *size)
    assert net.size == size


def test_hih_n_has_a_tenth_of_hih_ts_work() -> None:
    def work(name: str) -> int:
        side = SIZES[name].input_size
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            net = HIHNet(68, *SIZES[name]).eval()
            for module in net.modules():
                if isinstance(module, Unit):
                    module.bn = nn.Identity()  # it does not count, and takes most of the time of this device
            net.predict(torch.empty(1, 3, side, side))
        return int(counter.get_total_flops())

    assert work("HIH_T") == pytest.approx(2 * 6.855e9, rel=1e-3)  # the value from before networks had a width
    assert work("HIH_N") < work("HIH_T") / 10


@pytest.mark.parametrize("width", [0.1, 0.3, 0.5, 0.75, 1.0, 1.5])
def test_width_scales_every_channel_count(width: float) -> None:
    with torch.device("meta"):
        plain, net = HIHNet(5, 2), HIHNet(5, 2, width=width)
    scaled = net.state_dict()
    for name, value in plain.state_dict().items():
        for count, other in zip(value.shape, scaled[name].shape, strict=True):
            if count < 32:  # kernel sizes, image channels, landmarks
                assert other == count
            else:
                assert abs(other - count * width) <= 8
                assert (
                    other % 4 == 0
                )  # a bottleneck has half the channels of its block, whose number is a multiple of 8


@pytest.mark.parametrize(("input_size", "decimal_size", "steps"), [(128, 8, 1), (128, 4, 2), (256, 8, 2), (512, 16, 2)])
def test_the_decimal_head_fits_the_input(input_size: int, decimal_size: int, steps: int) -> None:
    net = HIHNet(3, 1, decimal_size, 0.25, 96, input_size).eval()
    assert len(net.decimal_head.down) == down_steps(decimal_size, input_size) == steps
    assert net.decimal_head.squeeze.conv.out_channels == 24
    with torch.inference_mode():
        assert net(noise(1, 3, input_size, input_size))[1].shape == (1, 3, decimal_size, decimal_size)


# an input of 256 px: the shapes that the paper gives


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_shapes(stacks: int) -> None:
    net = unchanged(5, stacks)
    assert net.stacks == stacks
    with torch.inference_mode():
        integer, decimal = net(noise(1, 3, 256, 256))
    assert integer.shape == (1, stacks, 5, 64, 64)
    assert decimal.shape == (1, 5, 8, 8)


@pytest.mark.parametrize("decimal_size", [4, 8, 16])
def test_decimal_sizes(decimal_size: int) -> None:
    net = unchanged(3, 1, decimal_size)
    assert net.decimal_size == decimal_size
    assert len(net.decimal_head.down) == {4: 3, 8: 2, 16: 1}[decimal_size]
    with torch.inference_mode():
        assert net(noise(1, 3, 256, 256))[1].shape == (1, 3, decimal_size, decimal_size)


@pytest.mark.parametrize("landmarks", [1, 5, 29, 68, 98, 468])
def test_any_number_of_landmarks(landmarks: int) -> None:
    net = network(landmarks, 2)
    assert net.landmarks == landmarks
    with torch.inference_mode():
        integer, decimal = net(noise(2, 3, 64, 64))
    assert integer.shape == (2, 2, landmarks, 16, 16)
    assert decimal.shape[:2] == (2, landmarks)


@pytest.mark.parametrize("decimal_size", [4, 8, 16])
@pytest.mark.parametrize(("h", "w"), [(64, 64), (128, 128), (192, 192), (64, 256), (192, 128), (320, 64)])
def test_any_multiple_of_64(h: int, w: int, decimal_size: int) -> None:
    """Integer maps have a quarter of the input size.

    Decimal maps grow in proportion to their size at 256 px, as nearly as the rounding of strides allows.
    """
    net = unchanged(2, 1, decimal_size)
    with torch.inference_mode():
        integer, decimal = net(noise(1, 3, h, w))
    assert integer.shape == (1, 1, 2, h // 4, w // 4)
    assert decimal.shape == (1, 2, decimal_size * h // 256, decimal_size * w // 256)


# outputs


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_predict_is_the_last_stack(stacks: int) -> None:
    net = unchanged(4, stacks)
    images = noise(2, 3, 64, 128)
    with torch.inference_mode():
        integer, decimal = net(images)
        last, same = net.predict(images)
    assert torch.equal(last, integer[:, -1])
    assert torch.equal(same, decimal)
    assert last.shape == (2, 4, 16, 32)


def test_stacks_come_in_order() -> None:
    """A stack's maps depend on the weights of this stack and earlier stacks, and on no later stack's weights."""
    net = network(4, 3)
    images = noise(1, 3, 64, 64)
    with torch.inference_mode():
        before = net(images)[0]
        for index in reversed(range(3)):
            predict = net.trunk.stacks[index].predict
            assert isinstance(predict, nn.Conv2d)
            predict.bias.add_(1)  # type: ignore[union-attr]
            after = net(images)[0]
            changed = [not torch.equal(after[:, i], before[:, i]) for i in range(3)]
            assert changed == [i >= index for i in range(3)]
            predict.bias.sub_(1)  # type: ignore[union-attr]
            before = net(images)[0]


def test_faces_of_a_batch_do_not_mix() -> None:
    net = unchanged(4, 2)
    images = noise(3, 3, 64, 128)
    with torch.inference_mode():
        whole = net(images)
        for i in range(3):
            for a, b in zip(net(images[i : i + 1]), whole, strict=True):
                torch.testing.assert_close(a[0], b[i], rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        assert net(images[:0])[0].shape == (0, 2, 4, 16, 32)


@pytest.mark.parametrize(
    ("stacks", "decimal_size"), [(1, 4), (2, 16), (4, 8)]
)  # the head does not depend on the stacks
def test_no_dead_parameters(stacks: int, decimal_size: int) -> None:
    net = network(3, stacks, decimal_size)
    integer, decimal = net(noise(1, 3, 128, 128))
    ((integer * noise(*integer.shape, seed=1)).sum() + (decimal * noise(*decimal.shape, seed=2)).sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_every_module_runs() -> None:
    net = network(3, 2)
    idle = {name for name, module in net.named_modules() if not list(module.children())}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: idle.discard(name))
    with torch.inference_mode():
        net.predict(noise(1, 3, 64, 64))
    assert not idle


def test_a_few_training_steps_reduce_the_loss() -> None:
    """In training mode, a few steps on two images reduce the loss and change the running statistics."""
    net = network(2, 1).train()
    images, target = noise(2, 3, 64, 64), torch.zeros(2, 1, 2, 16, 16)
    target[..., 5, 9] = 1
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        integer, decimal = net(images)
        loss = (integer - target).square().mean() + decimal.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert all(value.any() for name, value in net.named_buffers() if name.endswith("running_mean"))


def test_channels_last() -> None:
    net, images = network(4, 2), noise(2, 3, 64, 128)
    with torch.inference_mode():
        expected = net(images)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for a, b in zip(net(images.contiguous(memory_format=torch.channels_last)), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_stays_on_its_device() -> None:
    with torch.device("meta"):
        net = HIHNet(3, 1).eval()
    integer, decimal = net(torch.zeros(1, 3, 64, 64, device="meta"))
    assert integer.device.type == decimal.device.type == "meta"


# bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 8), "landmarks is 0, expected at least 1"),
        ((-3, 1, 8), "landmarks is -3"),
        ((68, 0, 8), "stacks is 0, expected at least 1"),
        ((68, 1, 5), r"decimal_size is 5, expected one of \[4, 8, 16\]"),
        ((68, 1, 32), "decimal_size is 32"),
        ((68, 1, 8, 0.0), "width is 0.0, expected more than 0"),
        ((68, 1, 8, float("nan")), "width is nan"),
        ((68, 1, 8, 1.0, 0), "head_channels is 0"),
        ((68, 1, 8, 1.0, 384, 192), "input_size is 192, expected 128, 256 or 512"),
        ((68, 1, 16, 1.0, 384, 128), "input_size is 128, .*16 times decimal_size 16"),
    ],
)
def test_refuses_sizes(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HIHNet(*arguments)


@pytest.mark.parametrize(
    "shape",
    [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 64, 64, 3), (1, 3, 65, 64), (1, 3, 64, 96), (1, 3, 32, 64)],
)
def test_refuses_images(shape: tuple[int, ...]) -> None:
    net = unchanged(2, 1)
    for call in (net, net.predict):
        with pytest.raises(ValueError, match=r"^images has shape .* multiples of 64"):
            call(torch.zeros(shape))
