"""A One-Euro filter of points (Casiez, Roussel and Vogel, CHI 2012), as programs for video use it.

`benchmarks/video.py` compares the filter of `hih_align.tracking` with it. The cut-off of the low-pass filter grows with
speed: ``cutoff + beta * speed``, with speeds in sizes of the face a second. The defaults are from cut-offs of 0.3, 1
and 3 and betas of 1, 3, 10 and 30: they have the lowest NME on moving faces of ``300w_val`` at a cut-off of 1. A lower
beta is steadier, and late.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hih_align.tracking.smoothing import share


def one_euro(
    points: NDArray[np.float64], seconds: float, cutoff: float = 1.0, beta: float = 30.0, speed_cutoff: float = 1.0
) -> NDArray[np.float64]:
    """Filter the points of a video.

    Args:
        points: (F, K, 2) in pixels; NaN where the face was not found. The filter starts anew after such a frame.
        seconds: time between two frames.
        cutoff: cut-off at rest in Hz.
        beta: growth of the cut-off with speed, in Hz per size of the face per second.
        speed_cutoff: cut-off of the speed in Hz.

    Returns:
        (F, K, 2) the smoothed points.
    """
    smooth = np.full_like(points, np.nan)
    for frame, found in enumerate(points):
        if frame == 0 or not np.isfinite(smooth[frame - 1]).all() or not np.isfinite(found).all():
            smooth[frame], speed = found, np.zeros_like(found)
            continue
        size = np.sqrt(((found - found.mean(0)) ** 2).sum(1).mean())
        speed += share(speed_cutoff, seconds) * ((found - points[frame - 1]) / seconds / size - speed)
        now = cutoff + beta * np.linalg.norm(speed, axis=1, keepdims=True)
        smooth[frame] = smooth[frame - 1] + share(now, seconds) * (found - smooth[frame - 1])
    return smooth
