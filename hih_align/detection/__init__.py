"""Face detection: YuNet, run by OpenCV in as many sizes and rotations as an image needs, or a detector of the user.

`detector` holds the class for users, `FaceDetector`. `scan` cuts an image into the parts that the network sees, and
merges the results. `yunet` finds and runs the network's file. `given` converts the results of any other detector.
"""

from .detector import Detections, FaceDetector

__all__ = ["Detections", "FaceDetector"]
