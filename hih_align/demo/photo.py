"""The tab *Photo*: shows the faces of a photograph as a picture, a table, chips and files to download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from .. import files
from ..aligner import FaceAligner
from ..hub.download import WeightsUnavailableError
from ..images import write_image
from ..landmarks import Landmarks
from . import choices, uploads, view
from .models import Models
from .session import result_folder

#: Largest number of chips that are shown, and their side in pixels.
CHIPS, CHIP_SIDE = 24, 112


@dataclass(frozen=True, eq=False)
class Result:
    """A photograph and its faces.

    Attributes:
        name: name of the file.
        image: (H, W, 3) uint8 RGB.
        faces: N faces, N may be 0.
        aligner: the aligner that found the landmarks.
    """

    name: str
    image: NDArray[np.uint8]
    faces: Landmarks
    aligner: FaceAligner


def downloads(result: Result) -> tuple[str, str, str]:
    """Write the faces as JSON, as COCO keypoints, and drawn into the photograph (PNG). Returns the three paths."""
    folder, name = result_folder(), stem(result)
    height, width = result.image.shape[:2]
    listed = [{"file": result.name, "index": i} | face.to_dict() for i, face in enumerate(result.faces)]
    made = []
    for suffix, content in (("landmarks", listed), ("coco", result.faces.to_coco(result.name, width, height))):
        path = folder / f"{name}-{suffix}.json"
        with files.replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        made.append(str(path))
    drawn = folder / f"{name}-landmarks.png"
    write_image(drawn, result.faces.draw(result.image))
    return made[0], made[1], str(drawn)


def stem(result: Result) -> str:
    """The start of the names of a result's files."""
    return Path(result.name).stem or "photo"


def sentence(faces: Landmarks) -> str:
    """A sentence about the faces."""
    if not len(faces):
        return "No face was found. Draw a box around a face with the mouse."
    points = faces.points.shape[-2]
    if len(faces) == 1:
        found = f"1 face with {points} points, score {faces.score[0]:.2f}."
    else:
        scores = ", ".join(f"{score:.2f}" for score in faces.score[:6])
        found = f"{len(faces)} faces with {points} points each, scores {scores}{', ...' if len(faces) > 6 else ''}."
    scores = "" if faces.calibrated else " The scores are not calibrated: they rank points, but are no probabilities."
    return f"{found} Point at a landmark for its name.{scores}"


def aligning(shown: Any) -> dict[str, Any]:
    """Options of events that align: two at once in all tabs, and progress on the view ``shown``.

    By default Gradio drops what the visitor does while the event before is answered.
    """
    return {
        "concurrency_limit": 2,
        "concurrency_id": "align",
        "show_progress_on": shown,
        "trigger_mode": "always_last",
    }


def tab(models: Models, chosen: choices.Choices) -> tuple[Any, Any]:
    """Create the tab. Returns the component that holds its `Result` or None, and the view of the picture."""
    result = gr.State(None)
    with gr.Row(elem_classes="hih-grid"):
        with gr.Column(elem_classes="hih-in"):
            photo = uploads.photo_input(
                sources=["upload", "clipboard", "webcam"],
                buttons=[],
                height=260,
                label="Your photograph",
                placeholder="Drop a photograph here\n- or -\nClick to choose one",
                elem_id="photo",
            )
        with gr.Column(elem_classes="hih-out"):
            shown = gr.HTML(
                choices.EMPTY,
                elem_id="photo-view",
                js_on_load=choices.script(),
                apply_default_css=False,
            )
            gr.HTML(view.legend(), apply_default_css=False)
            table = gr.HTML("", elem_id="faces", apply_default_css=False)
            with gr.Row():
                as_json, as_coco, as_png = (
                    gr.DownloadButton(text, elem_id=f"download-{name}", size="sm", min_width=80, interactive=False)
                    for text, name in (("JSON", "json"), ("COCO", "coco"), ("Picture (PNG)", "png"))
                )
            chips = gr.HTML("", elem_id="chips", apply_default_css=False)
        with gr.Column(elem_classes="hih-options"):
            boxes = gr.Textbox(
                label="Boxes",
                info="Empty: faces are found by themselves. Else a line x1, y1, x2, y2 for each face; or draw boxes in "
                "the picture.",
                lines=2,
                max_lines=6,
                elem_id="boxes",
            )
            with gr.Row():
                again = gr.Button("Align", variant="primary", elem_id="align", min_width=100)
                clear = gr.Button("Find all faces", elem_id="find", min_width=100)
            model, scheme, decode, followed = choices.inputs(models, chosen)

    @uploads.telling
    def run(path: str | None, model: str, scheme: str | None, decode: str, boxes: str) -> Any:
        buttons = (as_json, as_coco, as_png)
        nothing = [None, choices.EMPTY, "", "", *(gr.DownloadButton(value=None, interactive=False) for _ in buttons)]
        if path is None:
            return nothing
        try:
            image = uploads.read_photo(path)
        except ValueError as error:  # an error would leave the result of another photograph on the page
            gr.Warning(" ".join(str(error).split()))
            return nothing
        aligner = models(model, scheme, decode)
        try:
            faces = aligner.align(image, view.boxes_from_text(boxes))
        except WeightsUnavailableError as error:
            gr.Warning(" ".join(str(error).split()))
            faces = aligner.align(image, [])
        one = Result(Path(path).name, image, faces, aligner)
        cut = "" if aligner.scheme.five is None else view.chips(faces[:CHIPS].crop(one.image, CHIP_SIDE), stem(one))
        page = view.picture(one.image, faces, sentence(faces))
        paths = downloads(one)
        return [
            one,
            page,
            view.table(faces),
            cut,
            *(gr.DownloadButton(value=path, interactive=True) for path in paths),
        ]

    inputs = [photo, model, scheme, decode, boxes]
    outputs = [result, shown, table, chips, as_json, as_coco, as_png]
    options = aligning(shown)
    # boxes are those of one photograph
    photo.change(lambda: "", None, boxes, show_progress="hidden").then(run, inputs, outputs, **options)
    gr.on([again.click, boxes.submit, scheme.input, decode.input], run, inputs, outputs, **options)
    followed.then(run, inputs, outputs, **options)
    clear.click(lambda: "", None, boxes, show_progress="hidden").then(run, inputs, outputs, **options)

    def drawn(boxes: str, event: gr.EventData) -> str:
        return "\n".join(filter(str.strip, [*boxes.splitlines(), view.boxes_as_text([event.box])]))

    shown.drawn(drawn, boxes, boxes, show_progress="hidden").then(run, inputs, outputs, **options)
    return result, shown
