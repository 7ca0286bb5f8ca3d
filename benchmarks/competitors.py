"""Other programs that find 68 points in an image and a box, for `worker.py`.

Each program runs as its own users run it, in an interpreter that has it. Only FAN-4 needs hih_align, for its crop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

#: A competitor as a function: image (H, W, 3) uint8 RGB and boxes (N, 4) -> for each box the points (68, 2) in pixels
#: of the image, or None if it finds no face.
Find = Callable[[Any, Any], list[Any]]

#: Follows the face of one video: image (H, W, 3) uint8 RGB of the next frame -> points (68, 2), or None.
Follow = Callable[[Any], Any]

#: MediaPipe's detector sees a square of this many times the longer side of the box. Of 1.25, 1.5, 1.75 and 2 this value
#: gives the lowest NME on 300w_val.
MARGIN = 1.5

#: The 68 of the 468 points of Face Mesh that lie nearest to iBUG's 68 points, in their order.
MESH = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107),  # brows
    *(336, 296, 334, 293, 301),
    *(168, 197, 5, 4),  # nose
    *(75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144),  # eyes
    *(362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips
    *(78, 82, 13, 312, 308, 317, 14, 87),
)

#: dlib's predictor was trained on boxes of dlib's own detector, which are squares. On the faces of 300w_val that this
#: detector finds (200 of 210), its square has this side, and its centre lies this much higher, in shares of the longer
#: side of the annotated box (medians). The x of the centre is the same.
SQUARE_SIDE, SQUARE_UP = 1.08, 0.08

FACES_AT_ONCE = 32  # as in `FaceAligner.align`


def fan4(threads: int) -> Find:
    """The four-stack FAN of the package face-alignment, with random weights: its own weights are a download."""
    import numpy as np
    import torch

    from hih_align import crops

    torch.set_num_threads(threads)
    # load only its file: the package imports numba and another OpenCV, which the network does not need
    package = find_spec("face_alignment")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'face_alignment'")
    spec = spec_from_file_location("fan", Path(package.submodule_search_locations[0]) / "models" / "fan.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.FAN(4).eval()

    def find(image: Any, boxes: Any) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(boxes), FACES_AT_ONCE):
            squares = [crops.square_crop(box) for box in boxes[start : start + FACES_AT_ONCE]]
            pixels = np.stack([crops.warp(image, square.matrix, square.size) for square in squares])
            with torch.no_grad():
                heatmaps = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255)[-1]
                peaks = heatmaps.flatten(2).argmax(-1).numpy()
            side = heatmaps.shape[-1]
            points = (np.stack((peaks % side, peaks // side), -1) + 0.5) * crops.CROP_SIZE / side - 0.5
            found += [square.to_image(p) for square, p in zip(squares, points, strict=True)]
        return found

    return find


def mediapipe(threads: int) -> Find:
    """Face Mesh as used on photographs: its detector runs on the box with a margin, then the mesh on the found face."""
    import mediapipe
    import numpy as np

    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False)

    def find(image: Any, boxes: Any) -> list[Any]:
        found: list[Any] = []
        for x1, y1, x2, y2 in boxes:
            half = MARGIN * max(x2 - x1, y2 - y1) / 2
            left, top = (max(0, round((a + b) / 2 - half)) for a, b in ((x1, x2), (y1, y2)))
            right, bottom = round((x1 + x2) / 2 + half), round((y1 + y2) / 2 + half)
            crop = np.ascontiguousarray(image[top:bottom, left:right])
            faces = mesh.process(crop).multi_face_landmarks
            if not faces:
                found.append(None)
                continue
            points = np.array([(faces[0].landmark[i].x, faces[0].landmark[i].y) for i in MESH])
            # in Face Mesh 0 is the edge of the crop, here it is the centre of the first pixel
            found.append(points * (crop.shape[1], crop.shape[0]) - 0.5 + (left, top))
        return found

    return find


def mediapipe_video() -> Follow:
    """Face Mesh as on videos: it follows the face by its own points, and smooths them."""
    import mediapipe
    import numpy as np

    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=False)

    def follow(image: Any) -> Any:
        faces = mesh.process(image).multi_face_landmarks
        if not faces:
            return None
        points = np.array([(faces[0].landmark[i].x, faces[0].landmark[i].y) for i in MESH])
        return points * (image.shape[1], image.shape[0]) - 0.5

    return follow


def dlib_video() -> Follow:
    """dlib knows no videos: its detector and its predictor, frame by frame."""
    import dlib
    import numpy as np

    detector, predictor = dlib.get_frontal_face_detector(), _dlib_predictor()

    def follow(image: Any) -> Any:
        found = detector(image, 0)
        if not found:
            return None
        largest = max(found, key=lambda box: box.area())
        return np.array([(point.x, point.y) for point in predictor(image, largest).parts()], float)

    return follow


def dlib(threads: int) -> Find:
    """The 68-point predictor of face_recognition_models, on squares like those of dlib's detector."""
    import dlib
    import numpy as np

    predictor = _dlib_predictor()

    def find(image: Any, boxes: Any) -> list[Any]:
        found: list[Any] = []
        for x1, y1, x2, y2 in boxes:
            longer = max(x2 - x1, y2 - y1)
            side = round(SQUARE_SIDE * longer)
            left = round((x1 + x2 - side) / 2)
            top = round((y1 + y2 - side) / 2 - SQUARE_UP * longer)
            square = dlib.rectangle(left, top, left + side - 1, top + side - 1)  # both ends are included
            found.append(np.array([(point.x, point.y) for point in predictor(image, square).parts()], float))
        return found

    return find


def _dlib_predictor() -> Any:
    import dlib

    # find the package without importing it: it imports pkg_resources, which new versions of setuptools lack
    package = find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'face_recognition_models'")
    folder = Path(package.submodule_search_locations[0])
    return dlib.shape_predictor(str(folder / "models" / "shape_predictor_68_face_landmarks.dat"))


@dataclass(frozen=True)
class Competitor:
    """Another program.

    Attributes:
        title: name in tables and in the plot.
        start: makes its `Find` for a number of threads.
        one_thread: it always runs in one thread.
        time_only: it has random weights, so only its time is measured.
        note: footnote about its accuracy.
        hollow: draw a hollow point in the plot, because its accuracy is not that on unseen faces.
        follow: makes its `Follow` for a video.
        video: name in tables of videos.
    """

    title: str
    start: Callable[[int], Find]
    one_thread: bool = False
    time_only: bool = False
    note: str = ""
    hollow: bool = False
    follow: Callable[[], Follow] | None = None
    video: str = ""


COMPETITORS = {
    "fan4": Competitor("FAN-4 of face-alignment", fan4, time_only=True, note="random weights: time only"),
    "mediapipe": Competitor(
        "MediaPipe Face Mesh",
        mediapipe,
        one_thread=True,
        note="468 points, of which the nearest 68 count",
        follow=mediapipe_video,
        video="MediaPipe, video mode",
    ),
    "dlib": Competitor(
        "dlib 68 points",
        dlib,
        one_thread=True,
        note="trained on these very test faces",
        hollow=True,
        follow=dlib_video,
        video="dlib, frame by frame",
    ),
}
