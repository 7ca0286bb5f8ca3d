"""Following faces through a video: a face is found once, followed by its own points, and smoothed.

`tracker` holds the class for users, `FaceTracker`. `smoothing` holds the filter of a face's points.
"""

from .smoothing import OneEuro, Steady
from .tracker import FaceTracker

__all__ = ["FaceTracker", "OneEuro", "Steady"]
