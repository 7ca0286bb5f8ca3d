"""`hih-align align` for a folder of photographs: it writes JSON Lines, which a later run continues, and pictures."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL.Image

from .. import progress
from ..aligner import READ_AHEAD, FaceAligner
from ..boxes import read_boxes
from ..files import STANDARD_OUTPUT, appending, is_stream, not_over
from ..images import can_write, write_image
from ..landmarks import Landmarks

#: First bytes of each line that this command writes. Another file is not changed: somebody may need it.
_LINE = b'{"file": '

#: Suffixes of photographs from telephones and cameras that Pillow may not know: they must not be left out silently. Of
#: a raw file Pillow may read the thumbnail, whose pixels are not those of the photograph.
PHOTOGRAPHS = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2")
)


def align(
    aligner: FaceAligner,
    folder: Path,
    boxes: Path | None,
    out: Path | None,
    json_path: Path | None,
    batch_size: int | None,
    options: Mapping[str, Any],
    drawing: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
    """Align the faces of the images in ``folder``. The faces are those in ``boxes``, or are detected.

    Args:
        aligner: the model.
        folder: the folder with the photographs.
        boxes: a file of boxes, see `read_boxes`. None: the faces of all images in the folder are detected; subfolders
            are not searched.
        out: the folder for the pictures. They have the names of the photographs. If Pillow cannot write a format, such
            as PSD, then the picture is a PNG, ``name.psd.png``.
        json_path: the JSON Lines file. Faces that are in it are not aligned again. None: if ``out`` is also None, the
            lines go to the standard output, else no lines are written.
        batch_size: as in `FaceAligner.align_batch`.
        options: further arguments of `FaceAligner.stream`.
        drawing: arguments of `Landmarks.draw`.

    Images that cannot be read are left out, and a line on standard error names each.

    Returns:
        names of the images, in the order of the lines; and the images that cannot be read.

    Raises:
        ValueError, FileNotFoundError: a box is bad, a photograph is missing, or an output must not be overwritten.
    """
    bad: list[str] = []
    if boxes is None:
        images, bad = image_files(folder)
        todo: dict[str, Any] = dict.fromkeys(images)
    else:
        todo = _boxes(boxes, folder)
    for name in bad:
        progress.say(f"left out: image {str(folder / name)!r} cannot be read: Pillow does not know its format")
    if out is not None:
        _prepare(out, folder, boxes, todo)
    if json_path is not None:
        not_over("json", json_path, boxes, *(folder / name for name in todo))
    if json_path is not None and json_path.suffix == ".json":
        progress.say(f"{json_path} gets JSON Lines, one line per face: a name with .jsonl is clearer")
    done = _resume(json_path, aligner) if json_path is not None and not is_stream(json_path) else {}
    names = _left(todo, done)
    if not names:
        nothing = f"{folder} holds no images" if boxes is None else f"{boxes} names no faces"
        held = f"{json_path} holds all {len(done)} faces" if done else nothing
        progress.say(f"nothing to do: {held}")
        return list(todo), bad
    if done:
        kept = f"{json_path} holds {len(done)} faces of an earlier run, which are kept"
        progress.say(f"{kept}: another model needs another file")

    def unreadable(index: int, error: Exception) -> None:
        bad.append(names[index])
        progress.say(f"left out: {error}")

    paths, given = (folder / n for n in names), (todo[n] for n in names)
    results = aligner.stream(paths, given, batch_size, **options, read_ahead=READ_AHEAD, unreadable=unreadable)
    # the number of faces is known only if the boxes are given
    unit, total = ("image", len(names)) if boxes is None else ("face", sum(len(todo[name]) for name in names))
    target = STANDARD_OUTPUT if json_path is None and out is None else json_path
    with contextlib.ExitStack() as stack:
        lines = None if target is None else stack.enter_context(appending(target))
        # no bar if the lines are shown in the same terminal
        quiet = target == STANDARD_OUTPUT and sys.stdout.isatty()
        bar = stack.enter_context(progress.progress_bar(total=total, desc="align", unit=unit, disable=quiet))
        pictures = None if out is None else stack.enter_context(ThreadPoolExecutor(1, "hih-align-draw"))
        drawn: deque[tuple[str, Landmarks, Future[None] | None]] = deque()

        def finish() -> None:
            """Finish the oldest image. Its lines mean that it is done, so they are written after its picture."""
            name, faces, picture = drawn.popleft()
            if picture is not None:
                picture.result()
            for index, face in enumerate(faces):
                if lines is not None and (name, index) not in done:
                    lines.write(json.dumps({"file": name, "index": index} | face.to_dict()) + "\n")
            if lines is not None:
                lines.flush()
            bar.update(1 if boxes is None else len(todo[name]))

        for name, faces in zip(names, results, strict=True):
            if pictures is None or out is None or name in bad:
                drawn.append((name, faces, None))
            else:  # another thread draws while the network goes on
                drawn.append((name, faces, pictures.submit(_draw, folder / name, faces, out / name, drawing)))
            while len(drawn) > (0 if out is None else READ_AHEAD):
                finish()
        while drawn:
            finish()
    return [name for name in todo if name not in bad], bad


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the files in a folder that have the suffix of an image format; and of those of `PHOTOGRAPHS`.

    The second list lacks photographs that the folder also holds as an image with the same stem.
    """
    known = {suffix for suffix, name in PIL.Image.registered_extensions().items() if name in PIL.Image.OPEN}
    # macOS writes a file "._NAME" beside each file on a foreign disk, which is no image
    files = [p for p in folder.iterdir() if not p.name.startswith("._") and p.is_file()]
    images = [p for p in files if p.suffix.lower() in known]
    stems = {p.stem for p in images}
    others = [p for p in files if p.suffix.lower() in PHOTOGRAPHS - known and p.stem not in stems]
    return sorted(p.name for p in images), sorted(p.name for p in others)


def _boxes(boxes: Path, folder: Path) -> dict[str, Any]:
    todo = read_boxes(boxes)
    if missing := [name for name in todo if not (folder / name).is_file()]:
        raise FileNotFoundError(f"boxes: {boxes} names {len(missing)} files that {folder} lacks, first {missing[0]}")
    return dict(todo)


def _left(todo: Mapping[str, Any], done: Mapping[tuple[str, int], None]) -> list[str]:
    """The images with faces that are not done.

    If the faces are detected, an image is done if there is a line for it. The last image of the file is the exception:
    lines for its other faces may be missing.
    """
    files = [name for name, _ in done]
    before = set(files) - set(files[-1:])
    return [
        name
        for name, boxes in todo.items()
        if (name not in before if boxes is None else any((name, index) not in done for index in range(len(boxes))))
    ]


def is_json_lines(path: Path) -> bool:
    """Whether a file has the suffix of JSON Lines."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def _prepare(out: Path, folder: Path, boxes: Path | None, todo: Mapping[str, Any]) -> None:
    if is_stream(out):
        raise ValueError(f"out: {out} is a stream, expected a folder for the pictures")
    for name in todo:
        not_over("out", out / name, folder / name)
        if not (out / name).resolve().is_relative_to(out.resolve()):
            raise ValueError(f"boxes: {boxes} names {name}, which is outside {folder}: it cannot be drawn into {out}")
    out.mkdir(parents=True, exist_ok=True)


def _draw(photo: Path, faces: Landmarks, out: Path, drawing: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out = out if can_write(out) else out.with_name(f"{out.name}.png")
    write_image(out, faces.draw(photo, **drawing))


def _resume(path: Path, aligner: FaceAligner) -> dict[tuple[str, int], None]:
    """The faces in a JSON Lines file of this model, in the order of the file.

    If the last line is incomplete, it is removed from the file.
    """
    if not path.exists():
        return {}
    done: dict[tuple[str, int], None] = {}
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and line.startswith(_LINE[: len(line)]):
                break
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("the line has no newline at its end")
                record = json.loads(line)
                done[str(record["file"]), int(record["index"])] = None
                made = record["model"], record["scheme"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"json: {path}, line {number} is not a face of an earlier run: {error!r}") from error
            if made != (aligner.config.name, aligner.scheme.id):
                raise ValueError(
                    f"json: {path}, line {number} is of the model {made[0]} ({made[1]}), but the model of this run is "
                    f"{aligner.config.name} ({aligner.scheme.id}): use another file"
                )
            end += len(line)
    os.truncate(path, end)
    return done
