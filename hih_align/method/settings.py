"""Protection against the caller's PyTorch settings (default device, autocast), which must not change our results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_torch(device: str = "cpu") -> Iterator[None]:
    """Switch off the caller's default device and autocast, for this thread and this block.

    Args:
        device: type of the device that computes.

    The default dtype is a setting of the whole process and cannot be changed for a block. So code states its dtypes.
    """
    with ExitStack() as settings:
        # only if it is needed: under a default device each operation passes through Python, a tenth of HIH_N's time.
        # `torch.get_default_device` does not know `with torch.device(...)` before PyTorch 2.8
        if torch.empty(0).device.type != "cpu":
            settings.enter_context(torch.device("cpu"))
        settings.enter_context(torch.autocast(device, enabled=False))
        yield
