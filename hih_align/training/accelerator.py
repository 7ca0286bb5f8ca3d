"""The Accelerate object of a run: its processes and its precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..runtime.precision import autocast_precision
from .recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(recipe: Recipe, rival: bool) -> Accelerator:
    """The accelerator for a recipe. ``rival``: the network is not HIH and may have layers that feed nothing.

    Raises:
        ImportError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
        from accelerate.state import AcceleratorState
        from accelerate.utils import parse_flag_from_env
    except ImportError as error:
        raise ImportError(f"training needs accelerate: pip install 'hih-align[train]' ({error})") from error

    # Apple's GPUs have no float64, which a matched start needs; `FaceAligner` uses the CPU there, too
    apple = torch.backends.mps.is_available() and not torch.cuda.is_available()
    precision = autocast_precision(
        recipe.precision, str(PartialState(apple or parse_flag_from_env("ACCELERATE_USE_CPU")).device)
    )
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        # set by an earlier run of this process, or by the program: accelerators that exist keep the old state
        AcceleratorState._shared_state = {}
    # stages may leave out the subpixel head; a rival may have layers that feed nothing
    unused = rival or not all(stage.subpixel for stage in recipe.stages)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=unused)]
    return Accelerator(cpu=apple, mixed_precision=precision, kwargs_handlers=handlers)


def share_of(limit: int, accelerator: Accelerator) -> int:
    """The part of ``limit`` bytes on a device that this process may take. On the CPU all processes share the memory."""
    return limit // accelerator.num_processes if accelerator.device.type == "cpu" else limit


def pieces(recipe: Recipe, accelerator: Accelerator) -> int:
    """The number of pieces of a step's batch: processes times the recipe's accumulated pieces.

    Raises:
        ValueError: the batch of a stage cannot be divided into so many equal pieces; or the recipe has ``seconds``, and
            there are several processes.
    """
    world = accelerator.num_processes
    if recipe.seconds is not None and world > 1:
        raise ValueError(f"seconds is {recipe.seconds:g} with {world} processes, expected one process")
    count = world * recipe.accumulate
    for i, stage in enumerate(recipe.stages):
        if stage.batch % count:
            raise ValueError(
                f"stages.{i}.batch is {stage.batch}, expected a multiple of {count}: {world} processes times "
                f"accumulate {recipe.accumulate}"
            )
    return count
