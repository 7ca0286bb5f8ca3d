"""The figures of a checkpoint: what the manifest, the README's tables and `reports/` say, by one command.

    python benchmarks/accuracy.py HIH_T/300w HIH_T/wflw --write
    python benchmarks/accuracy.py HIH_T/wflw --sheets ../runs/worst      # and the worst 16 faces, as pictures

Every figure is what a `hih-align evaluate` command gives; it stands beside it. `--write` puts them into the manifest,
with date and hardware, and the main report into `reports/`. The sheets show faces that may not be given on: they stay
out of the repository.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed import machine

ROOT = Path(__file__).resolve().parents[1]
#: The parts of a report that are kept: no faces.
KEPT = ("report.md", "ced.png", "calibration.png")


@dataclass(frozen=True)
class Figure:
    """What is measured: a data set, `evaluate`'s options, and what the figure is called."""

    data: str
    name: str
    options: tuple[tuple[str, str], ...] = ()

    def command(self, model: str, root: str) -> str:
        options = [("--model", model), ("--data", f"{root}/{self.data}"), *self.options]
        return shlex.join(["hih-align", "evaluate", *(word for option in options for word in option if word)])


NME = "NME inter-ocular"
LFPW = "300w_test_lfpw/annotations.json"
DEV = "wflw_dev/annotations.json"
REPORTED = ("--where", "id%3!=0")
NO_REFINE, ARGMAX, MIRROR = ("--refine", "0"), ("--decode", "argmax"), ("--mirror", "")


def _figures(data: str, *always: tuple[str, str], boxes: tuple[str, ...], profiles: str) -> list[Figure]:
    return [
        Figure(data, NME, always),
        Figure(data, f"{NME}, the paper's argmax", (*always, ARGMAX, NO_REFINE)),
        Figure(data, f"{NME}, no refining", (*always, NO_REFINE)),
        Figure(data, f"{NME}, mirrored too", (*always, MIRROR)),
        *(Figure(data, f"{NME}, {box} boxes", (*always, ("--box", box))) for box in boxes),
        Figure(profiles, "NME by the box", (("--normalizer", "box"),)),
    ]


#: By scheme; the first is the one that the report shows, with FR10, AUC10 and the scores' calibration error.
FIGURES = {
    "300w": _figures(LFPW, boxes=("jitter", "square"), profiles="cfp68_val/annotations.json"),
    "wflw": _figures(DEV, REPORTED, boxes=("jitter", "square", "rect"), profiles="cfp68_val/annotations_wflw98.json"),
}


def measure(model: str, figure: Figure, root: Path) -> Any:
    """The report behind a figure."""
    from hih_align import FaceAligner
    from hih_align.training.annotations import read_dataset
    from hih_align.training.evaluate import Where, evaluate

    options = dict(figure.options)
    aligner = FaceAligner.from_pretrained(model, device="cpu", decode=options.get("--decode"))  # type: ignore[arg-type]
    return evaluate(
        aligner,
        read_dataset(root / figure.data, aligner.scheme),
        box=options.get("--box", "annotated"),  # type: ignore[arg-type]
        refine=int(options["--refine"]) if "--refine" in options else None,
        mirror="--mirror" in options,
        normalizer=options.get("--normalizer", "inter-ocular"),
        keep=Where(options["--where"]) if "--where" in options else None,
        subsets=["attributes"] if figure.data == DEV else (),
    )


def values(figure: Figure, report: Any, main: bool) -> dict[str, float]:
    """Figures by name, as the manifest has them."""
    full = report.full_set
    name = figure.name + (", full-set estimate" if full is not None else "")
    summary = full.estimate if full is not None else report.overall
    found = {name: round(summary.nme, 2)}
    if main:
        suffix = name.removeprefix(NME)
        found |= {f"FR10{suffix}": round(summary.fr10, 2), f"AUC10{suffix}": round(summary.auc10, 3)}
        found |= {"score calibration error": round(report.score_quality.error, 3)}
    return found


def figures(model: str, root: Path, shown: str, keep: Callable[[Any, str], None]) -> list[dict[str, Any]]:
    """The manifest's rows of metrics for a model; ``keep`` gets the main report and its command."""
    host = machine()
    hardware = f"{host['cores']} cores, {host['cpu'].removesuffix(' Processor')}"
    hardware += " (AVX512-BF16)" if host["avx512_bf16"] else ""
    rows = []
    for number, figure in enumerate(FIGURES[model.partition("/")[2]]):
        report, command = measure(model, figure, root), figure.command(model, shown)
        chosen = " (id%3!=0)" if REPORTED in figure.options else ""
        for name, value in values(figure, report, number == 0).items():
            row = {"dataset": figure.data.partition("/")[0] + chosen, "metric": name, "value": value}
            rows.append(row | {"command": command, "date": time.strftime("%Y-%m-%d"), "hardware": hardware})
            print(f"{model}  {row['dataset']}  {name}: {value}", flush=True)
        if number == 0:
            keep(report, command)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="manifest ids, such as HIH_T/wflw")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="into weights_manifest.json and reports/")
    parser.add_argument("--sheets", type=Path, help="folder for the pictures of the worst 16 faces")
    arguments = parser.parse_args()

    from hih_align.checkpoints import record
    from hih_align.training.report import write_report

    for model in arguments.models:
        name = model.replace("/", "_")

        def keep(report: Any, command: str, name: str = name) -> None:
            with tempfile.TemporaryDirectory() as folder:
                write_report(report, folder, command=command)
                if arguments.write:
                    (ROOT / "reports" / name).mkdir(parents=True, exist_ok=True)
                    for part in KEPT:
                        shutil.copy(Path(folder) / part, ROOT / "reports" / name / part)
                if arguments.sheets is not None:
                    arguments.sheets.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path(folder) / "worst.png", arguments.sheets / f"{name}.png")

        rows = figures(model, arguments.data, "../shared/data", keep)
        if arguments.write:
            print(f"wrote {record(model, metrics=rows)}")
        else:
            print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
