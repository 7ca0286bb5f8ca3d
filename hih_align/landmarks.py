"""`Landmarks`, the result: points, scores and scheme; with indexing, scheme conversion, drawing and aligned chips."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import crops, interchange
from .drawing import Colour, Style, draw_face, png, sheet, sketch
from .images import Image, read_image
from .roll import roll_of, upright_box
from .schemes import Scheme, conversion, get_scheme
from .tensors import is_tensor

#: Eyes, nose tip and mouth corners in ArcFace's chips of 112 px (insightface's template).
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
ARCFACE_SIZE = 112

#: Largest number of faces that a notebook shows.
_SHOWN = 8


@dataclass(frozen=True, eq=False, repr=False)
class Landmarks:
    """Landmarks of one face, or of N faces of one image.

    Attributes:
        points: float32 (K, 2), or (N, K, 2): x, y in pixels of the given image, 0 at the centre of its first pixel.
        scores: float32 (K,), or (N, K), in [0, 1]. If `calibrated` is true, a score is the probability that the error
            of the point is below 5 % of the longer side of the box. Otherwise it is the height of the point's heatmap,
            which ranks points but is no probability.
        scheme: the scheme of the points.
        bbox: float32 (4,), or (N, 4): the box of the face, x1, y1, x2, y2.
        model: name of the checkpoint.
        calibrated: whether the scores were fitted on validation faces (by `hih-align calibrate`, or at the end of a
            training run).
        detection_scores: scores of the detector in [0, 1] if it found the faces: float32 (N,), or one number for one
            face. None: the boxes were given.
        ids: numbers of faces that are followed through a video: int64 (N,), or one number for one face. None: the
            faces are not followed.

    An object of several faces has ``len``, can be iterated, and can be indexed by number, slice or mask.
    ``faces["left_eye"]`` gives the points of a part, of one face or of several, and ``faces["jaw_8"]`` the point of a
    landmark. ``numpy.asarray`` gives `points`.
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    scheme: Scheme
    bbox: NDArray[np.float32]
    model: str = ""
    calibrated: bool = False
    detection_scores: NDArray[np.float32] | None = None
    ids: NDArray[np.int64] | None = None

    @property
    def several(self) -> bool:
        """Whether the object holds N faces (N may be 0 or 1) and not one face."""
        return self.points.ndim == 3

    @property
    def score(self) -> Any:
        """Mean of the scores: a float for one face, (N,) float32 for several."""
        return self.scores.mean(-1) if self.several else float(self.scores.mean())

    def __len__(self) -> int:
        if not self.several:
            raise TypeError("these are the landmarks of one face, which have no len; use len(face.points)")
        return len(self.points)

    def __bool__(self) -> bool:
        return not self.several or len(self.points) > 0

    def __iter__(self) -> Iterator[Landmarks]:
        if not self.several:
            raise TypeError("these are the landmarks of one face; iterate over face.points")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.scheme.parts and key in self.scheme.names:
                return self.points[..., self.scheme.names.index(key), :]
            if key not in self.scheme.parts:
                raise KeyError(
                    f"scheme {self.scheme.id!r} has no part or landmark {key!r}; its parts are "
                    f"{sorted(self.scheme.parts)}, its landmarks {', '.join(self.scheme.names[:5])}"
                    + (", ..." if len(self.scheme) > 5 else "")
                )
            return self.points[..., list(self.scheme.parts[key]), :]
        if not self.several:
            raise TypeError(
                f"these are the landmarks of one face, got index {key!r}; index face.points, or name a part"
            )
        key = key.numpy(force=True) if is_tensor(key) else key
        if key is None or isinstance(key, (tuple, bool, np.bool_)) or np.ndim(key) > 1:
            raise TypeError(f"faces are indexed by number, slice, mask (N,) or part, got {key!r}")
        rows: dict[str, Any] = {"points": self.points[key], "scores": self.scores[key], "bbox": self.bbox[key]}
        for name in ("detection_scores", "ids"):
            if (values := getattr(self, name)) is not None:
                rows[name] = values[key]
        return replace(self, **rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False and dtype is not None and np.dtype(dtype) != self.points.dtype:
            raise ValueError(f"points are float32; as {np.dtype(dtype)} they need a copy, but copy is False")
        return np.array(self.points, dtype) if copy else self.points.astype(dtype or np.float32, copy=False)

    def to(self, scheme: str | Scheme) -> Landmarks:
        """Convert the faces to another scheme: 98 to 68 or 29 points.

        Each new point, and its score, is the mean of at most two.

        Raises:
            ValueError: no conversion is known, or the other scheme has the same id but other landmark names.
        """
        target = get_scheme(scheme)
        if target == self.scheme:
            return self
        weights = conversion(self.scheme, target)
        points = np.einsum("tk,...kc->...tc", weights, self.points).astype(np.float32)
        scores = np.einsum("tk,...k->...t", weights, self.scores).astype(np.float32)
        return replace(self, points=points, scores=scores, scheme=target)

    def five_points(self) -> NDArray[np.float32]:
        """(5, 2), or (N, 5, 2): left eye, right eye, nose tip, left and right mouth corner; left in the picture.

        Raises:
            ValueError: the scheme does not define them (`Scheme.five`).
        """
        return self.scheme.five_points(self.points).astype(np.float32)

    @property
    def roll(self) -> Any:
        """Clockwise rotation of the face in the picture, in degrees in (-180, 180]: a float, or (N,) for several faces.

        It is computed from the five points (`roll.roll_of`).

        Raises:
            ValueError: the scheme does not define the five points.
        """
        found = roll_of(self.five_points())
        return found if self.several else float(found)

    @property
    def upright_box(self) -> NDArray[np.float64]:
        """(4,), or (N, 4): the tight box x1, y1, x2, y2 of the face after it is turned upright about the box's centre.

        `FaceAligner.align` takes it together with `roll`: ``align(image, face.upright_box, roll=face.roll)``. A model
        of landmarks of your own expects another box: ``upright_box(face.points, face.roll, aligner.config.box)`` of
        `hih_align.roll`.
        """
        return upright_box(self.points, self.roll)

    def crop(self, image: Image, size: int = ARCFACE_SIZE) -> NDArray[np.uint8]:
        """The aligned chip for face recognition, on ArcFace's template.

        Args:
            image: the image that was aligned.
            size: side of the chip in pixels.

        Returns:
            (size, size, 3) uint8 RGB, or (N, size, size, 3). Pixels outside the image are black.

        Raises:
            ValueError: size is not a positive whole number, the scheme does not define the five points, or the image
                is bad.
        """
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"size is {size!r}, expected a whole number of pixels, at least 1")
        pixels = read_image(image)
        five = self.five_points().reshape(-1, 5, 2)
        template = ARCFACE * (size / ARCFACE_SIZE)
        chips = [crops.warp(pixels, crops.similarity(points, template), size) for points in five]
        return (
            np.stack(chips) if self.several and chips else chips[0] if chips else np.zeros((0, size, size, 3), np.uint8)
        )

    def draw(
        self,
        image: Image,
        *,
        lines: bool = True,
        boxes: bool = False,
        scale: float = 1,
        size: float | None = None,
        thickness: float | None = None,
        colour: Colour | None = None,
        line_colour: Colour = "white",
        labels: bool = False,
        scores: bool = False,
        ids: bool = True,
    ) -> NDArray[np.uint8]:
        """Draw the faces into a copy of the image. By default all sizes follow the size of each face.

        Args:
            image: the image that was aligned.
            lines: draw the contours of the scheme.
            boxes: draw the bounding boxes.
            scale: factor that enlarges the picture, for small faces; below 1 it shrinks the picture.
            size: diameter of a point, in pixels of the result.
            thickness: thickness of contours and boxes, in pixels of the result.
            colour: colour of the points: a name such as "lime", "#rrggbb", or (red, green, blue) from 0 to 255. By
                default the colour goes from green (score 1) to red (score 0).
            line_colour: colour of contours, boxes and text.
            labels: write the index of each landmark beside it.
            scores: write the score of each face above its box.
            ids: write the number (`ids`) of each followed face above its box.

        Returns:
            (H, W, 3) uint8 RGB, ``scale`` times as large as the image.

        Raises:
            ValueError: scale, size or thickness is not positive, a colour is unknown, or the image is bad.
        """
        style = Style(lines, boxes, labels, scores, ids, size, thickness, colour, line_colour)
        # a copy, so that the caller's array is not changed; OpenCV draws into no other order, such as that of np.rot90
        canvas = np.array(read_image(image), order="C")
        if not 0.5 < scale * min(canvas.shape[:2]) < np.inf:
            raise ValueError(f"scale is {scale}, expected a positive factor that leaves at least one pixel")
        if scale != 1:
            how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
            canvas = np.asarray(cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=how), np.uint8)
        for face in self if self.several else (self,):
            # enlarging preserves pixel edges, not centres
            points, box = ((p + 0.5) * scale - 0.5 for p in (face.points, face.bbox))
            number = None if face.ids is None else int(face.ids)
            draw_face(canvas, points, face.scores, box, self.scheme.contours, style, number)
        return canvas

    def __repr__(self) -> str:
        if not self.several:
            box = ", ".join(f"{value:g}" for value in self.bbox.tolist())
            return (
                f"Landmarks({self.points.shape[-2]} points of {self.scheme.id}, box ({box}), score {self.score:.2f}, "
                f"model {self.model!r})"
            )
        shown = [f"{score:.2f}" for score in self.score[:6].tolist()]
        shown += ["..."] * (len(self) > len(shown))
        return (
            f"Landmarks({len(self)} face{'s' * (len(self) != 1)}, {self.points.shape[-2]} points of {self.scheme.id}, "
            f"scores [{', '.join(shown)}], model {self.model!r})"
        )

    def _repr_png_(self) -> bytes | None:
        """The picture that notebooks show: the points and contours of the faces, without the photograph."""
        faces = [*self[:_SHOWN]] if self.several else [self]
        tiles = [sketch(face.points, face.scores, self.scheme.contours) for face in faces]
        return png(sheet(tiles)) if tiles else None

    def to_coco(self, file_name: str | os.PathLike[str], width: int, height: int) -> dict[str, Any]:
        """The faces of one image as COCO keypoints, which can be written as JSON.

        Annotation tools can correct the file, and a training can read it.

        Args:
            file_name: path of the image, relative to the folder of the JSON file or to ``images/`` in that folder.
            width, height: size of the image in pixels.

        Returns:
            ``images``, ``annotations`` and ``categories``. Points with a score below `interchange.UNSURE` have v = 1,
            the other points v = 2. ``score`` is the score of the face, ``keypoint_scores`` are those of the points. For
            several images see `interchange.coco_document`.
        """
        image = interchange.CocoImage(file_name, width, height, self.points, self.scores)
        return interchange.coco_document([image], self.scheme)

    def to_supervision(self) -> Any:
        """The faces as ``supervision.KeyPoints`` (extra ``[supervision]``); the scores become the points' confidence.

        Raises:
            ImportError: supervision is not installed.
        """
        return interchange.to_supervision(self)

    def to_dict(self) -> dict[str, Any]:
        """The faces as lists and strings that JSON can hold. For several faces each list has one entry per face.

        ``detection_score`` is present if a detector found the faces, ``id`` if the faces are followed.
        """
        found = {} if self.detection_scores is None else {"detection_score": self.detection_scores.tolist()}
        found |= {} if self.ids is None else {"id": self.ids.tolist()}
        return {
            "bbox": self.bbox.tolist(),
            "scheme": self.scheme.id,
            "points": self.points.tolist(),
            "scores": self.scores.tolist(),
            "model": self.model,
            **found,
        }
