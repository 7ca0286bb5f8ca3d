"""Where faces are: YuNet by OpenCV in as many sizes and turns as an image needs, or any detector of the user's.

`detector` is what users hold; `scan` cuts an image into what the network looks at, and merges what it finds; `yunet`
finds the network's file and runs it; `given` takes what any other detector returns.
"""

from .detector import Detections, FaceDetector

__all__ = ["Detections", "FaceDetector"]
