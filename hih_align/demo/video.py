"""The tab *Video*: a video comes in; it goes out with its faces, as they are found and smoothed side by side."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..aligner import FaceAligner
from ..tracking import FaceTracker
from ..video import VideoFile, writing
from . import choices, uploads
from .models import Models
from .session import working_folder

#: Seconds of a video that are worked on: a CPU needs much longer for them.
SECONDS = 60.0

#: Largest frames, megapixels.
MEGAPIXELS = 9

#: Longer side of each half of the picture, pixels: browsers play no video of any size.
SIDE = 960

#: Seconds between two reports to the page.
REPORTED = 0.5

#: What the page says of a video before its turn, and of one that was cancelled.
WAITING = '<p class="hih-progress"><progress></progress>The video waits for its turn</p>'
CANCELLED = '<p class="hih-progress">Cancelled.</p>'


@dataclass(frozen=True)
class Done:
    """How far a video is.

    Attributes:
        frames: done.
        count: to be done, as far as the file says; None: it does not.
        cut: the video goes on after the last frame that is worked on.
    """

    frames: int
    count: int | None
    cut: bool = False


@dataclass(eq=False)
class Wish:
    """What one visitor wants. The page and the work on a video share it: work on anything but the last wish ends.

    Attributes:
        last: the last wish: path of the video, model, scheme and decoder. None: nothing, or it was cancelled.
        begun: the wish on which work began last.
    """

    last: tuple[str, str, str | None, str] | None = None
    begun: tuple[str, str, str | None, str] | None = None


def side_by_side(source: Path, out: Path, aligner: FaceAligner, seconds: float = SECONDS) -> Generator[Done]:
    """Write a video with the faces drawn, on the left as they are found, on the right smoothed; sound is kept.

    The file appears before the last value. An iterator that is closed before leaves no file.

    Args:
        source: a video file.
        out: the file to be written, .mp4.
        aligner: aligns the faces.
        seconds: of the video that are worked on; the rest is left out.

    Raises:
        ValueError: no video, or one of larger frames than `MEGAPIXELS`.
        ImportError: PyAV is not installed.
    """
    with VideoFile(source) as given:
        tracker = FaceTracker(aligner)
        most = None if given.count is None else min(given.count, round(seconds * float(given.rate)))
        number, cut = 0, False
        with writing(out, given) as writer:
            for frame in given.frames(writer.sound):
                cut = frame.time >= seconds
                if cut:
                    break
                height, width = frame.image.shape[:2]
                if width * height > MEGAPIXELS * 1e6:
                    raise ValueError(
                        f"{source.name} has frames of {width} x {height} pixels: this page takes at most {MEGAPIXELS} "
                        "megapixels. The command hih-align video has no such limit"
                    )
                smooth = tracker.update(frame.image, frame.time)
                found = smooth if tracker.raw is None else tracker.raw
                scale = min(1.0, SIDE / max(height, width))
                writer.write(np.hstack([faces.draw(frame.image, scale=scale) for faces in (found, smooth)]), frame)
                number += 1
                yield Done(number, most)
        yield Done(number, number, cut)


def said(done: Done, seconds: float, ended: bool = False) -> str:
    """How far a video is, as HTML.

    Args:
        done: how far.
        seconds: since it was begun.
        ended: the result is there.
    """
    rate = done.frames / max(seconds, 1e-6)
    text = f"{done.frames} frames, {rate:.1f} frames a second"
    if ended:
        more = (
            f" The first {SECONDS:.0f} seconds of the video; <code>hih-align video</code> takes all."
            if done.cut
            else ""
        )
        return f'<p class="hih-progress">{text}.{more}</p>'
    if not done.count:
        return f'<p class="hih-progress"><progress></progress>{text}</p>'
    left = max(done.count - done.frames, 0) / max(rate, 1e-6)
    return (
        f'<p class="hih-progress"><progress max="{done.count}" value="{min(done.frames, done.count)}"></progress>'
        f"{done.frames} of {done.count} frames, {rate:.1f} frames a second, about {left:.0f} s left</p>"
    )


def tab(models: Models, chosen: choices.Choices) -> None:
    """The tab."""
    with gr.Row(elem_classes="hih-grid"):
        with gr.Column(elem_classes="hih-in"):
            video = gr.Video(sources=["upload"], label="Your video", height=260, elem_id="video", buttons=[])
        with gr.Column(elem_classes="hih-out"):
            shown = gr.Video(
                label="Left: as found. Right: smoothed", interactive=False, elem_id="video-view", buttons=["download"]
            )
            status = gr.HTML("", elem_id="video-status", apply_default_css=False)
        with gr.Column(elem_classes="hih-options"):
            with gr.Row():
                go = gr.Button("Follow the faces", variant="primary", elem_id="video-go", min_width=100)
                stop = gr.Button("Cancel", elem_id="video-stop", min_width=100)
            model, scheme, decode, _ = choices.inputs(models, choices.fast(chosen))

    def begin(wish: Wish, path: str | None, model: str, scheme: str | None, decode: str) -> tuple[None, str]:
        if path is None:
            raise gr.Error("First choose a video", print_exception=False)
        wish.last = (path, model, scheme, decode)
        return None, WAITING

    def run(wish: Wish) -> Iterator[Any]:
        wanted = wish.last
        if wanted is None or wanted is wish.begun:  # cancelled, or the run before this one has taken it
            yield gr.skip(), gr.skip()
            return
        wish.begun = wanted
        path, model, scheme, decode = wanted
        yield None, '<p class="hih-progress"><progress></progress>The video is being opened</p>'
        done = Done(0, None)
        try:
            with uploads.told(Path(path)), working_folder() as folder:
                source = uploads.there(path)
                out = folder / f"{source.stem}-landmarks.mp4"
                aligner = models(model, scheme, decode)
                begun = reported = time.monotonic()
                with closing(side_by_side(source, out, aligner)) as steps:
                    for done in steps:
                        if wish.last is not wanted:
                            yield None, CANCELLED if wish.last is None else WAITING
                            return
                        now = time.monotonic()
                        if now - reported > REPORTED:
                            reported = now
                            yield gr.skip(), said(done, now - begun)
        except gr.Error:
            yield None, ""  # nothing is on its way any more
            raise
        yield str(out), said(done, time.monotonic() - begun, ended=True)

    def cancel(wish: Wish) -> str:
        wish.last = None
        return CANCELLED

    wish = gr.State(Wish())  # each visitor has an own copy
    started = gr.on(
        [video.upload, go.click],
        begin,
        [wish, video, model, scheme, decode],
        [shown, status],
        trigger_mode="always_last",
        show_progress="hidden",
    )
    started.success(run, wish, [shown, status], concurrency_limit=1, trigger_mode="always_last", show_progress="hidden")
    stop.click(cancel, wish, status, queue=False, show_progress="hidden")
