"""Align the face of scikit-image's astronaut (Eileen Collins, NASA, public domain) and write the picture.

python examples/align_photo.py [aligned.png]
"""

import sys
from pathlib import Path

from skimage.data import astronaut

from hih_align import FaceAligner
from hih_align.boxes import read_boxes
from hih_align.images import write_image


def main(out: str = "aligned.png") -> None:
    image = astronaut()  # (512, 512, 3) uint8 RGB
    boxes = read_boxes(Path(__file__).with_name("boxes.json"))["astronaut.png"]

    aligner = FaceAligner.from_pretrained("HIH_T")
    faces = aligner.align(image, boxes)

    write_image(out, faces.draw(image, scale=3))
    face = faces[0]
    print(f"{out}: {len(face.points)} landmarks, mean score {face.score:.2f}, nose tip at {face.five_points()[2]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
