"""Faces followed through a video: found once, followed by their own points, and steady.

`tracker` is what users hold; `smoothing` is the filter of a face's points.
"""

from .smoothing import OneEuro, Steady
from .tracker import FaceTracker

__all__ = ["FaceTracker", "OneEuro", "Steady"]
