"""Draw the pictures of the README and of the documentation. `scripts/gallery` runs this program in a new environment.

    python examples/draw_faces.py [FOLDER]          (needs the extra [examples]; FOLDER is docs/images by default)

* faces.jpg: 68 points on scikit-image's astronaut, 98 points on matplotlib's Grace Hopper.
* scores.jpg: the scores of a box with a face and of boxes without a face.
* covered.jpg: the scores of landmarks that are covered.
* turned.jpg: faces at several rolls. small.jpg: small faces. profile.jpg: a face from the side. In these pictures the
  faces are detected, which needs the detector's file.
* strip.jpg: frames of a synthetic video, in which a face is tracked.
* 300w.jpg, wflw.jpg, cofw.jpg: the index of each landmark of these schemes.
* own-landmarks.jpg: five own landmarks on both faces, as in `docs/fine-tune.md`.

The photographs are in the public domain: Eileen Collins (NASA) and the man with the camera (Lav Varshney, CC0) of
scikit-image, Grace Hopper (US Navy) of matplotlib.
"""

import sys
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
from skimage.data import astronaut, camera

from hih_align import FaceAligner, FaceTracker, load_scheme
from hih_align.drawing import Style, draw_face, sheet
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


def covered(image: np.ndarray, box: tuple[int, int, int, int], side: int = 420) -> np.ndarray:
    """The face without changes, and the face with a covered mouth. Covered points have low scores."""
    hidden = image.copy()
    x1, y1, x2, y2 = box
    hidden[round(y1 + 0.55 * (y2 - y1)) : y2 + 12, x1 - 8 : x2 + 8] = (70, 90, 120)
    aligner, scale = FaceAligner.from_pretrained("HIH_T"), side / (1.5 * (y2 - y1))
    drawn = [aligner.align(one, box).draw(one, scale=scale) for one in (image, hidden)]
    return np.hstack([cut(one, box, scale, side) for one in drawn])


def turned(image: np.ndarray, side: int = 260) -> np.ndarray:
    """The astronaut's face at four rolls, without given boxes."""
    aligner, tiles = FaceAligner.from_pretrained("HIH_T"), []
    for degrees in (0, 60, 130, 220):
        matrix = cv2.getRotationMatrix2D((226, 140), -degrees, 1.4)
        matrix[:, 2] += (256 - 226, 256 - 140)
        picture = cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
        tiles.append(aligner.align(picture)[:1].draw(picture)[126:386, 126:386])
    return sheet([cv2.resize(tile, (side, side), interpolation=cv2.INTER_CUBIC) for tile in tiles])


def small(collins: np.ndarray, hopper: np.ndarray) -> np.ndarray:
    """A large picture with small faces, found without boxes, and each of them enlarged."""
    picture = np.full((900, 1600, 3), 96, np.uint8)
    sides = (60, 90, 120, 160, 220, 300)
    for n, side in enumerate(sides):
        source = cv2.resize((collins, hopper[:512])[n % 2], (side, side), interpolation=cv2.INTER_AREA)
        left, top = 40 + n * 240, 60 + (n * 190) % 500
        picture[top : top + side, left : left + side] = source
    faces = FaceAligner.from_pretrained("HIH_T").align(picture)
    drawn, tiles = faces.draw(picture, boxes=True), []
    for face in sorted(faces, key=lambda one: float(one.bbox[2] - one.bbox[0]))[:6]:
        scale = 180 / (1.5 * float(face.bbox[3] - face.bbox[1]))
        tiles.append(cut(face.draw(picture, scale=scale), tuple(face.bbox), scale, 180))
    below = cv2.resize(sheet(tiles, 6), (1600, round(1600 * 180 / (6 * 184 - 4))), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(np.vstack((drawn, below)), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)


def profile(side: int = 420) -> np.ndarray:
    """The man with the camera. His face is seen from the side, so many of its points are hidden."""
    image = cv2.cvtColor(camera(), cv2.COLOR_GRAY2RGB)
    face = FaceAligner.from_pretrained("HIH_T").align(image)[0]
    scale = side / (2.2 * float(face.bbox[3] - face.bbox[1]))
    return cut(face.draw(image, scale=scale, scores=True), tuple(face.bbox), scale, side)


def strip(image: np.ndarray, frames: int = 48, shown: int = 5, side: int = 220) -> np.ndarray:
    """Frames of a synthetic video. The head moves, turns and comes nearer. Its face is found once and then tracked."""
    tracker = FaceTracker(FaceAligner.from_pretrained("HIH_T"))
    tiles: list[np.ndarray] = []
    for n in range(frames):
        phase = n / frames * 2 * np.pi
        matrix = cv2.getRotationMatrix2D((226, 140), 25 * np.sin(phase), 1.1 + 0.5 * n / frames)
        matrix[:, 2] += (160 - 226 + 45 * np.sin(phase), 150 - 140)
        picture = cv2.warpAffine(image, matrix, (320, 320), borderMode=cv2.BORDER_REFLECT)
        faces = tracker.update(picture, time=n / 25)
        if n % (frames // shown) == 0 and len(tiles) < shown:
            tiles.append(cv2.resize(faces.draw(picture, boxes=True), (side, side), interpolation=cv2.INTER_AREA))
    return sheet(tiles, shown)


def main(folder: str = str(IMAGES)) -> None:
    collins = astronaut()
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    both = portrait(collins, "300w", FACE), portrait(hopper, "wflw", HOPPER)
    write_image(Path(folder, "faces.jpg"), np.hstack(both))
    write_image(Path(folder, "scores.jpg"), scores(collins))
    for scheme in ("300w", "wflw", "cofw"):
        write_image(Path(folder, f"{scheme}.jpg"), numbered(collins, scheme, FACE))
    write_image(Path(folder, "own-landmarks.jpg"), own_landmarks(collins, hopper))
    write_image(Path(folder, "covered.jpg"), covered(hopper, HOPPER))
    write_image(Path(folder, "turned.jpg"), turned(collins))
    write_image(Path(folder, "small.jpg"), small(collins, hopper))
    write_image(Path(folder, "profile.jpg"), profile())
    write_image(Path(folder, "strip.jpg"), strip(collins))


if __name__ == "__main__":
    main(*sys.argv[1:])
