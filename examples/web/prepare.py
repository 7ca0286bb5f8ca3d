"""Make the files that the page needs, in examples/web/models: the network, what is known of it, and the detector.

npm ci --prefix examples/web
python examples/web/prepare.py                  (needs the extra [onnx])
python -m http.server --directory examples/web  (then open http://127.0.0.1:8000)
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hih_align import FaceAligner
from hih_align.detection.yunet import find_file
from hih_align.export import export
from hih_align.files import making
from hih_align.hub.download import WeightsUnavailableError
from hih_align.hub.manifest import local_weights, read_manifest

HERE = Path(__file__).parent


def about(aligner: FaceAligner) -> dict[str, object]:
    """What the page has to know of a model."""
    config, scheme = aligner.config, aligner.scheme
    return {
        "name": config.name,
        "input_size": config.input_size,
        "crop_ratio": config.crop_ratio,
        "refine": config.refine if config.refits else 0,
        "refine_above": config.refine_above,
        "scheme": scheme.id,
        "names": list(scheme.names),
        "contours": [list(line) for line in scheme.contours],
        "five": None if scheme.five is None else [list(group) for group in scheme.five],
    }


def main(
    model: Annotated[
        str | None,
        typer.Option(
            help="Size, manifest id, folder or Hub repository.",
            show_default="HIH_N if it is here, else HIH_T",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or fp16.", show_default="fp16 for HIH_T, else fp32")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to be made.")] = HERE / "models",
) -> None:
    """Export a model for the page, and put the detector's file beside it."""
    if model is None:
        model = "HIH_N" if local_weights(read_manifest()["HIH_N/300w"]) is not None else "HIH_T"
    if precision is None:
        precision = "fp16" if model.startswith("HIH_T") else "fp32"
    aligner = FaceAligner.from_pretrained(model, device="cpu")
    if aligner.scheme.five is None:
        raise ValueError(f"model is {model!r}, whose scheme does not say where its five points are")
    if out.exists():
        shutil.rmtree(out)
    with making(out) as folder, tempfile.TemporaryDirectory() as scratch:
        made = export(aligner, Path(scratch, "onnx"), "onnx", precision)
        shutil.copy(made.file, folder / "model.onnx")
        (folder / "model.json").write_text(json.dumps(about(aligner)) + "\n", "utf-8")
        options = {"cache_dir": None, "revision": None, "token": None, "local_files_only": False}
        try:
            found = find_file(options)
            shutil.copy(found, folder / found.name)
        except WeightsUnavailableError as error:
            typer.echo(f"without a detector, boxes have to be drawn: {error}", err=True)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
