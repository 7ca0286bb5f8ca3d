"""Writes frames and sound to an H.264 file. The frames keep the times of the source. Its sound is copied or encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..files import check_output, is_stream, replacing
from ..images import check_picture
from .pyav import pyav
from .source import Camera, Frame, VideoFile

#: The encoder of written videos, and the suffixes of the file formats that can hold them.
ENCODER = "libx264"
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")

#: Options of x264: a quality without visible loss, and the default speed.
_QUALITY = {"crf": "18", "preset": "medium"}


class VideoWriter:
    """Writes frames as H.264, and sound. `writing` creates it.

    Attributes:
        size: (width, height) of its pictures in pixels. None before the first picture.
    """

    def __init__(self, path: Path, source: VideoFile | Camera) -> None:
        self._av = pyav()
        self._source = source
        self._container = self._av.open(str(path), "w", options={} if path.suffix == ".mkv" else _FAST_START)
        self._stream: Any = None
        self._sounds: dict[int, _Sound] = {}
        self._early: list[Any] = []
        self.size: tuple[int, int] | None = None

    def write(self, picture: NDArray[np.uint8], frame: Frame) -> None:
        """Add a picture with the presentation time of ``frame``.

        Args:
            picture: (H, W, 3) uint8 RGB. If its size differs from that of the first picture, it is resized to fit into
                that size, with black borders.
            frame: the frame of the source.

        Raises:
            ValueError, TypeError: the picture has another shape or dtype.
        """
        check_picture(picture, "picture")
        if self.size is None:
            self._begin(picture)
        assert self.size is not None
        fitted = _fitted(picture, self.size)
        # the usual colour format of H.264 needs even sides
        fitted = np.pad(fitted, ((0, fitted.shape[0] % 2), (0, fitted.shape[1] % 2), (0, 0)), "edge")
        coded = self._av.VideoFrame.from_ndarray(fitted, format="rgb24")
        context = self._stream.codec_context
        coded = coded.reformat(
            format="yuv420p", dst_colorspace=int(context.colorspace), dst_color_range=int(context.color_range)
        )
        coded.pts, coded.time_base = frame.ticks, self._source.tick
        self._container.mux(self._stream.encode(coded))

    def sound(self, packet: Any) -> None:
        """Add an audio packet of the source."""
        if self._stream is None:
            self._early.append(packet)
        else:
            self._sounds[packet.stream.index].add(packet)

    def close(self) -> None:
        """Write the remaining packets and the end of the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
            for sound in self._sounds.values():
                sound.end()
        self._container.close()

    def _begin(self, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        self.size = (width, height)
        stream = self._container.add_stream(ENCODER, rate=self._source.rate, options=_QUALITY)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = self._source.tick
        given = self._source.stream
        if given is not None:
            context = stream.codec_context
            for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
                with suppress(ValueError, OverflowError):
                    setattr(context, name, getattr(given.codec_context, name))
            ratio = given.sample_aspect_ratio
            if ratio:
                turned = (given.codec_context.width > given.codec_context.height) != (width > height)
                context.sample_aspect_ratio = 1 / Fraction(ratio) if turned else ratio
        for given in self._source.sounds:
            self._sounds[given.index] = _Sound(self._container, given)
        self._stream = stream
        for packet in self._early:
            self.sound(packet)
        self._early.clear()


#: The index is written before the frames, so that players can start before the whole file is loaded.
_FAST_START = {"movflags": "+faststart"}


#: Sample rates of AAC. Sound of another rate is encoded at 48 kHz.
_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

#: Sound that FFmpeg lists for the format of .mov, and refuses to write.
_NOT_IN_MOV = ("opus", "flac")

#: Channel layouts of encoded sound by the number of channels.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


class _Sound:
    """One audio stream. It is copied if the file format can hold it, else it is encoded as AAC."""

    def __init__(self, container: Any, given: Any) -> None:
        self._av = pyav()
        self._container = container
        name = given.codec.canonical_name
        # MP4 can hold uncompressed sound, but few players can play it
        playable = not name.startswith("pcm") or container.format.name != "mp4"
        playable = playable and not (container.format.name == "mov" and name in _NOT_IN_MOV)
        self._last: int | None = None
        self._moved = 0
        self._copied = playable and name in container.supported_codecs
        if self._copied:
            self._stream = container.add_stream_from_template(given)
        else:
            layout = _LAYOUTS.get(given.layout.nb_channels, "stereo")  # the layout of the source may have no name
            self._stream = container.add_stream(
                "aac", rate=given.rate if given.rate in _RATES else 48000, layout=layout
            )
            self._resampler: Any = None
        if given.language:
            self._stream.metadata["language"] = given.language

    def add(self, packet: Any) -> None:
        with suppress(self._av.error.FFmpegError):  # a broken packet leaves a gap in the sound
            if self._copied:
                self._copy(packet)
                return
            for frame in packet.decode():
                if frame.pts is not None:
                    frame.pts = self._later(frame.pts, frame.samples)
                self._encode(frame)

    def _copy(self, packet: Any) -> None:
        before = packet.dts
        packet.dts = self._later(before, packet.duration or 1)
        if packet.pts is not None:
            packet.pts += packet.dts - before
        packet.stream = self._stream
        self._container.mux(packet)

    def _later(self, ticks: int, duration: int) -> int:
        """A time that is later than the one before. If times begin again, they go on, as in `VideoFile.frames`."""
        if self._last is not None and ticks + self._moved <= self._last:
            self._moved = self._last + duration - ticks
        self._last = ticks + self._moved
        return self._last

    def end(self) -> None:
        if not self._copied:
            if self._resampler is not None:
                self._encode(None)
            self._container.mux(self._stream.encode())

    def _encode(self, frame: Any) -> None:
        if self._resampler is None:
            context = self._stream.codec_context
            context.open(strict=False)
            self._resampler = self._av.AudioResampler(
                context.format, context.layout, context.rate, frame_size=context.frame_size
            )
        for part in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(part))


def check_writable(out: Path, source: str | Path) -> None:
    """Check that a video can be written to a path.

    Raises:
        ValueError: the path has no suffix of a video, or is a stream or the source, or PyAV has no H.264 encoder.
        FileNotFoundError: the parent folder does not exist.
        ImportError: PyAV is not installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out is {out}, expected the name of a video, which ends in {', '.join(SUFFIXES)}")
    if is_stream(out):
        raise ValueError(f"out: {out} is a stream, expected a file, because the start of a video is written last")
    check_output("out", out, Path(source))
    av = pyav()
    try:
        av.codec.Codec(ENCODER, "w")
    except ValueError as error:
        raise ValueError(
            f"out: this build of PyAV {av.__version__} has no encoder {ENCODER} for H.264. The wheels of PyPI have it: "
            "pip install --force-reinstall --only-binary av av. Or use --json without --out to get only the points"
        ) from error


@contextmanager
def writing(out: Path, source: VideoFile | Camera) -> Iterator[VideoWriter]:
    """Yield a `VideoWriter`. Its file replaces ``out`` when the block ends without an error, see `files.replacing`."""
    with replacing(out) as temporary:
        writer = VideoWriter(temporary, source)
        try:
            yield writer
        finally:
            writer.close()


def _fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    width, height = size
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=how)
    return canvas
