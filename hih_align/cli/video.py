"""`hih-align video`: tracks the faces of a video."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import progress
from ..aligner import FaceAligner
from ..drawing import Style
from ..files import STANDARD_OUTPUT, appending, check_output, is_stream, replacing
from ..signals import StopRequest
from ..tracking import FaceTracker
from ..video import Camera, check_writable, open_video, writing
from .options import (
    INTERRUPTED,
    Backend,
    Colour,
    Contours,
    Decode,
    Device,
    DrawBox,
    DrawLabels,
    DrawScores,
    Dtype,
    LineColour,
    Model,
    PointSize,
    Thickness,
    commands,
)

app = commands()


@app.command()
def video(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A video file, or the number of a camera: 0 is the first.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the video with the faces drawn, and with its sound: .mp4, .m4v, .mov or .mkv."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", help="Write points and scores as JSON Lines, one line per frame. - is stdout."),
    ] = None,
    model: Model = "HIH_T",
    scheme: Annotated[str | None, typer.Option(help="300w, wflw or cofw.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    decode: Decode = None,
    smooth: Annotated[bool, typer.Option(help="Smooth the points over time.")] = True,
    every: Annotated[int, typer.Option(help="Detect new faces once in this number of frames.")] = 10,
    keep: Annotated[
        float, typer.Option(help="A lost face that reappears within this many seconds gets its old number.")
    ] = 1.0,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Stop after this time of the video, in seconds.", show_default="the end; for a camera, Ctrl-C"
        ),
    ] = None,
    contours: Contours = True,
    box: DrawBox = False,
    labels: DrawLabels = False,
    scores: DrawScores = False,
    ids: Annotated[bool, typer.Option(help="Draw the number of each face above it.")] = True,
    point_size: PointSize = None,
    thickness: Thickness = None,
    colour: Colour = None,
    line_colour: LineColour = "white",
) -> None:
    """Track the faces of a video or of a camera.

    Without --out and --json, JSON Lines go to the standard output. Ctrl-C and SIGTERM stop the command early. The files
    then contain the frames up to this moment.
    """
    style = Style(contours, box, labels, scores, ids, point_size, thickness, colour, line_colour)
    if out is None and style != Style(line_colour="white"):
        raise ValueError("out is missing: the drawing options need --out with the name of the video")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds}, expected more than 0")
    if out is not None:
        check_writable(out, source)
    if json_path is not None:
        if json_path == out:
            raise ValueError(f"out and json are both {out}, expected different outputs")
        check_output("json", json_path, Path(source))
    with open_video(source) as given:
        aligner = FaceAligner.from_pretrained(model, scheme, device, dtype, backend, decode)  # type: ignore[arg-type]
        tracker = FaceTracker(aligner, smooth=smooth, every=every, keep=keep)
        stop = StopRequest()
        target = Path(STANDARD_OUTPUT) if json_path is None and out is None else json_path
        total = given.count if given.count is None or seconds is None else None
        with contextlib.ExitStack() as stack:
            lines = None if target is None else stack.enter_context(_lines(target))
            writer = None if out is None else stack.enter_context(writing(out, given))
            # no bar if the lines are shown in the same terminal
            quiet = target == Path(STANDARD_OUTPUT) and sys.stdout.isatty()
            bar = stack.enter_context(progress.progress_bar(total=total, unit="frame", disable=quiet))
            stack.enter_context(stop.listening())
            number = seen = 0
            for frame in given.frames(None if writer is None else writer.sound):
                if seconds is not None and frame.time >= seconds:
                    break
                number += 1
                faces = tracker.update(frame.image, time=frame.time)
                seen += len(faces)
                if writer is not None:
                    writer.write(faces.draw(frame.image, **vars(style)), frame)
                if lines is not None:
                    height, width = frame.image.shape[:2]
                    about = {"frame": number - 1, "time": round(frame.time, 6), "width": width, "height": height}
                    lines.write(json.dumps(about | faces.to_dict()) + "\n")
                    lines.flush()
                bar.update()
                if stop.made:
                    break
        if not seen:
            progress.say(f"{given.name}: no face was found")
        if given.broken:
            progress.say(f"{given.name}: {given.broken} packets could not be decoded and were skipped")
        if stop.made and not isinstance(given, Camera):  # for a camera this is the usual end
            held = " and ".join(str(path) for path in (out, json_path) if path is not None and not is_stream(path))
            progress.say(
                f"interrupted after {number} frames"
                + (f". {held} contain{'s' * (' and ' not in held)} these frames" if held else "")
            )
            raise typer.Exit(INTERRUPTED)


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Any]:
    """Yield a text file. If ``path`` is no stream, the file replaces it when the block ends without an error."""
    if is_stream(path):
        with appending(path) as stream:
            yield stream
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file
