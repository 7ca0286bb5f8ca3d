"""The `hih-align` command; ``python -m hih_align.cli`` is the same program."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..aligner import READ_AHEAD, FaceAligner
from ..boxes import read_boxes
from ..files import replacing
from ..hub.checkpoints import (
    Config,
    Row,
    find_checkpoint,
    load_network,
    local_weights,
    read_manifest,
    record,
    save_checkpoint,
)
from ..images import write_image
from ..landmarks import Landmarks
from ..method.heatmaps import Decoder
from ..method.network import SIZES
from ..method.released import load_released
from ..runtime.export import Format
from ..runtime.export import export as write_export
from ..runtime.memory import keep_freed_memory
from ..schemes import get_scheme
from .calibrate import calibrate
from .data import check, harmonize, label, pack
from .evaluate import evaluate
from .train import train

# click's, which typer has under one of two names
_CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class Program(TyperGroup):
    """Errors are one line: exit code 1 for bad input, 2 for a wrong command line."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            code = super().main(*args, **(options | {"standalone_mode": False}))
        except _CommandLineError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                typer.echo(f"hih-align: {' '.join(error.format_message().split())} (--help tells more)", err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, TypeError, OSError, ImportError) as error:
            if os.environ.get("HIH_ALIGN_TRACEBACK"):
                raise
            typer.echo(f"hih-align: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            typer.echo("hih-align: interrupted", err=True)
            raise typer.Exit(130) from None


class WithBoxes(TyperCommand):
    """``--bbox x1 y1 x2 y2``, repeatable: typer has no option that is both, so its four words become one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--bbox":
                values = [value for _, value in zip(range(4), words, strict=False)]
                joined.append(f"--bbox={' '.join(values)}")
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Facial landmarks at subpixel accuracy: Heatmap in Heatmap.",
)

Model = Annotated[str, typer.Option(help="Size, manifest id, folder or Hub repository.")]


@app.command(cls=WithBoxes)
def align(
    photo: Annotated[Path, typer.Argument(help="An image, or a folder of images (with --boxes).")],
    bbox: Annotated[
        list[str] | None,
        typer.Option(metavar="X1 Y1 X2 Y2", help="A face's box in pixels; may be given several times."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="The boxes of an image or a folder: COCO JSON, or CSV file,x1,y1,x2,y2.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the image with the landmarks drawn; for a folder, a folder.")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", help="Write points and scores: a JSON list; for a folder JSON Lines, a face a line."),
    ] = None,
    model: Model = "HIH_T",
    scheme: Annotated[str | None, typer.Option(help="300w, wflw or cofw.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; CUDA where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")] = None,
    backend: Annotated[str, typer.Option(help="torch, openvino, onnxruntime or auto.")] = "torch",
    decode: Annotated[str | None, typer.Option(help="expectation or argmax.")] = None,
    refine: Annotated[int | None, typer.Option(help="Refining passes.")] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Average with the mirrored face.")] = False,
    batch_size: Annotated[int, typer.Option(help="Faces that go through the network together.")] = 32,
) -> None:
    """Align the faces of an image or of a folder.

    Without --out and --json, JSON goes to the standard output. A folder's JSON Lines are written as they come; when
    the file exists, the faces it holds are not done again.
    """
    if not photo.exists():
        raise FileNotFoundError(f"image: no such file: {photo}")
    aligner = FaceAligner.from_pretrained(model, scheme, device, dtype, backend, decode)  # type: ignore[arg-type]
    options = {"refine": refine, "mirror": mirror}
    if photo.is_dir():
        if bbox or boxes is None:
            raise ValueError(f"{photo} is a folder: --boxes must name a file with its boxes, instead of --bbox")
        _align_folder(aligner, photo, boxes, out, json_path, batch_size, options)
        return
    if out is not None:
        _not_over(out, photo)
    if (boxes is None) == (not bbox):
        raise ValueError("bbox is missing: give --bbox x1 y1 x2 y2 for each face, or --boxes FILE")
    found = _of_photo(boxes, photo) if boxes else [_bbox(words) for words in bbox or ()]
    faces = aligner.align(photo, found, **options)  # type: ignore[arg-type]
    if out is not None:
        write_image(out, faces.draw(photo))
    lines = [{"file": photo.name, "index": i} | face.to_dict() for i, face in enumerate(faces)]
    if json_path is not None:
        with replacing(json_path) as temporary:
            temporary.write_text("[\n" + ",\n".join(map(json.dumps, lines)) + "\n]\n", "utf-8")
    elif out is None:
        for line in lines:
            typer.echo(json.dumps(line))


def _not_over(out: Path, photo: Path) -> None:
    if out.resolve() == photo.resolve():
        raise ValueError(f"out: {out} is the photograph itself, which would be lost")


def _bbox(words: str) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(f"{words!r}, expected four numbers x1 y1 x2 y2", param_hint="--bbox") from None
    return [x1, y1, x2, y2]


def _of_photo(boxes: Path, photo: Path) -> Any:
    found = read_boxes(boxes)
    if photo.name not in found:
        raise ValueError(f"boxes: {boxes} has none for {photo.name}")
    return found[photo.name]


def _align_folder(
    aligner: FaceAligner,
    folder: Path,
    boxes: Path,
    out: Path | None,
    json_path: Path | None,
    batch_size: int,
    options: dict[str, Any],
) -> None:
    from tqdm import tqdm

    todo = read_boxes(boxes)
    if missing := [name for name in todo if not (folder / name).is_file()]:
        raise FileNotFoundError(f"boxes: {boxes} names {len(missing)} files that {folder} lacks, first {missing[0]}")
    if out is not None:
        for name in todo:
            _not_over(out / name, folder / name)
            if not (out / name).resolve().is_relative_to(out.resolve()):
                raise ValueError(
                    f"boxes: {boxes} names {name}, which is outside {folder}: it cannot be drawn into {out}"
                )
        out.mkdir(parents=True, exist_ok=True)
    done = _resume(json_path, aligner) if json_path else set()
    names = [name for name, b in todo.items() if len(b) and not all((name, i) in done for i in range(len(b)))]
    images, given = (folder / n for n in names), (todo[n] for n in names)
    results = aligner.stream(images, given, batch_size, **options, read_ahead=READ_AHEAD)
    with contextlib.ExitStack() as stack:
        lines = sys.stdout if out is None else None
        if json_path is not None:
            lines = stack.enter_context(json_path.open("a", encoding="utf-8"))
        progress = stack.enter_context(tqdm(total=sum(len(todo[n]) for n in names), unit="face", file=sys.stderr))
        drawing = None if out is None else stack.enter_context(ThreadPoolExecutor(1, "hih-align-draw"))
        drawn: deque[tuple[str, Landmarks, Future[None] | None]] = deque()

        def finish() -> None:
            """The oldest image: its lines say that it is done, so its picture comes first."""
            name, faces, picture = drawn.popleft()
            if picture is not None:
                picture.result()
            for index, face in enumerate(faces):
                if lines is not None and (name, index) not in done:
                    lines.write(json.dumps({"file": name, "index": index} | face.to_dict()) + "\n")
            if lines is not None:
                lines.flush()
            progress.update(len(faces))

        for name, faces in zip(names, results, strict=True):
            if drawing is None or out is None:
                drawn.append((name, faces, None))
            else:  # the network goes on meanwhile
                drawn.append((name, faces, drawing.submit(_draw, folder / name, faces, out / name)))
            while len(drawn) > (0 if out is None else READ_AHEAD):
                finish()
        while drawn:
            finish()


def _draw(photo: Path, faces: Landmarks, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_image(out, faces.draw(photo))


#: How a line of ours begins: what does not may be a file that somebody needs.
_LINE = b'{"file": '


def _resume(path: Path, aligner: FaceAligner) -> set[tuple[str, int]]:
    """The faces that a JSON Lines file of this model holds; a last line that was cut off is removed from it."""
    if not path.exists():
        return set()
    done = set()
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and line.startswith(_LINE[: len(line)]):
                break
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it has no end")
                record = json.loads(line)
                done.add((str(record["file"]), int(record["index"])))
                made = record["model"], record["scheme"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"json: {path}, line {number} is not a face of an earlier run: {error!r}") from error
            if made != (aligner.config.name, aligner.scheme.id):
                raise ValueError(
                    f"json: {path}, line {number} is of {made[0]} ({made[1]}), this is {aligner.config.name} "
                    f"({aligner.scheme.id}): name another file"
                )
            end += len(line)
    os.truncate(path, end)
    return done


@app.command()
def models() -> None:
    """List the pretrained models."""
    header = ("id", "scheme", "points", "MB", "license", "where", "measured")
    rows = [header, *(_row(row) for row in read_manifest().values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(row: Row) -> tuple[str, ...]:
    where = row.repo_id or ("not trained yet" if row.sha256 is None else "not published")
    if (path := local_weights(row)) is not None:
        where = str(path)
    measured = "; ".join(f"{m['metric']} {m['value']:g} on {m['dataset']}" for m in row.metrics[:1])
    size = f"{row.bytes / 1e6:.1f}" if row.bytes else "-"
    return row.id, row.scheme, str(row.landmarks), size, row.license, where, measured or "-"


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A released checkpoint, such as WFLW.pth.")],
    scheme: Annotated[str, typer.Option(help="Its landmarks: 300w, wflw, cofw, or a JSON/YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    crop_ratio: Annotated[float, typer.Option(help="Crop side over the box's longer side in its training.")] = 1.25,
    rounding: Annotated[str, typer.Option(help="How its decimal labels were made: round or floor.")] = "round",
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
) -> None:
    """Turn a checkpoint of the paper's authors into ours."""
    import torch

    found = load_released(checkpoint)
    points = get_scheme(scheme)
    if len(points) != found.network.landmarks:
        raise ValueError(f"scheme {points.id!r} has {len(points)} points, {checkpoint} {found.network.landmarks}")
    sizes = {stacks: size for size, stacks in SIZES.items()}
    config = Config(
        scheme=points,
        stacks=found.network.stacks,
        decimal_size=found.network.decimal_size,
        name=f"{sizes.get(found.network.stacks, checkpoint.stem)}/{points.id}",
        crop_ratio=crop_ratio,
        rounding=rounding,  # type: ignore[arg-type]
        decoder=Decoder(bin_offset=0.5 if rounding == "floor" else 0.0),
    )
    save_checkpoint(out, found.network, config, torch.float16 if half else torch.float32)
    count = sum(p.numel() for p in found.network.parameters())
    best = "" if found.best_nme is None else f", its authors' best NME {found.best_nme:g}"
    typer.echo(
        f"{out}: {config.name}, {found.network.stacks} stacks, {found.network.landmarks} points, decimal size "
        f"{found.network.decimal_size}, {count / 1e6:.2f} M parameters{best}; "
        f"dropped {len(found.dead)} weights that the network never uses"
    )


Reports = Annotated[
    list[Path] | None, typer.Option("--report", help="A report.md of `hih-align evaluate --out`. Repeatable.")
]


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="A manifest id, such as HIH_T/300w.")],
    report: Reports = None,
    out: Annotated[Path | None, typer.Option(help="File to write; on the screen by default.")] = None,
) -> None:
    """Write a checkpoint's model card, from the manifest and evaluation reports."""
    from ..hub.publish import model_card

    text = model_card(_manifest_row(model), [path.read_text("utf-8") for path in report or ()])
    if out is None:
        typer.echo(text)
        return
    with replacing(out) as temporary:
        temporary.write_text(text, "utf-8")


@app.command("ship")
def ship_command(
    run: Annotated[str, typer.Argument(help="A run's folder, or that of a checkpoint.")],
    model: Annotated[str, typer.Option("--as", help="The manifest id that it becomes, such as HIH_S/wflw.")],
    training: Annotated[str, typer.Option(help="On what, by which command, how long and on what it was trained.")],
) -> None:
    """Make a trained network a checkout's checkpoint: float16 weights in their place, hash and config in the manifest.

    Its figures follow: python benchmarks/accuracy.py MODEL --write.
    """
    from ..hub.publish import ship

    found = find_checkpoint(run)
    typer.echo(f"wrote {ship(model, load_network(found), found.config, training)}")


@app.command("publish")
def publish_command(
    model: Annotated[str, typer.Argument(help="A manifest id, such as HIH_T/300w.")],
    repo: Annotated[str, typer.Option(help="user/repo on the Hub, made if need be.")],
    report: Reports = None,
    tag: Annotated[list[str] | None, typer.Option(help="A name for the commit, such as v0.1.0. Repeatable.")] = None,
    private: Annotated[bool | None, typer.Option("--private/--public", help="Of a new repository.")] = None,
) -> None:
    """Push a checkpoint to the Hub: weights, config, card, terms and tags; the manifest then says where it is."""
    from ..hub.publish import publish

    row = _manifest_row(model)
    reports = [path.read_text("utf-8") for path in report or ()]
    revision = publish(row, repo, reports=reports, tags=tag or (), private=private)
    path = record(row.id, repo_id=repo, revision=revision)
    typer.echo(f"{row.id} is at {repo}, revision {revision}; noted in {path}")


def _manifest_row(model: str) -> Row:
    rows = read_manifest()
    if model not in rows:
        raise ValueError(f"model is {model!r}, expected one of {list(rows)}")
    return rows[model]


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Size, manifest id, folder or Hub repository.")],
    out: Annotated[Path, typer.Option(help="Folder to be made.")],
    format: Annotated[Format, typer.Option(help="The runtime: ONNX, OpenVINO, or a torch.export program.")],
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 (openvino, torch), fp16, or int8 (onnx, openvino).")
    ] = "fp32",
    scheme: Annotated[str | None, typer.Option(help="300w, wflw or cofw.")] = None,
    decode: Annotated[str | None, typer.Option(help="expectation or argmax; by default the model's.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="int8: annotations of training faces, on which its ranges are found.")
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="int8: annotations of other faces; it is refused when it loses too much on them."),
    ] = None,
) -> None:
    """Write a model for another runtime, decoder included: crops in, points and scores out.

    The folder is a checkpoint, too: with its backend, FaceAligner.from_pretrained runs what was exported.
    """
    from ..data.annotations import read_dataset

    aligner = FaceAligner.from_pretrained(model, scheme, "cpu", decode=decode)  # type: ignore[arg-type]
    if precision != "int8" and (data or val):
        raise ValueError(f"data and val are for int8, precision is {precision!r}")
    calibration, validation = (None if path is None else read_dataset(path, aligner.scheme) for path in (data, val))
    made = write_export(aligner, out, format, precision, calibration=calibration, validation=validation)
    if made.before is not None and made.normalizer is not None and validation is not None:
        from ..evaluation.evaluate import normalizer_text

        typer.echo(
            f"NME on {validation.name} in percent of the {normalizer_text(made.normalizer)}: {made.before:.3f} before, "
            f"{made.after:.3f} in int8 ({len(validation)} faces)"
        )
    typer.echo(f"wrote {made.file}")


app.command()(train)
app.command()(evaluate)
app.command()(calibrate)
_data = typer.Typer(help="Look at annotated faces, label, harmonize or pack them.", rich_markup_mode=None)
_data.command()(check)
_data.command()(label)
_data.command()(harmonize)
_data.command()(pack)
app.add_typer(_data, name="data")


def main() -> None:
    """Entry point."""
    keep_freed_memory()
    app()
