"""HTML of a picture with its faces: points over the photograph, coloured by score, with their names as titles."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..drawing import by_score
from ..landmarks import Landmarks
from ..schemes import Scheme

#: Longer side of the photograph in the page, in pixels. Points keep their precision.
SHOWN = 1600

#: If the faces take a smaller share of the width or of the height of the picture than this, the view starts enlarged.
SMALL = 0.5

#: Smallest radius of a point, as a share of the longer side of the view.
LEAST = 1 / 450


def picture(
    image: NDArray[np.uint8], faces: Landmarks | None = None, note: str = "", boxes: bool = True, zoom: bool = True
) -> str:
    """The photograph with its faces.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: N faces. None, or N = 0: only the photograph.
        note: a sentence below the picture.
        boxes: draw the boxes of the faces.
        zoom: start with an enlarged view if the faces are small.
    """
    height, width = image.shape[:2]
    part = None if faces is None or not zoom else around(faces, width, height)
    least = max((width, height) if part is None else part[2:]) * LEAST
    shown = "" if faces is None else "".join(face(one, number, boxes, least) for number, one in enumerate(faces))
    return figure(place(jpeg(image), width, height), shown, (0, 0, width, height), note, part)


def figure(
    background: str,
    shapes: str,
    whole: tuple[float, float, float, float],
    note: str = "",
    part: tuple[float, float, float, float] | None = None,
) -> str:
    """HTML of an SVG in the coordinates of a picture, and a sentence below it.

    Coordinates are in pixels. 0 is at the centre of the first pixel.

    Args:
        background, shapes: SVG.
        whole: x, y, width and height of the picture.
        note: the sentence.
        part: x, y, width and height of the part that is shown at first. A button switches to the whole picture.
    """
    views = [_box(whole)] if part is None else [_box(part), _box(whole)]
    other = "" if part is None else f'<button type="button" data-view="{views[1]}">Whole picture</button>'
    text = escaped(note)
    return (
        f'<figure class="hih-view"><svg viewBox="{views[0]}" role="img" aria-label="{text}">{background}{shapes}'
        f"</svg><figcaption><span>{text}</span>{other}</figcaption></figure>"
    )


def around(faces: Landmarks, width: int, height: int) -> tuple[float, float, float, float] | None:
    """x, y, width and height of the part of a picture that contains its faces. None if this part is large."""
    if not len(faces):
        return None
    low, high = faces.points.min((0, 1)), faces.points.max((0, 1))
    margin = 0.6 * float((faces.points.max(1) - faces.points.min(1)).max())
    x1, y1 = (max(0.0, float(value)) for value in low - margin)
    x2, y2 = min(float(width), float(high[0]) + margin), min(float(height), float(high[1]) + margin)
    if x2 - x1 > SMALL * width and y2 - y1 > SMALL * height:
        return None
    return x1, y1, x2 - x1, y2 - y1


def face(one: Landmarks, number: int = 0, box: bool = True, least: float = 0) -> str:
    """SVG of the contours, points and box of one face. The title of a point is its name and its score.

    Args:
        one: the face.
        number: number of the face.
        box: draw the box of the face.
        least: smallest radius of a point, in pixels of the picture. Points of a very small face may be smaller.
    """
    side = max(float(np.ptp(one.points, axis=0).max()), 1.0)
    radius = max(side / 95, min(least, side / 45))
    parts = [f'<g class="hih-face" data-face="{number}" stroke-width="{side / 280:.3f}">']
    if box:
        x1, y1, x2, y2 = (float(v) for v in one.bbox)
        parts.append(f'<rect class="hih-box" x="{x1:.2f}" y="{y1:.2f}" width="{x2 - x1:.2f}" height="{y2 - y1:.2f}"/>')
    for contour in one.scheme.contours:
        line = " ".join(f"{x:.2f},{y:.2f}" for x, y in one.points[list(contour)])
        parts.append(f'<polyline points="{line}"/>')
    for index, ((x, y), score) in enumerate(zip(one.points, one.scores, strict=True)):
        title = f"{one.scheme.names[index]} ({index}), {part_of(one.scheme, index)}score {float(score):.2f}"
        parts.append(
            f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.3f}" fill="{colour(float(score))}" '
            f'data-index="{index}"><title>{escaped(title)}</title></circle>'
        )
    return "".join(parts) + "</g>"


def part_of(scheme: Scheme, index: int) -> str:
    """The part of the face of a landmark, such as "left eye, ". The smallest part if there are several, "" if none."""
    groups = [(len(group), name) for name, group in scheme.parts.items() if index in group]
    return f"{min(groups)[1].replace('_', ' ')}, " if groups else ""


def colour(score: float) -> str:
    """The colour of a score, as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*by_score(score))


def legend() -> str:
    """HTML of the legend of the colours."""
    stops = ", ".join(colour(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    return (
        '<div class="hih-legend"><span>score 0: not found</span>'
        f'<i style="background: linear-gradient(90deg, {stops})"></i><span>1: found for sure</span></div>'
    )


def chips(images: NDArray[np.uint8], name: str) -> str:
    """HTML of pictures side by side. A click on a picture saves it.

    Args:
        images: (N, S, S, 3) uint8 RGB. N may be 0.
        name: start of the names of the saved files.
    """
    if not len(images):
        return ""
    parts = []
    for number, image in enumerate(images):
        uri, file = pixels(image), escaped(f"{name}-face-{number + 1}.png")
        parts.append(f'<a href="{uri}" download="{file}" title="Save {file}"><img src="{uri}" alt="{file}"></a>')
    side = images.shape[1]
    return f'<div class="hih-chips"><h4>Aligned chips, {side} x {side}: a click saves one</h4>{"".join(parts)}</div>'


def table(faces: Landmarks) -> str:
    """HTML table with one row per face: number, score, score of the detector, box, roll."""
    if not len(faces):
        return ""
    found = faces.detection_scores
    lines = []
    for number, one in enumerate(faces):
        cells = [
            str(number + 1),
            f"{one.score:.3f}",
            "" if found is None else f"{found[number]:.3f}",
            *(f"{float(value):.1f}" for value in one.bbox),
            "" if one.scheme.five is None else f"{one.roll:.1f}",
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("face", "score", "detector", "x1", "y1", "x2", "y2", "roll"))
    return f'<div class="hih-table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def jpeg(image: NDArray[np.uint8], side: int = SHOWN) -> str:
    """A data URI of the picture as JPEG. It is reduced to a longer side of at most ``side`` pixels."""
    return _uri(reduced(image, side), "JPEG", quality=88)


def reduced(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose longer side is at most ``side`` pixels, and whose shorter side is at least 1 pixel."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pixels(image: NDArray[np.uint8]) -> str:
    """A data URI of the picture as PNG, with unchanged pixels."""
    return _uri(image, "PNG")


def place(uri: str, width: float, height: float, kind: str = "") -> str:
    """An SVG image of ``width`` x ``height`` pixels. The centre of its first pixel is at 0."""
    return f'<image class="{kind}" href="{uri}" x="-0.5" y="-0.5" width="{width}" height="{height}"/>'


def boxes_as_text(boxes: Sequence[Sequence[float]]) -> str:
    """Text with one line x1, y1, x2, y2 per box."""
    return "\n".join(", ".join(f"{value:.1f}" for value in box) for box in boxes)


def boxes_from_text(text: str) -> list[list[float]] | None:
    """The boxes of a text with one line x1, y1, x2, y2 per box. None if the text is empty.

    Raises:
        ValueError: a line does not consist of four numbers.
    """
    found = []
    for line in filter(str.strip, (text or "").splitlines()):
        try:
            x1, y1, x2, y2 = (float(word) for word in line.replace(",", " ").split())
        except ValueError:
            raise ValueError(f"boxes: the line {line!r} is not four numbers x1, y1, x2, y2") from None
        found.append([x1, y1, x2, y2])
    return found or None


def _uri(image: NDArray[np.uint8], kind: str, **options: Any) -> str:
    data = io.BytesIO()
    PIL.Image.fromarray(image).save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def _box(part: tuple[float, float, float, float]) -> str:
    x, y, width, height = part
    return f"{x - 0.5:.1f} {y - 0.5:.1f} {width:.1f} {height:.1f}"


def escaped(text: str) -> str:
    """Text for HTML. Names of landmarks and of files are foreign: a model or a visitor may write tags into them."""
    return html.escape(text, quote=True)
