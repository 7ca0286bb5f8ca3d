"""Tracking of faces from frame to frame. Each face is tracked by its own points. The detector only finds new faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..crops import reach_of
from ..detection.given import Detector, check_detector, detections
from ..detection.scan import overlap
from ..images import Image, read_image
from ..landmarks import Landmarks
from ..passes import NOTHING
from ..roll import upright_box
from .smoothing import FaceFilter, Smoothing

#: Frames per second if `FaceTracker.update` gets no times.
RATE = 30.0

#: Two boxes belong to the same face if their intersection over union is higher than this.
SAME = 0.3

#: A new face is identified with a lost face if two conditions are met. The distance of their centres is below `NEAR`
#: times the longer side of their boxes. Their sizes differ by a factor below `LARGER`.
NEAR, LARGER = 0.8, 1.6

#: Weight of the newest step in the velocity of a face.
NEWEST = 0.6

#: A face whose box differs by more than this share of its side from the expected box has changed its motion at once.
ELSEWHERE = 0.15


#: As `Config.box`: how far boxes reach beyond the tight boxes of the points.
Reach = tuple[float, float, float, float] | None


@dataclass(eq=False)
class _Track:
    """A tracked face.

    Attributes:
        id: number of the face.
        box: (4,) last box of the upright face, x1, y1, x2, y2 in pixels.
        roll: last rotation of the face, in degrees.
        reach: how far ``box`` reaches beyond the tight box of the points, as `Config.box`. None: it is the tight box.
        velocity: (2,) x, y in pixels per second.
        time: time at which the face was last seen, in seconds.
        filter: the filter of its points.
    """

    id: int
    box: NDArray[np.float64]
    roll: float
    time: float
    reach: Reach
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    filter: FaceFilter | None = None

    def expected(self, time: float) -> NDArray[np.float64]:
        """(4,) the predicted box at a time."""
        return self.box + np.tile(self.velocity * (time - self.time), 2)

    def fitting(self, face: Landmarks) -> NDArray[np.float64]:
        """(4,) the box that the network needs to find the face again at this place."""
        return upright_box(face.points, face.roll, self.reach)

    def moved(self, face: Landmarks, time: float) -> None:
        """Set the new box, rotation and time, and update the velocity."""
        box, roll = self.fitting(face), face.roll
        step = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2 / (time - self.time)
        self.velocity = self.velocity + NEWEST * (step - self.velocity)
        self.box, self.roll, self.time = box, roll, time


class FaceTracker:
    """Tracks the faces of a video.

    The detector finds a face once. In the following frames, the box of the face is computed from its points in the
    frame before and from its velocity. A face with a low score is lost, and the detector searches it again. The class
    is not thread-safe. Each video needs its own tracker.

    Attributes:
        aligner: the aligner of the faces. Its scheme must define five points (`Scheme.five`).
        detector: finds new faces.
        smooth: settings of the filters of the face's frame and of the points within the frame. None: no filter.
        every: the detector runs once in this number of frames. While no face is tracked, it runs on every frame.
        keep: time in seconds during which a lost face that appears again gets its old number. A face that is lost and
            found again in the same frame always does.
        least: a face with a lower mean score is lost. The limit is lower if even clear landmarks have low scores
            (`FaceAligner.limit_scale`).
        raw: the faces of the last frame before the filter, in the order of `update`. None: there was no frame yet.
    """

    def __init__(
        self,
        aligner: FaceAligner,
        *,
        detector: Detector | None = None,
        smooth: bool | Smoothing = True,
        every: int = 10,
        keep: float = 1.0,
        least: float = 0.5,
    ) -> None:
        """Create a tracker.

        Args:
            aligner: see the class.
            detector: as in `FaceAligner`. None: the detector of the aligner.
            smooth: True, False, or the settings for the face's frame and for the points within the frame.
            every: at least 1.
            keep: at least 0.
            least: in [0, 1].

        Raises:
            ValueError: a setting is out of range, or the scheme of the aligner does not define five points.
            TypeError: the detector is no function, or smooth is something else.
        """
        if aligner.scheme.five is None:
            raise ValueError(f"aligner has scheme {aligner.scheme.id!r}, expected a scheme that defines five points")
        self.detector = aligner.detector if detector is None else detector
        check_detector(self.detector)
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise ValueError(f"every is {every!r}, expected a whole number of frames, at least 1")
        if not keep >= 0:
            raise ValueError(f"keep is {keep!r}, expected seconds, at least 0")
        if not 0 <= least <= 1:
            raise ValueError(f"least is {least!r}, expected a score from 0 to 1")
        if not isinstance(smooth, (bool, Smoothing)):
            raise TypeError(f"smooth is {smooth!r}, expected True, False or Smoothing(...)")
        self.aligner = aligner
        self.smooth = (Smoothing() if smooth else None) if isinstance(smooth, bool) else smooth
        self.every, self.keep, self.least = every, float(keep), float(least)
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forget all faces, for another video. New faces get new numbers."""
        self.raw: Landmarks | None = None
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._frames = 0
        self._time: float | None = None
        self._size: tuple[int, ...] | None = None

    def update(self, frame: Image, time: float | None = None) -> Landmarks:
        """Find the faces of the next frame.

        Args:
            frame: as in `FaceAligner.align`. If its size differs from the frame before, all faces are forgotten.
            time: time of the frame in seconds. It must be later than that of the frame before. None: 1/30 s later.

        Returns:
            N faces with smoothed points, sorted by their numbers (`Landmarks.ids`). N may be 0.

        Raises:
            ValueError: the time is not later than that of the frame before, or the frame is bad.
        """
        pixels = read_image(frame)
        try:
            now = (0.0 if self._time is None else self._time + 1 / RATE) if time is None else float(time)
        except (TypeError, ValueError):
            now = np.nan
        if not np.isfinite(now) or (self._time is not None and now <= self._time):
            later = "" if self._time is None else f", more than {self._time} of the frame before"
            raise ValueError(f"time is {time!r}, expected seconds{later}")
        if self._size is not None and self._size != pixels.shape:
            self.reset()
        self._size = pixels.shape
        before, self._time = self._time, now
        faces = self._follow(pixels, now)
        if not self._tracks or self._frames % self.every == 0:
            faces = self._look(pixels, now, faces)
        self._frames += 1
        self._lost = [track for track in self._lost if now - track.time <= self.keep]
        return self._smoothed(faces, now - before if before is not None else 1 / RATE, pixels)

    def _follow(self, pixels: NDArray[np.uint8], now: float) -> Landmarks:
        """Align the faces of the frame before in the new frame, without faces that are lost."""
        boxes = np.array([track.expected(now) for track in self._tracks]).reshape(-1, 4)
        usable = _usable(boxes, pixels)
        there = [track for track, use in zip(self._tracks, usable, strict=True) if use]
        self._lost += [track for track, use in zip(self._tracks, usable, strict=True) if not use]
        boxes = boxes[usable]
        faces = self._aligned(pixels, there, boxes)
        kept = self._distinct(there, faces)
        for index, track in enumerate(there):
            if index in kept:
                track.moved(faces[index], now)
            else:
                self._lost.append(track)
        self._tracks = [there[index] for index in kept]
        return self._chosen(faces, kept)

    def _aligned(self, pixels: NDArray[np.uint8], tracks: Sequence[_Track], boxes: NDArray[np.float64]) -> Landmarks:
        """Align faces in their expected boxes. A face that is elsewhere is aligned again in the box of its points."""
        faces = self.aligner.align(pixels, boxes, roll=[track.roll for track in tracks])
        own = _fitting(tracks, faces)
        away = np.abs(own - boxes).max(1, initial=0) / (own[:, 2:] - own[:, :2]).max(1, initial=1e-9)
        seen = np.array([self._clear(face, self.least) for face in faces], bool)
        elsewhere = np.flatnonzero(seen & _usable(own, pixels) & (away > ELSEWHERE))
        if not len(elsewhere):
            return faces
        again = self.aligner.align(pixels, own[elsewhere], roll=np.atleast_1d(faces.roll)[elsewhere].tolist())
        points, scores, bbox = faces.points.copy(), faces.scores.copy(), faces.bbox.copy()
        points[elsewhere], scores[elsewhere], bbox[elsewhere] = again.points, again.scores, again.bbox
        return replace(faces, points=points, scores=scores, bbox=bbox)

    def _distinct(self, tracks: Sequence[_Track], faces: Landmarks) -> list[int]:
        """Indices of the faces that are not lost.

        If two tracks have moved to the same face, the track with the more accurate predicted box remains.
        """
        seen = [index for index in range(len(tracks)) if self._clear(faces[index], self.least)]
        boxes = _fitting(tracks, faces)
        kept: list[int] = []
        for index in sorted(seen, key=lambda i: float(np.abs(boxes[i] - faces.bbox[i]).max())):
            if not _among(boxes[index], boxes[kept], 2 * SAME):
                kept.append(index)
        return sorted(kept)

    def _look(self, pixels: NDArray[np.uint8], now: float, followed: Landmarks) -> Landmarks:
        """The tracked faces, and the new faces that the detector finds."""
        found = detections(self.detector, pixels)
        known = np.array([track.box for track in self._tracks]).reshape(-1, 4)
        new = [index for index, box in enumerate(found.boxes.astype(np.float64)) if not _among(box, known, SAME)]
        if not new:
            return followed
        # scores that are not calibrated do not show which way a face is turned; the points of the detector do
        rolls = None if self.aligner.calibrated else found.rolls[new]
        faces = self.aligner.align(pixels, found.boxes[new], roll=rolls)
        kept: list[int] = []
        for index, face in enumerate(faces):
            reach = self._reach(face)
            box = upright_box(face.points, face.roll, reach)
            # boxes of whole heads differ from the tight boxes of the points, and some detectors find a face twice
            known = np.array([track.box for track in self._tracks]).reshape(-1, 4)
            if not self._clear(face, max(self.least, NOTHING)) or _among(box, known, 2 * SAME):
                continue
            kept.append(index)
            track = self._again(box, now) or self._new(box, face.roll, now, reach)
            track.box, track.roll, track.time, track.reach = box, face.roll, now, reach
            track.filter = None if self.smooth is None else FaceFilter(self.smooth)
            self._tracks.append(track)
        faces = self._chosen(faces, kept)
        return replace(
            followed,
            points=np.concatenate((followed.points, faces.points)),
            scores=np.concatenate((followed.scores, faces.scores)),
            bbox=np.concatenate((followed.bbox, faces.bbox)),
        )

    def _clear(self, face: Landmarks, least: float) -> bool:
        return float(face.score) >= least * self.aligner.limit_scale

    def _reach(self, face: Landmarks) -> Reach:
        """How far the boxes that the network needs reach beyond the points.

        If the model does not know it, because its landmarks are selected or converted, then the box in which the face
        was found shows it.
        """
        config = self.aligner.config
        if config.refits and config.output is None:
            return config.box
        tight = upright_box(face.points, face.roll)
        return reach_of(face.bbox[None], tight[None]) if (tight[2:] - tight[:2]).min() >= 1 else None

    def _new(self, box: NDArray[np.float64], roll: float, now: float, reach: Reach) -> _Track:
        self._next_id += 1
        return _Track(self._next_id - 1, box, roll, now, reach)

    def _again(self, box: NDArray[np.float64], now: float) -> _Track | None:
        """The lost face that reappears in this box; None if there is none. See `NEAR`.

        It is the lost face whose last box or predicted box is the nearest one.
        """
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

    def _smoothed(self, faces: Landmarks, seconds: float, pixels: NDArray[np.uint8]) -> Landmarks:
        order = np.argsort([track.id for track in self._tracks])
        points = faces.points.copy()
        for index, track in enumerate(self._tracks):
            if track.filter is not None:
                scores = faces.scores[index].astype(np.float64)
                points[index] = track.filter(points[index].astype(np.float64), scores, seconds, pixels)
        ids = np.array([track.id for track in self._tracks], np.int64)
        self.raw = self._chosen(replace(faces, ids=ids), order)
        return self._chosen(replace(faces, points=points, ids=ids), order)

    @staticmethod
    def _chosen(faces: Landmarks, indices: Sequence[int] | NDArray[np.intp]) -> Landmarks:
        chosen: Landmarks = faces[np.asarray(indices, np.intp)]
        return chosen


def _usable(boxes: NDArray[np.float64], pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N,) whether boxes (N, 4) have a pixel at least and are not outside the picture."""
    low, high, size = boxes[:, :2], boxes[:, 2:], np.array(pixels.shape[1::-1])
    there = np.all((high > 0) & (low < size - 1) & (high > low), axis=1)
    return np.asarray(there & ((high - low).max(1, initial=0) >= 1))


def _among(box: NDArray[np.float64], boxes: NDArray[np.float64], share: float) -> bool:
    """Whether the intersection over union of a box (4,) with one of ``boxes`` (N, 4) is ``share`` or more."""
    return len(boxes) > 0 and bool(overlap(box, boxes)[0].max() >= share)


def _fitting(tracks: Sequence[_Track], faces: Landmarks) -> NDArray[np.float64]:
    """(N, 4) the boxes that the network needs to find the faces again, one per track."""
    return np.array([track.fitting(face) for track, face in zip(tracks, faces, strict=True)]).reshape(-1, 4)
