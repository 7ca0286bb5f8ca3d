"""Draw the README's pictures.

    python examples/draw_faces.py [FOLDER]          (needs the extra [examples])

faces.png: 68 points on scikit-image's astronaut, 98 on matplotlib's Grace Hopper. scores.png: the scores of a box with
a face and of boxes without. Both photographs are in the public domain: Eileen Collins (NASA), Grace Hopper (US Navy).
"""

import sys
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
from skimage.data import astronaut

from hih_align import FaceAligner
from hih_align.images import read_image, write_image

HEIGHT = 640
FACE = (177, 80, 275, 200)
NO_FACES = ((330, 60, 450, 180), (20, 300, 140, 440), (350, 300, 450, 420))


def portrait(image: np.ndarray, scheme: str, box: tuple[int, int, int, int]) -> np.ndarray:
    """The face with its landmarks, cut out a little larger than the box, ``HEIGHT`` pixels high."""
    face = FaceAligner.from_pretrained("HIH_T", scheme).align(image, box)
    scale = HEIGHT / (1.75 * (box[3] - box[1]))
    drawn = face.draw(image, scale=scale)
    x, y = (round(v * scale) for v in ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    half = HEIGHT // 2
    padded = cv2.copyMakeBorder(drawn, half, half, half, half, cv2.BORDER_CONSTANT)
    return padded[y : y + HEIGHT, x : x + HEIGHT]


def scores(image: np.ndarray) -> np.ndarray:
    """The image with all boxes, their landmarks and their scores."""
    faces = FaceAligner.from_pretrained("HIH_T").align(image, [FACE, *NO_FACES])
    drawn = faces.draw(image, lines=False, boxes=True)
    for face in faces:
        left, top = (round(float(v)) for v in face.bbox[:2])
        cv2.putText(drawn, f"{face.score:.2f}", (left, top - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 0), 2)
    return drawn


def main(folder: str = str(Path(__file__).parent)) -> None:
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    both = portrait(astronaut(), "300w", FACE), portrait(hopper, "wflw", (168, 157, 354, 332))
    write_image(Path(folder, "faces.png"), np.hstack(both))
    write_image(Path(folder, "scores.png"), scores(astronaut()))


if __name__ == "__main__":
    main(*sys.argv[1:])
