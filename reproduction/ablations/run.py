"""Train and compare the paper's competitors and ablations, each with the same short training.

    python -m reproduction.ablations.run --data ../shared/data/300w_train/annotations.json \
        --val ../shared/data/300w_val/annotations.json --out ../runs/ablations

The command trains what is not trained yet, measures it on the validation faces and writes ``tables.md``. After an
interruption the same command continues. The trunk is trained once (``trunk.yaml``). It starts all runs that differ only
in their subpixel part (``subpixel.yaml``). The first part of these runs would be identical step by step, so this saves
time and changes nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from hih_align import files
from hih_align.data.annotations import read_dataset
from hih_align.hub.checkpoints import WEIGHTS_FILE
from hih_align.hub.config import RUN_FILE
from hih_align.method.decoder import STRIDE, Decoder
from hih_align.schemes import scheme_from_dict
from hih_align.training.journal import METRICS_FILE
from hih_align.training.learner import Output
from hih_align.training.recipe import load_recipe, parse_overrides, recipe_from_dict
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer
from hih_align.training.trainer import train as train_network
from hih_align.training.warmstart import Start, load_start
from reproduction.paper import SUBPIXEL
from reproduction.rivals import Baseline, build, load_rival

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Errors = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        name: name of its folder.
        what: its name in a table.
        options: its differences, as ``key=value`` pairs of the recipe, also ``size=S`` and ``learner=wov``.
        recipe: the recipe file beside this file.
        init: the run that it starts from.
        weight: share of the training faces that an epoch shows.
    """

    name: str
    what: str
    options: str = ""
    recipe: str = "subpixel"
    init: str | None = "trunk"
    weight: float = 0.5

    @property
    def learner(self) -> str:
        """The trained network: "hih" or the name of a rival."""
        return self._special("learner") or "hih"

    @property
    def size(self) -> str | None:
        """The size of the network, if it is not the recipe's."""
        return self._special("size")

    @property
    def overrides(self) -> list[str]:
        """The keys of the recipe that differ."""
        return [pair for pair in self.options.split() if not pair.startswith(("learner=", "size="))]

    def _special(self, key: str) -> str | None:
        return next((pair.partition("=")[2] for pair in self.options.split() if pair.startswith(f"{key}=")), None)


#: The learners that a trunk of 256 channels can start.
HIH_TRUNK = ("hih", "wov", "wom")


TRUNKS = [
    Run("trunk", "256 channels", recipe="trunk", init=None, weight=1),
    Run("trunk-280", "280 channels", "learner=baseline", "trunk", None, 1),
]
# with CSC's weight a smooth L1 would drown the integer loss (NME 16 and 17), because CSC is a small mean over 64 cells
VARIANTS = [
    Run("baseline", "baseline (280 channels)", "learner=baseline", init="trunk-280"),
    Run("wov", "WOV (offset value, fully connected)", "learner=wov losses.alpha=0.001"),
    Run("wom", "WOM (offset map, smooth L1)", "learner=wom losses.alpha=0.001"),
    Run("hih-l2", "HIH w. L2", "losses.decimal=mse"),
    Run("hih", "HIH w. CSC"),
]
ABLATIONS = [
    Run("hih", "as in the table above"),
    Run("hih-l2", "decimal loss: MSE instead of CSC (Tab. VIII)"),
    Run("hard", "hard labels instead of soft (Tab. VII)", "losses.hard_labels=true"),
    Run("temperature-1", "target's softmax as Eq. 5 prints it (temperature 1)", "losses.temperature=1"),
    Run("decimal-4", "decimal heatmaps 4x4 (Tab. IX)", "decimal_size=4"),
    Run("decimal-16", "decimal heatmaps 16x16 (Tab. IX)", "decimal_size=16"),
    Run("sigma-0.5", "decimal sigma 0.5 (Tab. X)", "losses.decimal_sigma=0.5"),
    Run("sigma-0.75", "decimal sigma 0.75 (Tab. X)", "losses.decimal_sigma=0.75"),
    Run("sigma-1.5", "decimal sigma 1.5 (Tab. X)", "losses.decimal_sigma=1.5"),
    Run("gate", "decimal loss only where the integer maximum is within a pixel", "losses.gate=1"),
    Run("expectation", "and the expectation decoder's output trained (weight 0.01)", "losses.expectation=0.01"),
]
SUPERVISION = [
    Run("last", "the last stack (Sec. III-D)", "size=S epochs=2", "trunk", None, 1),
    Run("all", "both stacks", "size=S epochs=2 losses.supervise=all", "trunk", None, 1),
]
RATES = [
    Run("rate-1e-3", "1e-3, Adam's eps 1e-11", "epochs=2", "trunk", None, 1),
    Run("rate-5e-6", "5e-6, as in Sec. IV-A.3", "epochs=2 lr=5e-6 eps=1e-8 clip=5", "trunk", None, 1),
    Run("rate-5e-6-scaled", "5e-6, Adam's eps 1e-11", "epochs=2 lr=5e-6", "trunk", None, 1),
]

ARGMAX, EXPECTATION = Decoder("argmax"), Decoder()


def command(run: Run, data: str, val: str, out: str) -> list[str]:
    """The command that trains the run, as a user would type it."""
    parts = ["python", "-m", "reproduction.ablations.run", "--only", run.name]
    return [*parts, "--data", data, "--val", val, "--out", out]


def train_here(run: Run, data: str, val: str, out: Path) -> None:
    """Train the run in this process, or continue it."""
    recipe = load_recipe(str(HERE / f"{run.recipe}.yaml"), run.size, parse_overrides(run.overrides))
    init = None if run.init is None else start_of(out / run.init / "best", run.learner)
    source = Source(read_dataset(data, "300w"), run.weight)
    val_faces = read_dataset(val, "300w")
    train_network(
        recipe, [source], out / run.name, val=val_faces, init=init, resume=True, build=partial(build, run.learner)
    )


def start_of(folder: Path, learner: str) -> Start:
    """The start weights of a run: of HIH, or of a rival."""
    return load_start(folder) if learner in HIH_TRUNK else load_rival(folder, learner)


def train(run: Run, data: str, val: str, out: str, threads: int) -> None:
    """Train the run in its own process, unless it is done. Its output goes to a log file beside its folder."""
    folder = Path(out) / run.name
    if (folder / "last" / WEIGHTS_FILE).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, *command(run, data, val, out)[1:]]
    with open(folder.parent / f"{run.name}.log", "ab") as log:
        # paths are relative to the working directory, which need not be the checkout
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": python_path}
        if subprocess.run(words, check=False, env=environment, stdout=log, stderr=log).returncode:
            raise RuntimeError(f"the run {run.name} failed: see {log.name}")


def measure(folder: Path, learner: str) -> Errors:
    """Validation errors (N,) in percent, by decoding, of a finished run."""
    stored = json.loads((folder / RUN_FILE).read_text("utf-8"))
    recipe, scheme = recipe_from_dict(stored["recipe"]), scheme_from_dict(stored["scheme"])
    data = [Source(read_dataset(source["path"], scheme), source["weight"]) for source in stored["data"]]
    val = read_dataset(stored["val"]["path"], scheme)
    trainer = Trainer(
        recipe,
        data,
        folder,
        val=val,
        init=stored["init"],
        resume=True,
        progress=False,
        build=partial(build, learner),
    )
    assert trainer.val is not None
    last, model = recipe.stages[-1], trainer.averaged
    count = len(trainer.val.faces)
    rows = np.array_split(np.arange(count), max(1, count // 16))
    outputs = list(trainer.val.outputs(model, rows, last.size, last.subpixel))

    def errors(output: Callable[[Output], Output], decoder: Decoder) -> NDArray[np.float64]:
        points = torch.cat([STRIDE * model.decode(output(given), decoder) for given in outputs])
        assert trainer.val is not None
        heights = np.zeros(points.shape[:2], np.float32)
        return trainer.val.report(points.numpy(), heights, decoder, last.size).nme

    if isinstance(model, Baseline):
        found = {}
        for rule in ("baseline", "wsm", "dark"):
            model.rule = rule
            found[rule] = errors(lambda output: output, ARGMAX)
        return found
    decoders = (ARGMAX, EXPECTATION) if learner == "hih" else (ARGMAX,)
    found = {f"integer {d.method}": errors(lambda output: output._replace(subpixel=None), d) for d in decoders}
    if last.subpixel:
        found |= {f"nested {d.method}": errors(lambda output: output, d) for d in decoders}
    return found


def measured(folder: Path, learner: str = "hih") -> Errors:
    """`measure`, stored in the folder of the run."""
    path = folder / "errors.json"
    if not path.is_file():
        errors = {name: values.tolist() for name, values in measure(folder, learner).items()}
        with files.replacing(path) as temporary:
            temporary.write_text(json.dumps(errors), "utf-8")
    return {name: np.array(values) for name, values in json.loads(path.read_text("utf-8")).items()}


def cell(errors: NDArray[np.float64] | None, reference: NDArray[np.float64] | None = None) -> str:
    """The mean, and its difference from the reference over the same faces, with its standard error."""
    if errors is None:
        return "-"
    text = f"{errors.mean():.2f}"
    if reference is None or (errors == reference).all():
        return text
    difference = errors - reference
    return f"{text} ({difference.mean():+.2f} ± {difference.std(ddof=1) / len(errors) ** 0.5:.2f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(out: Path) -> str:
    """All tables."""
    base, hih, last = measured(out / "baseline", "baseline"), measured(out / "hih"), measured(out / "last")
    own, best = hih["nested argmax"], hih["nested expectation"]
    options = VARIANTS[0].options
    rows = [[VARIANTS[0].what, f"`{options}`", f"{SUBPIXEL['baseline']:.3f}", cell(base["baseline"], own), "-"]]
    for rule in ("wsm", "dark"):
        rows.append([f"{rule.upper()}, from the same network", "", f"{SUBPIXEL[rule]:.3f}", cell(base[rule], own), "-"])
    for run in VARIANTS[1:]:
        errors = measured(out / run.name, run.learner)
        values = [
            f"{SUBPIXEL[run.name]:.3f}",
            cell(errors["nested argmax"], own),
            cell(errors.get("nested expectation"), best),
        ]
        rows.append([run.what, f"`{run.options}`" if run.options else "", *values])
    head = ["subpixel part", "options", "the paper's", "NME, its own rule (HIH: argmax)", "NME, expectation"]
    parts = ["## Subpixel variants (Appendix, Tab. V and VI)", table(head, rows)]
    rows = []
    for run in ABLATIONS:
        errors = measured(out / run.name, run.learner)
        values = [cell(errors["integer argmax"]), cell(errors["nested argmax"], own)]
        values += [cell(errors["integer expectation"]), cell(errors["nested expectation"], best)]
        rows.append([run.what, f"`{run.options}`" if run.options else "", *values])
    head = ["what differs", "options", "integer argmax", "nested argmax", "integer centroid", "nested expectation"]
    parts += ["## Ablations of HIH w. CSC (Tab. VII to X, and ours)", table(head, rows)]
    rows = []
    for run in SUPERVISION:
        errors = measured(out / run.name, run.learner)
        values = [cell(errors[name], last[name]) for name in ("integer argmax", "integer expectation")]
        rows.append([run.what, f"`{run.options}`", *values])
    head = ["supervised", "options", "integer argmax", "integer centroid"]
    parts += ["## Supervision of HIH_S, at 128 px", table(head, rows)]
    rows = []
    for run in RATES:
        errors = measured(out / run.name, run.learner)
        losses = [json.loads(line)["loss"] for line in (out / run.name / METRICS_FILE).read_text("utf-8").splitlines()]
        rows.append(
            [run.what, f"`{run.options}`", ", ".join(f"{v:.2e}" for v in losses), cell(errors["integer argmax"])]
        )
    head = ["learning rate", "options", "loss, epoch by epoch", "integer argmax"]
    parts += ["## The paper's learning rate, from random weights, at 128 px", table(head, rows)]
    return "\n\n".join(parts) + "\n"


def main(
    data: Annotated[str, typer.Option(help="Training faces.")],
    val: Annotated[str, typer.Option(help="Validation faces.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at a time. They share the cores.")] = 2,
    show: Annotated[bool, typer.Option("--show", help="Only print the commands.")] = False,
    only: Annotated[str | None, typer.Option(help="Train only this run, in this process.")] = None,
) -> None:
    """Train all runs, measure them, and write tables.md."""
    groups = [TRUNKS, [*VARIANTS, *ABLATIONS[2:], *SUPERVISION, *RATES]]
    if show:
        for run in (run for group in groups for run in group):
            typer.echo(shlex.join(command(run, data, val, str(out))))
        return
    if only is not None:
        named = {run.name: run for group in groups for run in group}
        if only not in named:
            raise ValueError(f"only is {only!r}, expected one of {list(named)}")
        train_here(named[only], data, val, out)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=sum(map(len, groups)), unit="run") as bar:
        for group in groups:
            for _ in pool.map(lambda run: train(run, data, val, str(out), threads), group):
                bar.update()
    text = tables(out)
    with files.replacing(HERE / "tables.md") as temporary:
        temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    typer.run(main)
