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
from hih_align.detection.yunet import FILE, find_file
from hih_align.export import export
from hih_align.files import replacing
from hih_align.hub.download import WeightsUnavailableError
from hih_align.hub.manifest import local_weights, read_manifest

HERE = Path(__file__).parent

#: The files that this program writes, in the order in which they are replaced.
FILES = ("model.onnx", FILE, "model.json")


def about(aligner: FaceAligner) -> dict[str, object]:
    """What the page has to know of a model: how its crops are made, its scores, and the scheme of its points."""
    config = aligner.config
    scheme = config.scheme  # not that of the results: the page does not convert
    return {
        "name": config.name,
        "calibrated": aligner.calibrated,
        "limit_scale": aligner.limit_scale,
        "input_size": config.input_size,
        "crop_ratio": config.crop_ratio,
        "refine": config.refine if config.refits else 0,
        "refine_above": config.refine_above,
        "refits": config.refits,
        "box": config.box,
        "scheme": scheme.id,
        "names": list(scheme.names),
        "contours": [list(line) for line in scheme.contours],
        "five": None if scheme.five is None else [list(group) for group in scheme.five],
    }


def check_out(out: Path) -> None:
    """Raise an error if the files cannot be written into ``out``, or would lie among files of somebody else."""
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"out: {out} is in a folder that does not exist")
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"out: {out} is a file, expected a folder")
    if other := sorted(path.name for path in out.iterdir() if path.name not in FILES):
        raise ValueError(f"out: {out} has {other[0]!r}, expected a new or empty folder, or one of an earlier run")


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
    out: Annotated[
        Path, typer.Option(help="New folder, empty folder, or the folder of an earlier run, whose files are replaced.")
    ] = HERE / "models",
) -> None:
    """Export a model for the page, and put the detector's file beside it.

    Raises:
        ValueError: the model has no five points; ``precision`` is unknown; ``out`` is a file, or has other files.
        FileNotFoundError: the parent of ``out`` does not exist.

    After an error ``out`` is as before.
    """
    check_out(out)
    if model is None:
        model = "HIH_N" if local_weights(read_manifest()["HIH_N/300w"]) is not None else "HIH_T"
    if precision is None:
        precision = "fp16" if model.startswith("HIH_T") else "fp32"
    aligner = FaceAligner.from_pretrained(model, device="cpu")
    if aligner.config.scheme.five is None:
        raise ValueError(f"model is {model!r}, whose scheme does not say where its five points are")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        shutil.copy(export(aligner, Path(scratch, "onnx"), "onnx", precision).file, made / "model.onnx")
        (made / "model.json").write_text(json.dumps(about(aligner)) + "\n", "utf-8")
        options = {"cache_dir": None, "revision": None, "token": None, "local_files_only": False}
        try:
            shutil.copy(find_file(options), made / FILE)
        except WeightsUnavailableError as error:
            typer.echo(f"without a detector, boxes have to be drawn: {error}", err=True)
        out.mkdir(exist_ok=True)
        for name in FILES:
            if (made / name).exists():
                with replacing(out / name) as temporary:
                    shutil.copyfile(made / name, temporary)
    own, asked = aligner.config.scheme, aligner.scheme
    if own != asked:
        typer.echo(f"the page shows the {len(own)} points of {own.id}, because it does not convert them to {asked.id}")
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
