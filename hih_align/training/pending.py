"""Losses of a step on their way from the GPU: to read them at once would stall it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .sampling import Indices


class Pending(NamedTuple):
    """A step whose losses have not been looked at yet.

    Attributes:
        values: (L,) on the CPU, once ``copied`` has happened on the GPU that they come from.
        copied: None where they have always been on the CPU.
        names: of the losses.
        rows: numbers of the step's faces.
        epoch, step: of the run, and of the epoch.
    """

    values: Tensor
    copied: torch.cuda.Event | None
    names: list[str]
    rows: Indices
    epoch: int
    step: int

    @classmethod
    def sent(cls, values: Tensor, names: list[str], rows: Indices, epoch: int, step: int) -> Pending:
        """Ask for the values; they are read a step later, when no step has to be waited for."""
        copied = None
        if values.is_cuda:
            values, copied = values.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        return cls(values, copied, names, rows, epoch, step)

    def arrived(self) -> list[float]:
        """The values, waited for if need be."""
        if self.copied is not None:
            self.copied.synchronize()
        return [float(value) for value in self.values.tolist()]
