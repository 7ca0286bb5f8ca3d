"""Conversion of a round's best networks to float16. It does not need PyTorch, because its import takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from .parcel import replace


def halve(results: Path, halves: Path) -> None:
    """Write ``NETWORK/best`` of each network of a round below ``halves``, if it is newer than the file there.

    Raises:
        ValueError: a weight is too large for float16.
    """
    for weights in sorted(results.glob("*/best/model.safetensors")):
        target = halves / weights.relative_to(results)
        if target.is_file() and target.stat().st_mtime >= weights.stat().st_mtime:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with np.errstate(over="ignore"):  # overflow is an error below
            state = {
                name: value.astype(np.float16) if value.dtype.kind == "f" else value
                for name, value in safetensors.numpy.load(weights.read_bytes()).items()
            }
        for name, value in state.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"{weights}: {name} does not fit into float16")
        replace(target.with_name("config.json"), weights.with_name("config.json").read_bytes())
        replace(target, safetensors.numpy.save(state, metadata={"format": "pt"}))
