"""Losses that are still being copied from the GPU. Reading them at once would make the GPU wait."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sampling import Indices


class Pending(NamedTuple):
    """A step whose losses have not been read yet.

    Attributes:
        values: (L,) on the CPU; valid after the event ``copied``.
        copied: the event of the GPU that ends the copy; None if the values come from the CPU.
        names: names of the losses.
        rows: numbers of the step's faces.
        epoch, step: the epoch in the run, and the step in the epoch.
    """

    values: Tensor
    copied: torch.cuda.Event | None
    names: list[str]
    rows: Indices
    epoch: int
    step: int

    @classmethod
    def sent(cls, values: Tensor, names: list[str], rows: Indices, epoch: int, step: int) -> Pending:
        """Start the copy of the values. They are read one step later, when the copy has ended."""
        copied = None
        if values.is_cuda:
            values, copied = values.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        return cls(values, copied, names, rows, epoch, step)

    def arrived(self) -> list[float]:
        """The values. The call waits until the copy has ended."""
        if self.copied is not None:
            self.copied.synchronize()
        return [float(value) for value in self.values.tolist()]
