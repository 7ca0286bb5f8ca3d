"""Reads frames from a file with PyAV, or from a camera with OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..quiet import SILENT, quiet_opencv
from .pyav import pyav

#: Frames per second of a source that does not tell its frame rate.
RATE = 30

#: A time that is further back than this number of frames begins the times again. Smaller steps back are disorder.
BACK = 5

#: Unit of the times of a camera's frames, in seconds.
_TICK = Fraction(1, 90000)


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB. It is turned and mirrored as the file asks for.
        ticks: presentation time in units of `VideoFile.tick`, later than that of the frame before. If the times of a
            file begin again, as in recordings that were joined, they go on here.
        time: presentation time in seconds since the first frame.
    """

    image: NDArray[np.uint8]
    ticks: int
    time: float


#: A function that gets the audio packets in the order of the file.
Sound = Callable[[Any], None]


class VideoFile:
    """A video in a file. It is closed by `close`, or at the end of a ``with`` block.

    Attributes:
        name: path of the file.
        rate: mean number of frames per second.
        tick: unit of times, in seconds.
        count: number of frames. The file tells it, or it is computed from the duration. None: it is unknown.
        broken: number of packets that could not be decoded so far.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file.

        Raises:
            FileNotFoundError, IsADirectoryError: there is no such file.
            ValueError: the file cannot be read, or contains no video.
            ImportError: PyAV is not installed. The message names the extra.
        """
        av = pyav()
        self.name = str(path)
        if not Path(path).exists():
            hint = "; URLs are not supported: pass the frames of a stream to FaceTracker" if "://" in str(path) else ""
            raise FileNotFoundError(f"video: no such file: {path}{hint}")
        if Path(path).is_dir():
            raise IsADirectoryError(f"video: {path} is a folder, expected a video file or the number of a camera")
        try:
            # the full path: of a relative one, FFmpeg takes the part before a colon for a protocol
            # titles of old cameras are not UTF-8
            self._container = av.open(os.path.abspath(path), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise ValueError(f"video: {path} cannot be read as a video: {_why(error)}") from error
        # an audio file may contain a cover picture as a video stream
        streams = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kinds = sorted({stream.type for stream in self._container.streams}) or ["nothing"]
            self._container.close()
            raise ValueError(f"video: {path} has no video stream, it contains {', '.join(kinds)}")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        # telephones add sound of a kind that FFmpeg does not know, beside the usual one
        self.sounds = tuple(given for given in self._container.streams.audio if given.codec_context is not None)
        self.rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or RATE)
        self.tick = Fraction(self.stream.time_base or 1 / self.rate)
        seconds = float(self.stream.duration * self.tick) if self.stream.duration else 0.0
        self.count: int | None = self.stream.frames or round(seconds * float(self.rate)) or None
        self.broken = 0
        self._read = False

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, sound: Sound | None = None) -> Iterator[Frame]:
        """Yield the frames in the order of presentation. This is possible once: to read a video again, open it again.

        Args:
            sound: a function that is called with each audio packet.

        Raises:
            ValueError: the file contains no frame that can be decoded, or was read before.
        """
        if self._read:
            raise ValueError(f"video: {self.name} was read before: open it again")
        self._read = True
        first = last = None
        step = max(1, round(1 / (self.rate * self.tick)))
        moved = 0
        for frame in self._decoded(sound):
            ticks = frame.pts + moved if frame.pts is not None else 0 if last is None else last + step
            if last is not None and ticks < last - BACK * step:  # recordings that were joined: the times begin again
                moved += last + step - ticks
                ticks = last + step
            ticks = ticks if last is None else max(ticks, last + 1)  # in broken files times can decrease
            last, first = ticks, ticks if first is None else first
            image = shown(frame.to_ndarray(format="rgb24"), _display(frame))
            yield Frame(np.ascontiguousarray(image), ticks, float((ticks - first) * self.tick))
        if last is None:
            raise ValueError(f"video: {self.name} contains no frame that can be decoded")

    def _decoded(self, sound: Sound | None) -> Iterator[Any]:
        """Yield the frames of PyAV, and pass audio packets on."""
        for packet in self._packets((self.stream, *(self.sounds if sound is not None else ()))):
            if packet is not None and packet.stream.type == "audio":
                if sound is not None and packet.dts is not None:
                    sound(packet)
                continue
            try:
                yield from self.stream.decode(None) if packet is None else packet.decode()
            except pyav().error.FFmpegError:
                self.broken += 1

    def _packets(self, streams: tuple[Any, ...]) -> Iterator[Any]:
        """Yield the packets until the end of the file. If an error ends it, the last one is None, as for a decoder."""
        packets = iter(self._container.demux(*streams))
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (pyav().error.FFmpegError, IndexError):  # IndexError: a damaged file announces another stream
                self.broken += 1
                yield None
                return
            yield packet


class Camera:
    """A camera of this machine, read with OpenCV. It has the attributes of `VideoFile`. Its frames do not end."""

    def __init__(self, number: int) -> None:
        """Open a camera.

        Args:
            number: number of the camera in OpenCV. 0 is the first camera.

        Raises:
            OSError: there is no camera with this number, or another program uses it.
        """
        self.name = f"camera {number}"
        with quiet_opencv(SILENT):
            self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise OSError(f"video: there is no camera {number}, or another program uses it (0 is the first camera)")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # read the newest frame, no older frames from a buffer
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(RATE)
        self.tick = _TICK
        self.count: int | None = None
        self.broken = 0
        self.stream, self.sounds = None, ()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()

    def frames(self, sound: Sound | None = None) -> Iterator[Frame]:
        """Yield the camera's frames. A camera has no sound, so ``sound`` is not called.

        Raises:
            OSError: the camera returns no picture.
        """
        begun, last = None, -1
        while True:
            there, pixels = self._capture.read()
            if not there:
                break
            now = time.monotonic()
            begun = now if begun is None else begun
            last = max(last + 1, round((now - begun) / self.tick))
            yield Frame(np.ascontiguousarray(pixels[..., ::-1]), last, float(last * self.tick))
        if begun is None:
            raise OSError(f"video: {self.name} returns no picture")


def open_video(source: str | Path) -> VideoFile | Camera:
    """Open a file by its path, or a camera by its number. ``./0`` is the file with the name 0.

    Raises:
        FileNotFoundError, ValueError, OSError: as `VideoFile` and `Camera` raise them.
    """
    return Camera(int(source)) if isinstance(source, str) and source.isdecimal() else VideoFile(source)


def shown(image: NDArray[np.uint8], matrix: Sequence[int]) -> NDArray[np.uint8]:
    """A picture as a display matrix asks for: turned by quarter turns, and mirrored.

    Args:
        image: (H, W, 3).
        matrix: a, b, c, d. A pixel x, y is shown at a x + c y, b x + d y.
    """
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        right, down = a, d
    else:
        image, right, down = image.transpose(1, 0, 2), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _display(frame: Any) -> Sequence[int]:
    """The display matrix of a frame of PyAV; without one it is the identity."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    return a, b, c, d


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
