"""Facial landmarks at subpixel accuracy: Heatmap in Heatmap (arXiv 2104.03100)."""

from typing import TYPE_CHECKING, Any

from . import _moved
from .aligner import FaceAligner, Heatmaps
from .detection import Detections, FaceDetector
from .hub.config import CheckpointError, Config
from .hub.download import WeightsUnavailableError
from .landmarks import Landmarks
from .method.decoder import Decoder
from .schemes import SCHEMES, Scheme, load_scheme
from .tracking import FaceTracker

__version__ = "0.2.0"

__all__ = [
    "SCHEMES",
    "CheckpointError",
    "Config",
    "Decoder",
    "Detections",
    "FaceAligner",
    "FaceDetector",
    "FaceTracker",
    "HIHNet",
    "Heatmaps",
    "Landmarks",
    "Scheme",
    "WeightsUnavailableError",
    "load_scheme",
    "metrics",
]

_moved.install()

if TYPE_CHECKING:
    from .evaluation import metrics
    from .method.network import HIHNet


def __getattr__(name: str) -> Any:
    if name == "metrics":  # aligning does not need the evaluation room
        from .evaluation import metrics

        return metrics
    if name == "HIHNet":  # and who runs an exported file needs no PyTorch
        from .method.network import HIHNet

        return HIHNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
