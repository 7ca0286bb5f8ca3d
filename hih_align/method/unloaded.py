"""Networks without values, into which a file is loaded, and copies of networks.

A network has hundreds of modules. PyTorch takes much longer to build them than to copy them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from .network import HIHNet


def unloaded(landmarks: int, *size: Any) -> HIHNet:
    """``HIHNet(landmarks, *size)`` without values, to be loaded with ``assign=True``.

    The caller's random numbers, default device and default dtype have no effect on it.

    Raises:
        ValueError: as `HIHNet`.
    """
    network: HIHNet = _copied(_built(landmarks, *size))
    return network


@lru_cache(maxsize=16)
def _built(landmarks: int, *size: Any) -> HIHNet:
    with torch.inference_mode(False), torch.device("meta"):
        return HIHNet(landmarks, *size).float()


def _copied(module: nn.Module) -> Any:
    return with_parts(module, _copied, lambda tensor: tensor)


def with_parts(
    module: nn.Module, child: Callable[[nn.Module], nn.Module], value: Callable[[Tensor], Tensor]
) -> nn.Module:
    """A copy of a module whose modules and tensors are replaced.

    `copy.deepcopy` looks at each entry of the tables of hundreds of modules, which takes twice as long.

    Args:
        module: the module. It is not changed.
        child: gives the module for each module in ``module``.
        value: gives the tensor for each parameter and each buffer of ``module`` itself.
    """
    result = object.__new__(type(module))  # `copy.copy` refuses modules with parametrizations
    tables = {name: table.copy() for name, table in vars(module).items() if isinstance(table, dict)}
    tables["_modules"] = {n: None if m is None else child(m) for n, m in module._modules.items()}
    for kind in ("_parameters", "_buffers"):
        tables[kind] = {name: None if t is None else value(t) for name, t in tables[kind].items()}
    vars(result).update({**vars(module), **tables})
    return result
