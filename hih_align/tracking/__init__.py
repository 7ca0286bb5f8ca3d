"""Following faces through a video: a face is found once, followed by its own points, and smoothed.

`tracker` holds the class for users, `FaceTracker`. `smoothing` holds the filter of a face's points. `motion`
measures how a face moved between two frames, from their pixels.
"""

from .smoothing import Smoothing
from .tracker import FaceTracker

__all__ = ["FaceTracker", "Smoothing"]
