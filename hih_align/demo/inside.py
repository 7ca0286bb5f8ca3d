"""The tab *Look inside*: the two heatmaps of one landmark, and how they are decoded (Fig. 1 and 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from ..aligner import FaceAligner, Heatmaps
from ..landmarks import Landmarks
from ..method.decoder import STRIDE
from ..method.heatmaps import centroid, expectation, peak
from ..passes import TURN
from . import choices, uploads, view
from .photo import Result, aligning

EMPTY = '<div class="hih-empty">First choose a photograph in the tab <b>Photo</b>. Its first face is shown here.</div>'

WITHOUT = '<div class="hih-empty">This model is an exported file, which gives points and scores but no heatmaps.</div>'


@dataclass(frozen=True)
class Reading:
    """The place of a landmark, decoded from its heatmaps. All values are x, y.

    Attributes:
        peak: (2,) pixel of the maximum of the integer heatmap.
        cell: (2,) cell of the maximum of the decimal heatmap.
        centroid: (2,) centre of mass around the maximum of the integer heatmap, in heatmap pixels.
        expected: (2,) expectation of the decimal heatmap, in cells.
        argmax: (2,) the landmark by Eq. 4 of the paper, in crop pixels.
        expectation: (2,) the landmark by the expectation, in crop pixels, without the shift of the decoder.
    """

    peak: NDArray[np.float32]
    cell: NDArray[np.float32]
    centroid: NDArray[np.float32]
    expected: NDArray[np.float32]
    argmax: NDArray[np.float32]
    expectation: NDArray[np.float32]


def reading(maps: Heatmaps, index: int, aligner: FaceAligner) -> Reading:
    """Decode the heatmaps of head ``index`` in both ways, with the settings of the decoder in the checkpoint."""
    decoder = aligner.config.decoder
    integer, decimal = (torch.from_numpy(m[index]).float() for m in (maps.integer, maps.decimal))
    top, cell = peak(integer), peak(decimal)
    middle, mean = centroid(integer, decoder.radius, decoder.power), expectation(decimal, decoder.temperature)
    side = decimal.shape[-1]
    offset = decoder.bin_offset
    found = [
        top,
        cell,
        middle,
        mean,
        (top + (cell + offset) / side) * STRIDE,
        (middle + (mean + offset) / side) * STRIDE,
    ]
    return Reading(*(value.numpy() for value in found))


def heatmaps(result: Result, number: int) -> Heatmaps:
    """The heatmaps of face ``number`` in its box. A turned face is turned upright, as `FaceAligner.align` does it."""
    faces = result.faces
    roll = 0.0 if faces.scheme.five is None else faces[number].roll
    return result.aligner.heatmaps(result.image, faces.bbox[number], roll if abs(roll) > TURN else 0.0)


def page(result: Result, number: int, index: int) -> str:
    """HTML with the crop that the network got, and with the two heatmaps of head ``index``.

    A sentence instead, if the network's weights are not here.
    """
    aligner = result.aligner
    if not _has_network(aligner):
        return WITHOUT
    maps = heatmaps(result, number)
    read = reading(maps, index, aligner)
    scheme = aligner.config.scheme
    name = scheme.names[index] if aligner.config.readout is None else f"head {index}"
    size, low, high = maps.crop.shape[0], maps.integer.shape[-1], maps.decimal.shape[-1]
    decimal = maps.decimal[index] / aligner.config.decoder.temperature
    probability = np.exp(decimal - decimal.max())
    parts = [
        (
            "What the network sees",
            view.figure(
                view.place(view.pixels(maps.crop), size, size)
                + heat(maps.integer[index], size)
                + points(maps, aligner),
                _cross(read.argmax, size / 40) + _dot(read.expectation, size / 110),
                (0, 0, size, size),
                f"{name}, with its integer heatmap over the crop of {size} x {size} pixels. Click another landmark.",
            ),
        ),
        (
            f"Integer heatmap, {low} x {low}",
            view.figure(
                view.place(view.pixels(coloured(maps.integer[index])), low, low, "hih-map"),
                _square(read.peak) + _dot(read.centroid, low / 90),
                (0, 0, low, low),
                f"Maximum {maps.integer[index].max():.2f} at ({_pair(read.peak, 0)}), centre of mass around it "
                f"({_pair(read.centroid, 2)}): which of the crop's {STRIDE} x {STRIDE} pixel cells holds the landmark.",
            ),
        ),
        (
            f"Decimal heatmap, {high} x {high}",
            view.figure(
                view.place(view.pixels(coloured(probability)), high, high, "hih-map"),
                _square(read.cell) + _dot(read.expected, high / 60),
                (0, 0, high, high),
                f"Maximum at ({_pair(read.cell, 0)}), expectation ({_pair(read.expected, 2)}) of {high}: where in that "
                "cell the landmark lies.",
            ),
        ),
    ]
    figures = "".join(f"<div><h4>{title}</h4>{figure}</div>" for title, figure in parts)
    apart = float(np.linalg.norm(read.argmax - read.expectation))
    way = (
        f"<p><i class='hih-mark'></i>argmax (the paper's Eq. 4): {_pair(read.argmax, 2)} crop pixels. "
        f"<i class='hih-mark dot'></i>expectation: {_pair(read.expectation, 2)} crop pixels. "
        f"Difference: {apart:.2f} crop pixels, {apart / maps.transform.scale:.2f} pixels of the photograph."
        f"{_after(aligner)}</p>"
    )
    return f'<div class="hih-maps">{figures}</div>{way}'


def _has_network(aligner: FaceAligner) -> bool:
    try:
        return aligner.network is not None
    except ValueError:
        return False


def _after(aligner: FaceAligner) -> str:
    """A sentence with the steps from the expectation to the landmark that `align` returns."""
    config = aligner.config
    steps = ["the constant shift of the labels is added"] if any(config.decoder.shift) else []
    steps += ["the other landmarks correct it"] if config.correction is not None else []
    return f" Then {' and '.join(steps)}." if steps else ""


def coloured(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB picture of a map (h, w): low values are dark, high values are bright."""
    low, high = max(float(values.min()), 0.0), float(values.max())
    grey = np.clip((values - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def heat(values: NDArray[np.float32], size: int) -> str:
    """A map as an SVG layer over the crop: low values are transparent.

    Pixel i of the map stands for the crop pixel 4 i. It is drawn as a square of 4 pixels around the crop pixel 4 i.
    """
    share = np.clip(values / max(float(values.max()), 1e-6), 0, 1)
    layer = np.zeros((*values.shape, 4), np.uint8)
    layer[..., 0], layer[..., 1], layer[..., 3] = 255, 160, (share * 200).astype(np.uint8)
    return (
        f'<image class="hih-map" href="{view.pixels(layer)}" x="{-STRIDE / 2}" y="{-STRIDE / 2}" width="{size}" '
        f'height="{size}"/>'
    )


def points(maps: Heatmaps, aligner: FaceAligner) -> str:
    """The landmarks of the crop as SVG: small points that the user can click."""
    marks = []
    for head in range(len(maps.integer)):
        x, y = reading(maps, head, aligner).expectation
        title = aligner.config.scheme.names[head] if aligner.config.readout is None else f"head {head}"
        marks.append(
            f'<circle class="hih-small" cx="{x:.2f}" cy="{y:.2f}" r="{len(maps.crop) / 128:.2f}" data-index="{head}">'
            f"<title>{view.escaped(f'{title} ({head})')}</title></circle>"
        )
    return f'<g class="hih-face" data-face="-1">{"".join(marks)}</g>'


def landmarks(aligner: FaceAligner) -> list[tuple[str, int]]:
    """Names and indices of the heads of the network."""
    config = aligner.config
    names = config.scheme.names if config.readout is None else [f"head {i}" for i in range(config.heads)]
    return [(f"{index} {name}", index) for index, name in enumerate(names)]


def start(aligner: FaceAligner) -> int:
    """Index of the landmark that is shown first: the corner of an eye."""
    names = aligner.config.scheme.names
    return names.index("left_eye_0") if aligner.config.readout is None and "left_eye_0" in names else 0


def tab(result: Any, photograph: Any) -> None:
    """Create the tab.

    Args:
        result: the component that holds the `Result` of the tab *Photo*.
        photograph: the view of the tab *Photo*. A click on one of its points chooses a landmark in this tab.
    """
    gr.Markdown(
        "The network gives two heatmaps for each landmark: a coarse one says in which cell the landmark lies, and a "
        "fine one where in the cell. Here you see both on the photograph of the tab *Photo*, of one pass on the box of "
        "the face. A turned face is turned upright first."
    )
    with gr.Row():
        number = gr.Dropdown([], label="Face and score", min_width=120, elem_id="inside-face", interactive=True)
        index = gr.Dropdown([], label="Landmark", min_width=200, elem_id="inside-landmark", interactive=True)
    shown = gr.HTML(EMPTY, elem_id="inside-view", js_on_load=choices.script(), apply_default_css=False)

    def listed(one: Result | None) -> Any:
        if one is None or not len(one.faces):
            return gr.Dropdown([], value=None), gr.Dropdown([], value=None)
        aligner = one.aligner
        faces = [(_face_name(face, i), i) for i, face in enumerate(one.faces)]
        return gr.Dropdown(faces, value=0), gr.Dropdown(landmarks(aligner), value=start(aligner))

    @uploads.telling
    def run(one: Result | None, number: int | None, index: int | None) -> str:
        if one is None or number is None or index is None or number >= len(one.faces):
            return EMPTY
        return page(one, number, min(index, one.aligner.config.heads - 1))

    options = aligning(shown)
    inputs = [result, number, index]
    result.change(listed, result, [number, index], show_progress="hidden").then(run, inputs, shown, **options)
    gr.on([number.input, index.input], run, inputs, shown, **options)

    def chosen(event: gr.EventData) -> int:
        return int(event.index)

    shown.landmark(chosen, None, index, show_progress="hidden").then(run, inputs, shown, **options)

    def pointed(one: Result | None, event: gr.EventData) -> Any:
        same = one is not None and one.aligner.config.readout is None and one.faces.scheme == one.aligner.config.scheme
        return int(event.face), int(event.index) if same else gr.skip()

    photograph.landmark(pointed, result, [number, index], show_progress="hidden").then(run, inputs, shown, **options)


def _face_name(face: Landmarks, number: int) -> str:
    return f"{number + 1}: {face.score:.2f}"


def _square(pixel: NDArray[np.float32]) -> str:
    x, y = (float(v) for v in pixel)
    return f'<rect class="hih-argmax" x="{x - 0.5}" y="{y - 0.5}" width="1" height="1"/>'


def _cross(point: NDArray[np.float32], arm: float) -> str:
    x, y = (float(v) for v in point)
    return f'<path class="hih-argmax" d="M{x - arm:.2f},{y:.2f}H{x + arm:.2f}M{x:.2f},{y - arm:.2f}V{y + arm:.2f}"/>'


def _dot(point: NDArray[np.float32], radius: float) -> str:
    x, y = (float(v) for v in point)
    return f'<circle class="hih-expected" cx="{x:.3f}" cy="{y:.3f}" r="{radius:.3f}"/>'


def _pair(values: NDArray[np.float32], digits: int) -> str:
    return f"{float(values[0]):.{digits}f}, {float(values[1]):.{digits}f}"
