"""Facial landmarks at subpixel accuracy: Heatmap in Heatmap (arXiv 2104.03100)."""

from .aligner import FaceAligner, Heatmaps
from .evaluation import metrics
from .hub.checkpoints import CheckpointError, Config, WeightsUnavailableError
from .landmarks import Landmarks
from .method.heatmaps import Decoder
from .method.network import HIHNet
from .schemes import SCHEMES, Scheme, load_scheme

__version__ = "0.1.0"

__all__ = [
    "SCHEMES",
    "CheckpointError",
    "Config",
    "Decoder",
    "FaceAligner",
    "HIHNet",
    "Heatmaps",
    "Landmarks",
    "Scheme",
    "WeightsUnavailableError",
    "load_scheme",
    "metrics",
]
