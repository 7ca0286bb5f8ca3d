"""The processes and the precision of a run, by Accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.precision import autocast_precision
from .recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(recipe: Recipe, rival: bool) -> Accelerator:
    """For a recipe; ``rival``: the network is not HIH, and may have layers that feed nothing."""
    from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import parse_flag_from_env

    precision = autocast_precision(recipe.precision, PartialState(parse_flag_from_env("ACCELERATE_USE_CPU")).device)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        # an earlier run of this process, or a program's own: accelerators that are alive keep the state that they have
        AcceleratorState._shared_state = {}
    # stages leave the head out; a rival may have layers that feed nothing
    unused = rival or not all(stage.subpixel for stage in recipe.stages)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=unused)]
    return Accelerator(mixed_precision=precision, kwargs_handlers=handlers)


def pieces(recipe: Recipe, accelerator: Accelerator) -> int:
    """In how many pieces a step's batch is computed: by each process as many as the recipe accumulates.

    Raises:
        ValueError: a stage's batch that does not divide into them.
    """
    world = accelerator.num_processes
    count = world * recipe.accumulate
    for i, stage in enumerate(recipe.stages):
        if stage.batch % count:
            raise ValueError(
                f"stages.{i}.batch is {stage.batch}, which {world} processes times accumulate {recipe.accumulate} "
                "do not divide"
            )
    return count
