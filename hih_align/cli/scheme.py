"""``hih-align scheme new``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Device, commands

if TYPE_CHECKING:
    from ..schemes import Scheme

#: The words for the five points in the output.
FIVE = ("left eye", "right eye", "nose tip", "left mouth corner", "right mouth corner")

app = commands("Make a scheme file for landmarks of your own.")


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The scheme file to write (.json). It must not exist yet.")],
    source: Annotated[Path, typer.Option("--from", help="Labelled faces as COCO, which names the landmarks.")],
    init: Annotated[str, typer.Option(help="A model that finds the middle of each face.")] = "HIH_T/300w",
    device: Device = None,
) -> None:
    """Write a scheme file for labelled faces: landmark names, mirror pairs and the five points.

    A mirror pair is two landmarks that exchange their places in a mirrored face. The five points are the eyes, the nose
    tip and the mouth corners. Both are guessed with the help of a model. Check them before you train.
    """
    from .. import files
    from ..aligner import FaceAligner
    from ..training.adaptation import open_dataset
    from ..training.own_scheme import guessed_scheme

    stream = files.is_stream(file)
    if file.exists() and not stream:
        raise ValueError(f"file: {file} already exists")
    with warnings.catch_warnings():  # this command makes the mirror table that is missing
        warnings.filterwarnings("ignore", "scheme .* has no mirror table")
        data = open_dataset(source)
    guess = guessed_scheme(FaceAligner.from_pretrained(init, device=device), data)
    content = _by_name(guess) | ({} if stream else {"id": file.stem.lower()})
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in content.items()
        if value not in (None, {}, (), [])
    ]
    with files.replacing(file) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    pairs = [f"{guess.names[a]} - {guess.names[b]}" for a, b in guess.mirror or ()]
    own = [name for i, name in enumerate(guess.names) if all(i not in pair for pair in guess.mirror or ())]
    for line in (
        f"wrote {file}: {len(guess)} landmarks",
        "mirror pairs (guessed from the faces, please check them): " + (", ".join(pairs) or "none"),
        "landmarks without a pair: " + (", ".join(own) or "none"),
        f"five points (guessed, too): {_five(guess)}",
    ):
        typer.echo(line, err=stream)


def _by_name(scheme: Scheme) -> dict[str, Any]:
    """The scheme as a dictionary that names the landmarks instead of counting them, because a person checks it."""

    def group(indices: Sequence[int]) -> str | list[str]:
        names = [scheme.names[i] for i in indices]
        return names[0] if len(names) == 1 else names

    return scheme.to_dict() | {
        "mirror": None if scheme.mirror is None else [[scheme.names[i] for i in pair] for pair in scheme.mirror],
        "normalizers": {name: [group(a), group(b)] for name, (a, b) in scheme.normalizers.items()},
        "five": None if scheme.five is None else [group(indices) for indices in scheme.five],
    }


def _five(scheme: Scheme) -> str:
    if scheme.five is None:
        return (
            "none, because a landmark, or the middle of two, is missing at an eye's centre, the nose tip or a mouth "
            "corner. Turned faces, face.crop and videos need them"
        )
    groups = [" and ".join(scheme.names[k] for k in group) for group in scheme.five]
    return ", ".join(f"{point} {group}" for point, group in zip(FIVE, groups, strict=True))


@app.callback()
def _group() -> None:  # makes ``scheme`` a group, although it has one command
    pass
