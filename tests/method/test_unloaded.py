"""Networks without values: each one is loaded alone, and the caller's settings have no effect on it."""

from __future__ import annotations

import pytest
import torch

from hih_align.method.network import HIHNet
from hih_align.method.unloaded import unloaded

TINY = (1, 4, 0.125, 64, 128)


def test_each_network_is_loaded_alone() -> None:
    """The second network is a copy of the same one, which stays without values."""
    torch.manual_seed(1)
    states = [HIHNet(3, *TINY).state_dict() for _ in range(2)]
    networks = [unloaded(3, *TINY) for _ in states]
    assert all(tensor.is_meta for network in networks for tensor in network.state_dict().values())
    for network, state in zip(networks, states, strict=True):
        network.load_state_dict(state, assign=True)
    for network, state in zip(networks, states, strict=True):
        found = network.state_dict()
        assert list(found) == list(state)
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(tensor.is_meta for tensor in unloaded(3, *TINY).state_dict().values())
    networks[0].eval().trunk.stacks[0].predict = torch.nn.Identity()
    assert networks[1].training
    assert unloaded(3, *TINY).size == networks[1].size
    assert isinstance(networks[1].trunk.stacks[0].predict, torch.nn.Conv2d)


def test_it_computes_what_a_network_computes() -> None:
    torch.manual_seed(2)
    known = HIHNet(3, *TINY).eval()
    network = unloaded(3, *TINY)
    network.load_state_dict(known.state_dict(), assign=True)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        for found, expected in zip(network.eval()(images), known(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_callers_settings_have_no_effect() -> None:
    """The caller's random numbers do not change. The first network of a size is built under the caller's settings."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("cpu"):
            network = unloaded(5, *TINY)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {t.dtype for t in network.state_dict().values() if t.is_floating_point()} == {torch.float32}
    assert not any(tensor.is_inference() for tensor in network.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="landmarks is 0, expected at least 1"):
        unloaded(0, *TINY)
