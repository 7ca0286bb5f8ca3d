"""Whether a network is still what it was, asked before every call: by identities and counters, never by values."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

_version = attrgetter("_version")


class Watch:
    """A network as it is now.

    What is compared: the modules, their parameters and buffers, where each tensor lies, and PyTorch's count of writes
    to it. All loops are C's: a walk through the modules of HIH_T takes a millisecond, this a tenth of it.
    """

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        self._children = [module._modules for module in modules]
        self._tables: list[dict[str, Any]] = [t for m in modules for t in (m._parameters, m._buffers)]
        self._modules = self._found(self._children)
        self._tensors = self._found(self._tables)
        present: list[Tensor] = [tensor for tensor in self._tensors if tensor is not None]
        self._present = present
        self._counted = [tensor for tensor in present if not tensor.is_inference()]
        self._state = self._now()

    def changed(self) -> bool:
        return (
            not _same(self._found(self._children), self._modules)
            or not _same(self._found(self._tables), self._tensors)
            or self._now() != self._state
        )

    def _now(self) -> tuple[list[int], list[int]]:
        return list(map(Tensor.data_ptr, self._present)), list(map(_version, self._counted))

    @staticmethod
    def _found(tables: list[dict[str, Any]]) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, tables)))


def _same(these: list[Any], those: list[Any]) -> bool:
    return list(map(id, these)) == list(map(id, those))  # tensors compare by value
