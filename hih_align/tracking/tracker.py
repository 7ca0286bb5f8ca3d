"""Faces followed from frame to frame: each by its own points, without a detector as long as its score is high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..detection.given import Detector, detections
from ..detection.scan import overlap
from ..images import Image, read_image
from ..landmarks import Landmarks
from ..passes import NOTHING
from .smoothing import FRAME, POINTS, FaceFilter, OneEuro, Steady

#: Frames a second where `FaceTracker.update` is told no times.
RATE = 30.0

#: Boxes that share more than this of their union are of one face.
SAME = 0.3

#: A face that is found within this many of its sides of where one was lost is that one, and not `LARGER` times as large
#: or small.
NEAR, LARGER = 0.8, 1.6

#: How fast a face's motion is believed: the share of the newest step in its velocity.
NEWEST = 0.6


@dataclass(eq=False)
class _Track:
    """A face that is followed.

    Attributes:
        id: its number.
        box: (4,) of the upright face, where it was last.
        roll: degrees.
        velocity: (2,) pixels a second.
        time: seconds, when it was last seen.
        filter: of its points.
    """

    id: int
    box: NDArray[np.float64]
    roll: float
    time: float
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    filter: FaceFilter | None = None

    def expected(self, time: float) -> NDArray[np.float64]:
        """(4,) the box where the face should be by then."""
        return self.box + np.tile(self.velocity * (time - self.time), 2)

    def moved(self, box: NDArray[np.float64], roll: float, time: float) -> None:
        """Take where it is now."""
        step = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2 / (time - self.time)
        self.velocity = self.velocity + NEWEST * (step - self.velocity)
        self.box, self.roll, self.time = box, roll, time


class FaceTracker:
    """Follows the faces of a video.

    A face is found once; from then on its box is that of its own points of the frame before, moved on as it moves. A
    face whose score falls is dropped and looked for again. Not thread-safe: one tracker is for one video.

    Attributes:
        aligner: which aligns them; its scheme needs five points (`Scheme.five`).
        detector: finds faces to follow.
        smooth: settings of the filter for faces and for points in them; None: points as they are found.
        every: frames between two looks for further faces; while none is followed, every frame is looked at.
        keep: seconds for which the number of a lost face waits for it, where it was.
        least: mean score below which a face is lost.
    """

    def __init__(
        self,
        aligner: FaceAligner,
        *,
        detector: Detector | None = None,
        smooth: bool | tuple[Steady, OneEuro] = True,
        every: int = 10,
        keep: float = 1.0,
        least: float = 0.5,
    ) -> None:
        """Take an aligner.

        Args:
            aligner: see the class.
            detector: as in `FaceAligner`; None is the aligner's.
            smooth: True, False, or the settings for the face's frame and for the points in it.
            every: at least 1.
            keep: at least 0.
            least: in [0, 1].

        Raises:
            ValueError: a setting out of range; an aligner whose scheme does not define its five points.
        """
        if aligner.scheme.five is None:
            raise ValueError(f"aligner is of scheme {aligner.scheme.id!r}, which does not define its five points")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}, expected a whole number of frames, at least 1")
        if not keep >= 0:
            raise ValueError(f"keep is {keep!r}, expected seconds, at least 0")
        if not 0 <= least <= 1:
            raise ValueError(f"least is {least!r}, expected a score from 0 to 1")
        self.aligner = aligner
        self.detector = aligner.detector if detector is None else detector
        self.smooth = ((FRAME, POINTS) if smooth is True else None) if isinstance(smooth, bool) else smooth
        self.every, self.keep, self.least = every, float(keep), float(least)
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget all faces, for another video; numbers are not used again."""
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._frames = 0
        self._time: float | None = None
        self._size: tuple[int, ...] | None = None

    def update(self, frame: Image, time: float | None = None) -> Landmarks:
        """The faces of the next frame.

        Args:
            frame: as in `FaceAligner.align`. One of another size than the one before starts anew.
            time: seconds, later than that of the frame before; None is 1/30 s later.

        Returns:
            N faces, N may be 0, by their numbers `Landmarks.ids`, smoothed.

        Raises:
            ValueError: times that go backwards; a bad frame.
        """
        pixels = read_image(frame)
        now = (0.0 if self._time is None else self._time + 1 / RATE) if time is None else float(time)
        if not np.isfinite(now) or (self._time is not None and now <= self._time):
            raise ValueError(f"time is {time!r}, expected seconds later than those of the frame before, {self._time}")
        if self._size is not None and self._size != pixels.shape:
            self.reset()
        self._size = pixels.shape
        before, self._time = self._time, now
        faces = self._follow(pixels, now)
        if not self._tracks or self._frames % self.every == 0:
            faces = self._look(pixels, now, faces)
        self._frames += 1
        self._lost = [track for track in self._lost if now - track.time <= self.keep]
        return self._smoothed(faces, now - before if before is not None else 1 / RATE)

    def _follow(self, pixels: NDArray[np.uint8], now: float) -> Landmarks:
        """The faces of the frame before, by their own points; lost ones are dropped."""
        height, width = pixels.shape[:2]
        there: list[_Track] = []
        for track in self._tracks:
            box = track.expected(now)
            inside = (box[2:] > 0).all() and (box[:2] < (width - 1, height - 1)).all()
            (there if inside else self._lost).append(track)
        boxes = np.array([track.expected(now) for track in there]).reshape(-1, 4)
        faces = self.aligner.align(pixels, boxes, roll=[track.roll for track in there])
        kept = self._distinct(there, faces)
        for index, track in enumerate(there):
            if index in kept:
                face = faces[index]
                track.moved(face.upright_box, face.roll, now)
            else:
                self._lost.append(track)
        self._tracks = [there[index] for index in kept]
        return self._chosen(faces, kept)

    def _distinct(self, tracks: Sequence[_Track], faces: Landmarks) -> list[int]:
        """Indices of the faces that are still seen. Of two that have come to be the same, the one that expected it."""
        seen = [index for index in range(len(tracks)) if float(faces[index].score) >= self.least]
        boxes = faces.upright_box.reshape(-1, 4)
        kept: list[int] = []
        for index in sorted(seen, key=lambda i: float(np.abs(boxes[i] - faces.bbox[i]).max())):
            if not kept or overlap(boxes[index], boxes[kept])[0].max() < 2 * SAME:
                kept.append(index)
        return sorted(kept)

    def _look(self, pixels: NDArray[np.uint8], now: float, followed: Landmarks) -> Landmarks:
        """The faces with those that a detector finds beside them."""
        found = detections(self.detector, pixels)
        known = np.array([track.box for track in self._tracks]).reshape(-1, 4)
        new = [
            index
            for index, box in enumerate(found.boxes.astype(np.float64))
            if not len(known) or overlap(box, known)[0].max() < SAME
        ]
        if not new:
            return followed
        faces = self.aligner.align(pixels, found.boxes[new])
        faces = self._chosen(faces, [i for i in range(len(new)) if float(faces[i].score) >= max(self.least, NOTHING)])
        for face in faces:
            box = face.upright_box
            track = self._again(box, now) or self._new(box, face.roll, now)
            track.box, track.roll, track.time = box, face.roll, now
            track.filter = None if self.smooth is None else FaceFilter(*self.smooth)
            self._tracks.append(track)
        return replace(
            followed,
            points=np.concatenate((followed.points, faces.points)),
            scores=np.concatenate((followed.scores, faces.scores)),
            bbox=np.concatenate((followed.bbox, faces.bbox)),
        )

    def _new(self, box: NDArray[np.float64], roll: float, now: float) -> _Track:
        self._next_id += 1
        return _Track(self._next_id - 1, box, roll, now)

    def _again(self, box: NDArray[np.float64], now: float) -> _Track | None:
        """The lost face that this one is: the one that was, or should be by now, nearest to it."""
        nearest, least = None, NEAR
        for track in self._lost:
            places = np.stack((track.box, track.expected(now)))
            side, was = float((box[2:] - box[:2]).max()), float((track.box[2:] - track.box[:2]).max())
            away = np.linalg.norm(places[:, :2] + places[:, 2:] - box[:2] - box[2:], axis=1).min() / 2 / max(side, was)
            if away < least and max(side, was) < LARGER * min(side, was):
                nearest, least = track, float(away)
        if nearest is not None:
            self._lost.remove(nearest)
            nearest.velocity = np.zeros(2)
        return nearest

    def _smoothed(self, faces: Landmarks, seconds: float) -> Landmarks:
        order = np.argsort([track.id for track in self._tracks])
        points = faces.points.copy()
        for index, track in enumerate(self._tracks):
            if track.filter is not None:
                scores = faces.scores[index].astype(np.float64)
                points[index] = track.filter(points[index].astype(np.float64), scores, seconds)
        ids = np.array([track.id for track in self._tracks], np.int64)
        return self._chosen(replace(faces, points=points, ids=ids), order)

    @staticmethod
    def _chosen(faces: Landmarks, indices: Sequence[int] | NDArray[np.intp]) -> Landmarks:
        chosen: Landmarks = faces[np.asarray(indices, np.intp)]
        return chosen
