"""`hih-align calibrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..aligner import FaceAligner
from ..data.annotations import read_dataset
from ..evaluation.calibrate import LEAST_MIRRORED, markdown, measured_bias
from ..evaluation.calibrate import calibrate as choose
from ..evaluation.correction import learn_correction
from ..evaluation.refining import BOXES, look_twice
from ..evaluation.refining import choose as choose_refining
from ..evaluation.subsets import chosen_by
from ..hub.checkpoints import save_config
from ..hub.manifest import check_writable
from .options import Backend, Device, Dtype, commands, parse_source

app = commands()


@app.command()
def calibrate(
    model: Annotated[str, typer.Option(help="The model: a folder, or in a checkout a manifest id.")],
    data: Annotated[Path, typer.Option(help="Validation faces in the model's scheme.")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="Use only the faces of a split file or condition, as in evaluate. Repeatable."),
    ] = None,
    correct: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[:SHARE]",
            help="Training faces, from which the landmarks learn to correct each other; of some only a share. "
            "Repeatable. Without them the model keeps its correction.",
        ),
    ] = None,
    refining: Annotated[
        bool, typer.Option("--refining", help="Choose only which faces get a second pass. Keep all other settings.")
    ] = False,
    bias: Annotated[
        bool,
        typer.Option("--bias", help="Measure only the bias of the decoder on mirrored faces. Keep all other settings."),
    ] = False,
    detector: Annotated[
        bool, typer.Option("--detector", help="Choose the second pass also for boxes that the detector finds.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    write: Annotated[bool, typer.Option("--write", help="Store the choice in the model's config.")] = False,
) -> None:
    """Choose decoder, refining passes and score calibration of a model on validation faces."""
    if bias and (correct or refining):
        raise typer.BadParameter("--bias keeps all other settings, expected no --correct and no --refining with it")
    if write:
        check_writable(model)  # raise before the long work
    aligner = FaceAligner.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    dataset = read_dataset(data, aligner.scheme)
    keep = chosen_by(where, dataset) if where else None
    boxes = (*BOXES, "detector") if detector else BOXES
    if correct:
        named = [parse_source(text) for text in correct]
        faces = [(read_dataset(path, aligner.scheme), share) for path, share in named]
        learnt = learn_correction(aligner, faces, dataset, keep=keep)
        aligner = learnt.aligner
        typer.echo(learnt.text())
    if bias:
        some = [r for r in dataset.records if r.labels is not None and (keep is None or keep(r))]
        decoder = measured_bias(aligner, aligner.decoder, some)
        config = replace(aligner.config, decoder=decoder)
        kept = f", kept: it needs mirror pairs and {LEAST_MIRRORED} faces" if decoder is aligner.decoder else ""
        typer.echo(f"bias of the decoder: {decoder.bias} heatmap pixels{kept}")
    elif refining:
        how = choose_refining(look_twice(aligner, dataset, boxes=boxes, keep=keep))
        config = replace(aligner.config, refine=how.refine, refine_above=how.above)
        typer.echo(how.markdown())
    else:
        chosen = choose(aligner, dataset, keep=keep, boxes=boxes)
        config = chosen.config
        typer.echo(markdown(chosen))
    if write:
        typer.echo(f"wrote {save_config(model, config)}")
