"""PyTorch's settings of the process and thread, which a caller may have set and which must not reach our arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@contextmanager
def plain_torch(device: str = "cpu") -> Iterator[None]:
    """No default device and no autocast of the caller's, for this thread and this block alone.

    Args:
        device: type of the device that computes.

    The default dtype belongs to the process: it cannot be changed for a block, so code names its dtypes.
    """
    with torch.device("cpu"), torch.autocast(device, enabled=False):
        yield


def built(make: Callable[[], Net]) -> Net:
    """A network without values, to be loaded with ``assign=True``: neither the caller's random numbers nor default
    device or dtype have a part in it."""
    with torch.inference_mode(False), torch.device("meta"):
        return make().float()
