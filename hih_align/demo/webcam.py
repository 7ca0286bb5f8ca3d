"""The tab *Webcam*: tracks faces while the camera runs, and shows the frame rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from ..tracking import FaceTracker
from . import choices, uploads, view
from .models import Models

#: Shortest time between two frames that the page sends, in seconds. A frame waits until the frame before is done.
EVERY = 0.05

#: Longer side of the frames in pixels. Larger frames are reduced.
SIDE = 640

#: Weight of the newest frame in the smoothed frame rate.
NEWEST = 0.2


@dataclass(eq=False)
class Stream:
    """The camera of one user.

    Attributes:
        tracker: tracks the faces.
        chosen: the choices for which the tracker was created: model, scheme, decoder and smoothing.
        begun: time at which the camera started, in seconds of `time.monotonic`.
        last: time at which the last frame was done. None before the first frame.
        rate: smoothed number of frames per second. 0 before the second frame.
    """

    tracker: FaceTracker
    chosen: tuple[str, str | None, str, bool]
    begun: float
    last: float | None = None
    rate: float = 0.0

    def update(self, frame: NDArray[np.uint8]) -> tuple[str, str]:
        """HTML of the frame with its faces, and a sentence about the frame rate."""
        frame = view.reduced(frame, SIDE)
        started = time.monotonic()
        faces = self.tracker.update(frame, started - self.begun)
        done = time.monotonic()
        if self.last is not None:
            rate = 1 / max(done - self.last, 1e-6)
            self.rate = rate if self.rate == 0 else self.rate + NEWEST * (rate - self.rate)
        self.last = done
        count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        text = f"{count}, {self.rate:.1f} frames a second, {(done - started) * 1000:.0f} ms to follow the faces"
        return view.picture(frame, faces, text, boxes=False, zoom=False), text


def tab(models: Models, chosen: choices.Choices) -> None:
    """Create the tab."""
    stream = gr.State(None)
    with gr.Row(elem_classes="hih-grid"):
        with gr.Column(elem_classes="hih-in"):
            camera = gr.Image(
                sources=["webcam"], streaming=True, type="numpy", label="Your camera", height=280, elem_id="camera"
            )
        with gr.Column(elem_classes="hih-out"):
            shown = gr.HTML(
                '<div class="hih-empty">Start your camera. Its pictures stay on this machine.</div>',
                elem_id="camera-view",
                js_on_load=choices.script(),
                apply_default_css=False,
            )
            gr.HTML(view.legend(), apply_default_css=False)
        with gr.Column(elem_classes="hih-options"):
            smooth = gr.Checkbox(True, label="Smoothed")
            model, scheme, decode, _ = choices.inputs(models, choices.fast(chosen))

    def step(
        frame: NDArray[np.uint8] | None, one: Stream | None, model: str, scheme: str | None, decode: str, smooth: bool
    ) -> Any:
        if frame is None:
            return gr.skip(), None
        wanted = (model, scheme, decode, smooth)
        try:
            with uploads.told():
                if one is None or one.chosen != wanted:
                    tracker = FaceTracker(models(model, scheme, decode), smooth=smooth)
                    one = Stream(tracker, wanted, time.monotonic() - 1e-3)
                page, _ = one.update(frame)
        except gr.Error as error:  # a message for each frame would fill the page
            page = f'<div class="hih-empty">{view.escaped(error.message)}</div>'
        return page, one

    camera.stream(
        step,
        [camera, stream, model, scheme, decode, smooth],
        [shown, stream],
        stream_every=EVERY,
        time_limit=None,
        concurrency_limit=2,
        show_progress="hidden",
    )
