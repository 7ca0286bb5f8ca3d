"""Conversion of a round's networks to float16. It does not need PyTorch, because its import takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import safetensors.numpy

from .parcel import replace


def halve(results: Path, halves: Path) -> list[str]:
    """Write ``NETWORK/best`` and ``NETWORK/last`` of each network below ``halves``, unless they are there already.

    A converted file has the time of its source. A training may replace the source at any moment, also while it is
    converted; then the next call converts the new one.

    Returns:
        an error for each network with a weight that is too large for float16. It is not written.
    """
    errors = []
    for weights in sorted(path for name in ("best", "last") for path in results.glob(f"*/{name}/model.safetensors")):
        target = halves / weights.relative_to(results)
        about = weights.stat()
        if target.is_file() and target.stat().st_mtime_ns == about.st_mtime_ns:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with np.errstate(over="ignore"):  # overflow is an error below
            state = {
                name: value.astype(np.float16) if value.dtype.kind == "f" else value
                for name, value in safetensors.numpy.load(weights.read_bytes()).items()
            }
        large = [name for name, value in state.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
        if large:
            errors.append(f"{weights.relative_to(results)}: {', '.join(large[:3])} does not fit into float16")
            continue
        replace(target.with_name("config.json"), weights.with_name("config.json").read_bytes())
        replace(target, safetensors.numpy.save(state, metadata={"format": "pt"}))
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))
    return errors
