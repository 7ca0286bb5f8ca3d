"""Videos in which photographs move in a known way: scikit-image's astronaut and matplotlib's Grace Hopper."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import skimage.data
from numpy.typing import NDArray

Array = NDArray[Any]
RATE = 30
SAMPLES = 44100


def astronaut() -> tuple[Array, Array]:
    """A photograph, and the box of its face from the eyebrows to the chin."""
    image: Array = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return image[:300, 80:380], np.array((97.0, 80.0, 195.0, 200.0))


def hopper() -> tuple[Array, Array]:
    """A photograph of another person, and the box of its face."""
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        image = np.array(PIL.Image.open(file).convert("RGB"))
    return image[:420, 80:440], np.array((112.0, 90.0, 282.0, 293.0))


def placing(box: Array, centre: tuple[float, float], side: float) -> Array:
    """The (2, 3) matrix that moves a face's box to a centre and scales its longer side to ``side``."""
    scale = side / (box[2:] - box[:2]).max()
    return np.array(
        [[scale, 0, centre[0] - scale * (box[0] + box[2]) / 2], [0, scale, centre[1] - scale * (box[1] + box[3]) / 2]]
    )


def scene(size: tuple[int, int], faces: Iterable[tuple[Array, Array]]) -> Array:
    """A grey picture of (width, height), (H, W, 3), onto which each photograph is drawn by its matrix."""
    canvas = np.full((size[1], size[0], 3), 90, np.uint8)
    for image, matrix in faces:
        there = cv2.warpAffine(np.full(image.shape[:2], 255, np.uint8), matrix, size) > 250
        canvas[there] = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA)[there]
    return canvas


def write_video(
    path: Path,
    frames: Iterable[Array],
    *,
    codec: str = "libx264",
    sound: str | None = None,
    samples: int = SAMPLES,
    turned: int = 0,
    ticks: Callable[[int], int] = lambda number: number * 1000,
) -> Path:
    """A video of 30 frames a second, with a tone of 440 Hz.

    Args:
        path: the path of the file.
        frames: (H, W, 3) uint8 RGB.
        codec, sound: encoders.
        samples: samples of the tone per second.
        turned: the angle in degrees, counter-clockwise, by which players must rotate the video.
        ticks: a function from a frame's number to the time when the frame is shown, in 1/30000 s.
    """
    import av

    with av.open(str(path), "w") as out:
        stream: Any = None
        tone: Any = out.add_stream(sound, rate=samples, layout="mono") if sound is not None else None  # type: ignore[call-overload]
        for number, frame in enumerate(frames):
            if stream is None:
                # the fastest preset with frames that depend on later ones, as most videos have them
                options = {"crf": "12", "preset": "superfast"} if codec == "libx264" else {}
                stream = out.add_stream(codec, rate=RATE, options=options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000 * RATE)
                if turned:
                    stream.set_display_rotation(turned)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = ticks(number), Fraction(1, 1000 * RATE)
            out.mux(stream.encode(picture))
            if tone is not None:
                at = np.arange(number * samples // RATE, (number + 1) * samples // RATE)
                wave = (9000 * np.sin(2 * np.pi * 440 * at / samples)).astype(np.int16)[None]
                part = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                part.rate, part.pts = samples, int(at[0])
                out.mux(tone.encode(part))
        for each in (stream, tone):
            if each is not None:
                out.mux(each.encode())
    return path


def read_back(path: Path) -> tuple[list[Array], list[float], int, str | None]:
    """Frames, their times in seconds, the number of sound samples, and the codec of the sound."""
    import av

    with av.open(str(path)) as file:
        decoded = list(file.decode(video=0))
        images = [frame.to_ndarray(format="rgb24") for frame in decoded]
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return images, [float(frame.time or 0) for frame in decoded], 0, None
        name = file.streams.audio[0].codec.canonical_name
        samples = sum(frame.samples for frame in file.decode(audio=0))
    return images, [float(frame.time or 0) for frame in decoded], samples, name
