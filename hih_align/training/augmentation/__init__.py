"""Stored faces to network input: settings, random numbers, geometry, occluders, camera, and the call that runs them."""

from .augment import Batch, augment, donor_faces
from .dice import sample_seeds
from .settings import PRESETS, PROBABILITIES, Augmentation

__all__ = ["PRESETS", "PROBABILITIES", "Augmentation", "Batch", "augment", "donor_faces", "sample_seeds"]
