"""Draw the README's picture: 68 points on scikit-image's astronaut, 98 on matplotlib's Grace Hopper.

    python examples/draw_faces.py [examples/faces.png]          (needs the extra [examples])

Both photographs are in the public domain: Eileen Collins (NASA) and Grace Hopper (US Navy).
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


def portrait(image: np.ndarray, scheme: str, box: list[float]) -> np.ndarray:
    """The face with its landmarks, cut out a little larger than the box, ``HEIGHT`` pixels high."""
    face = FaceAligner.from_pretrained("HIH_T", scheme).align(image, box)
    scale = HEIGHT / (1.75 * (box[3] - box[1]))
    drawn = face.draw(image, scale=scale)
    x, y = (round(v * scale) for v in ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    half = HEIGHT // 2
    padded = cv2.copyMakeBorder(drawn, half, half, half, half, cv2.BORDER_CONSTANT)
    return padded[y : y + HEIGHT, x : x + HEIGHT]


def main(out: str = str(Path(__file__).with_name("faces.png"))) -> None:
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    left = portrait(astronaut(), "300w", [177, 80, 275, 200])
    right = portrait(hopper, "wflw", [173, 82, 338, 270])
    write_image(out, np.hstack((left, right)))


if __name__ == "__main__":
    main(*sys.argv[1:])
