"""Draw the pictures of the README and of the documentation.

    python examples/draw_faces.py [FOLDER]          (needs the extra [examples]; FOLDER is docs/images by default)

* faces.jpg: 68 points on scikit-image's astronaut, 98 points on matplotlib's Grace Hopper.
* scores.jpg: the scores of a box with a face and of boxes without a face.
* 300w.jpg, wflw.jpg, cofw.jpg: the index of each landmark of these schemes.
* own-landmarks.jpg: five own landmarks on both faces, as in `docs/fine-tune.md`.

Both photographs are in the public domain: Eileen Collins (NASA), Grace Hopper (US Navy).
"""

import sys
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
from skimage.data import astronaut

from hih_align import FaceAligner, load_scheme
from hih_align.drawing import Style, draw_face
from hih_align.images import read_image, write_image

HEIGHT = 640
FACE = (177, 80, 275, 200)
HOPPER = (168, 157, 354, 332)
NO_FACES = ((330, 60, 450, 180), (20, 300, 140, 440), (350, 300, 450, 420))
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

#: Five own landmarks on both faces.
COLLINS_FIVE = ((204, 102), (247, 104), (226, 128), (203, 140), (245, 141))
HOPPER_FIVE = ((224, 193), (305, 189), (267, 238), (233, 281), (303, 277))


def cut(drawn: np.ndarray, box: tuple[int, int, int, int], scale: float, side: int) -> np.ndarray:
    """Cut a square of ``side`` pixels around the middle of a box out of a picture that was enlarged by ``scale``."""
    x, y = (round(v * scale) for v in ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    half = side // 2
    padded = cv2.copyMakeBorder(drawn, half, half, half, half, cv2.BORDER_CONSTANT)
    return padded[y : y + side, x : x + side]


def portrait(image: np.ndarray, scheme: str, box: tuple[int, int, int, int]) -> np.ndarray:
    """The face with its landmarks, cut out a little larger than the box, ``HEIGHT`` pixels high."""
    face = FaceAligner.from_pretrained("HIH_T", scheme).align(image, box)
    scale = HEIGHT / (1.75 * (box[3] - box[1]))
    return cut(face.draw(image, scale=scale), box, scale, HEIGHT)


def scores(image: np.ndarray) -> np.ndarray:
    """The image with all boxes, their landmarks and their scores."""
    faces = FaceAligner.from_pretrained("HIH_T").align(image, [FACE, *NO_FACES])
    drawn = faces.draw(image, lines=False, boxes=True)
    for face in faces:
        left, top = (round(float(v)) for v in face.bbox[:2])
        cv2.putText(drawn, f"{face.score:.2f}", (left, top - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 0), 2)
    return drawn


def numbered(image: np.ndarray, scheme: str, box: tuple[int, int, int, int], side: int = 1000) -> np.ndarray:
    """The face, pale and grey, with the index of each landmark."""
    face = FaceAligner.from_pretrained("HIH_T", scheme).align(image, box)
    scale = side / (1.3 * (box[3] - box[1]))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    canvas = cv2.resize((grey * 0.55).astype(np.uint8), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    points = (face.points + 0.5) * scale - 0.5
    style = Style(labels=True, size=7, thickness=1.5, line_colour="white")
    draw_face(canvas, points, face.scores, face.bbox * scale, face.scheme.contours, style)
    return cut(canvas, box, scale, side)


def own_landmarks(collins: np.ndarray, hopper: np.ndarray, side: int = 400) -> np.ndarray:
    """Both faces with the five landmarks that the tutorial labels."""
    scheme = load_scheme(Path(__file__).with_name("five.json"))
    pictures = []
    for image, five, box in ((collins, COLLINS_FIVE, FACE), (hopper, HOPPER_FIVE, HOPPER)):
        scale = side / (1.5 * (box[3] - box[1]))
        canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        points = (np.array(five, np.float32) + 0.5) * scale - 0.5
        style = Style(boxes=True, labels=True, size=9, thickness=2)
        draw_face(canvas, points, np.ones(len(scheme)), np.array(box) * scale, scheme.contours, style)
        pictures.append(cut(canvas, box, scale, side))
    return np.hstack(pictures)


def main(folder: str = str(IMAGES)) -> None:
    collins = astronaut()
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    both = portrait(collins, "300w", FACE), portrait(hopper, "wflw", HOPPER)
    write_image(Path(folder, "faces.jpg"), np.hstack(both))
    write_image(Path(folder, "scores.jpg"), scores(collins))
    for scheme in ("300w", "wflw", "cofw"):
        write_image(Path(folder, f"{scheme}.jpg"), numbered(collins, scheme, FACE))
    write_image(Path(folder, "own-landmarks.jpg"), own_landmarks(collins, hopper))


if __name__ == "__main__":
    main(*sys.argv[1:])
