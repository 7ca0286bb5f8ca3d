"""``hih-align train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import INTERRUPTED, commands, parse_source

if TYPE_CHECKING:
    from ..schemes import Scheme
    from ..training.sampling import Source

app = commands()


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe file, a packaged recipe (modern/t, paper/300w, finetune, ...), or a scheme (300w, wflw, "
            "cofw), which means modern/SIZE for this scheme."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="N, T, S or B. It replaces the recipe's size.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start weights: a manifest id, the best/ of a run, a released .pth, or a Hub repository. A size "
            "(HIH_T) means the published model of the scheme, or the one that finds landmarks of your own best."
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Scheme: 300w, wflw, cofw, or a scheme file. By default the recipe's.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[:WEIGHT]", help="Training faces. An epoch shows each face WEIGHT times. Repeatable."
        ),
    ] = None,
    val: Annotated[str | None, typer.Option(metavar="PATH", help="Validation faces, which choose best/.")] = None,
    val_where: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Use only the validation faces of a split file or condition, as in evaluate."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. By default runs/RECIPE-SIZE.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out. Options that are not given come from the run.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as losses.alpha=0.05."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad records and photographs.")] = False,
    workers: Annotated[int, typer.Option(help="Number of decoding threads.")] = 2,
    memory: Annotated[
        float, typer.Option(help="GiB of decoded faces (training and validation) to keep on the device.")
    ] = 8.0,
) -> None:
    """Train a network.

    The folder of the run gets best/ (a model for every `--model` option), metrics.jsonl, tensorboard/ and the state for
    --resume. Ctrl-C or SIGTERM saves the state and stops. For several GPUs: `accelerate launch -m hih_align train ...`.
    """
    from ..data.annotations import read_dataset
    from ..evaluation.normalizers import normalizer_text
    from ..evaluation.subsets import chosen_by, is_split
    from ..hub.config import RUN_FILE
    from ..training.adaptation import candidates
    from ..training.recipe import load_recipe, parse_overrides, recipe_from_dict
    from ..training.sampling import Source
    from ..training.trainer import train as run
    from ..training.warmstart import Start, load_start

    how = "--recipe 300w" if init is None else "--recipe finetune, which starts from --init"
    if out is None:
        if recipe is None:
            raise ValueError(f"recipe is missing: pass for example {how} (or --resume --out FOLDER)")
        out = Path("runs") / "-".join(filter(None, [Path(recipe).stem, size and size.upper()]))
    stored = None
    if resume and (out / RUN_FILE).is_file():
        stored = json.loads((out / RUN_FILE).read_text("utf-8"))
    if recipe is not None:
        chosen = load_recipe(recipe, size, parse_overrides(overrides or []))
    elif resume and stored is None:
        raise ValueError(f"out: {out} holds no run that could be resumed: begin one with {how}")
    elif stored is None:
        raise ValueError(f"recipe is missing: pass for example {how}")
    elif size or overrides:
        raise ValueError("resume: --size and --set cannot change a run; pass them only with --recipe, to be compared")
    else:
        chosen = recipe_from_dict(stored["recipe"], str(out))
    if stored is not None:
        init = init or stored["init"]
        data = data or [f"{source['path']}:{source['weight']}" for source in stored["data"]]
        val_where = val_where or ((stored["val"] or {}).get("where") if val is None else None)
        val = val or (stored["val"] or {}).get("path")
        skip_bad = skip_bad or stored.get("skip_bad", False)
    elif init is None and recipe == "finetune":
        raise ValueError("init is missing: the recipe finetune starts from trained weights, such as --init HIH_T")
    if not data:
        raise ValueError("data is missing: pass --data PATH, once or several times")
    target = _scheme(scheme or (None if stored else chosen.scheme), stored)
    start: Start | str | None = init
    if init is not None and stored is None and len(candidates(init, target)) == 1:  # else the faces decide
        start = load_start(init, target)
        target = target or start.scheme
    if target is None:
        raise ValueError("scheme is missing: pass --scheme 300w, wflw, cofw or a scheme file")

    def source(text: str) -> Source:
        path, weight = parse_source(text)
        return Source(read_dataset(path, target, skip_bad=skip_bad), weight)

    if val_where is not None and stored is None and is_split(val_where):
        val_where = str(Path(val_where).resolve())  # as the paths of the data: the run may go on from another folder
    faces = None if val is None else read_dataset(val, target, skip_bad=skip_bad)
    if faces is not None and val_where is not None:
        faces = faces.where(chosen_by([val_where], faces))
    result = run(
        chosen,
        [source(text) for text in data],
        out,
        val=faces,
        init=start,
        resume=resume,
        skip_bad=skip_bad,
        limit=int(memory * 2**30),
        workers=workers,
    )
    if not result.completed:
        typer.echo(f"stopped after {result.steps} steps; continue with: hih-align train --resume --out {out}", err=True)
        raise typer.Exit(INTERRUPTED)
    if result.nme is None or result.normalizer is None:
        typer.echo(f"{out / 'best'}, not calibrated: hih-align calibrate --model {out} --data VAL --write")
    else:
        typer.echo(f"{out / 'best'}, validation NME {result.nme:.3f} % of the {normalizer_text(result.normalizer)}")


def _scheme(name: str | None, stored: dict[str, object] | None) -> Scheme | None:
    from ..schemes import SCHEMES, get_scheme, scheme_from_dict

    if name is not None:
        return get_scheme(name)
    if stored is None:
        return None
    scheme = scheme_from_dict(stored["scheme"])  # type: ignore[arg-type]
    return SCHEMES[scheme.id] if SCHEMES.get(scheme.id) == scheme else scheme
