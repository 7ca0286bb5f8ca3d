"""Augmentation: from stored faces to network input. Settings, random numbers, geometry, occluders and camera."""

from .augment import Batch, augment, donor_faces
from .dice import sample_seeds
from .settings import PRESETS, PROBABILITIES, Augmentation

__all__ = ["PRESETS", "PROBABILITIES", "Augmentation", "Batch", "augment", "donor_faces", "sample_seeds"]
