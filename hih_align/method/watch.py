"""Whether a network is still what it was, asked before every call: by identities and counters, never by values."""

from __future__ import annotations

from collections.abc import Iterator
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
        # tables that are empty stay out: two thirds of them
        self._children = [module._modules for module in modules if module._modules]
        self._tables: list[dict[str, Any]] = [t for m in modules for t in (m._parameters, m._buffers) if t]
        # held, so that no other object gets their identities
        self._found = [*_within(self._children), *_within(self._tables)]
        present = [found for found in self._found if isinstance(found, Tensor)]
        self._present: list[Tensor] = present
        self._counted = [tensor for tensor in present if not tensor.is_inference()]
        self._state = self._now()

    def changed(self) -> bool:
        """Whether anything of it is another than when this was made."""
        return self._now() != self._state

    def _now(self) -> tuple[list[int], list[int], list[int], list[int]]:
        return (
            list(map(id, _within(self._children))),
            list(map(id, _within(self._tables))),
            list(map(Tensor.data_ptr, self._present)),
            list(map(_version, self._counted)),
        )


def _within(tables: list[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, tables))
