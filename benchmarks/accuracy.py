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
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # reproduction/ is no part of the wheel
from reproduction.paper import SUBSETS, W300, WFLW  # noqa: E402

#: The parts of a report that are kept: no pictures of faces.
KEPT = ("report.md", "ced.png", "calibration.png")
SUMMARY = "summary.json"


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
BY_ATTRIBUTE = ("--subsets", "attributes")
NO_REFINE, ARGMAX, MIRROR = ("--refine", "0"), ("--decode", "argmax"), ("--mirror", "")


def _figures(
    data: str, *always: tuple[str, str], report: tuple[tuple[str, str], ...] = (), boxes: tuple[str, ...], profiles: str
) -> list[Figure]:
    return [
        Figure(data, NME, (*always, *report)),
        Figure(data, f"{NME}, the paper's argmax", (*always, ARGMAX, NO_REFINE)),
        Figure(data, f"{NME}, no refining", (*always, NO_REFINE)),
        Figure(data, f"{NME}, mirrored too", (*always, MIRROR)),
        *(Figure(data, f"{NME}, {box} boxes", (*always, ("--box", box))) for box in boxes),
        Figure(profiles, "NME by the box", (("--normalizer", "box"),)),
    ]


#: By scheme; the first is the one that the report shows, with FR10, AUC10 and the scores' calibration error.
FIGURES = {
    "300w": _figures(LFPW, boxes=("jitter", "square"), profiles="cfp68_val/annotations.json"),
    "wflw": _figures(
        DEV,
        REPORTED,
        report=(BY_ATTRIBUTE,),
        boxes=("jitter", "square", "rect"),
        profiles="cfp68_val/annotations_wflw98.json",
    ),
}


def measure(model: str, figure: Figure, root: Path) -> Any:
    """The report behind a figure."""
    from hih_align import FaceAligner
    from hih_align.data.annotations import read_dataset
    from hih_align.evaluation.evaluate import evaluate
    from hih_align.evaluation.subsets import Where

    options = dict(figure.options)
    aligner = FaceAligner.from_pretrained(model, device="cpu", decode=options.get("--decode"))  # type: ignore[arg-type]
    return evaluate(
        aligner,
        read_dataset(root / figure.data, aligner.scheme),
        box=options.get("--box", "annotated"),  # type: ignore[arg-type]
        refine=int(options["--refine"]) if "--refine" in options else None,
        mirror="--mirror" in options,
        normalizer=options.get("--normalizer"),
        keep=Where(options["--where"]) if "--where" in options else None,
        subsets=options["--subsets"].split(",") if "--subsets" in options else (),
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


def tables(rows: dict[str, Any], summaries: dict[str, Any]) -> str:
    """Our figures beside the paper's, as Markdown: 300W (Tab. III) and WFLW by attribute (Tab. I and IV).

    Args:
        rows: the manifest's, by id.
        summaries: what `--write` left in ``reports/``, by id.
    """
    absent = "not measured here"
    lines = [
        "# Beside the paper",
        "",
        "Written by `python benchmarks/accuracy.py MODEL --write`. Annotated boxes, default decoder, no mirroring. The "
        "paper's rows are for more: its 300W networks saw all of the 300-W training set (ours 57 % of it), its WFLW "
        "networks WFLW's own labels (ours none).",
        "",
        "300W, inter-ocular NME (Tab. III). Of the common set its LFPW half is here, of the challenging one nothing.",
        "",
        "| | common | LFPW's test faces | challenging | full |",
        "| --- | --- | --- | --- | --- |",
    ]
    for size, (full, common, challenging) in W300.items():
        lines.append(f"| {size}, the paper | {common:.2f} | - | {challenging:.2f} | {full:.2f} |")
        if summary := summaries.get(f"{size}/300w"):
            lines.append(f"| {size}, ours | {absent} | {summary['overall']['nme']:.2f} | {absent} | {absent} |")
    lines += [
        "",
        "COFW (Tab. II): not measured here, its faces are missing; the 29 points are converted from the 98.",
        "",
        "WFLW: ours on the 202 faces of `wflw_dev` whose id is not divisible by 3; full set: estimated for the whole "
        "test set.",
    ]
    for measure, places in (("nme", 2), ("fr10", 2), ("auc10", 3)):
        name = {"nme": "NME (Tab. I)", "fr10": "FR10 (Tab. IV)", "auc10": "AUC10 (Tab. IV)"}[measure]
        lines += ["", f"| {name} | full set | {' | '.join(SUBSETS)} |", "| --- |" + " --- |" * (len(SUBSETS) + 1)]
        for size, measures in WFLW.items():
            lines.append(f"| {size}, the paper | {' | '.join(f'{v:.{places}f}' for v in measures[measure])} |")
            if summary := summaries.get(f"{size}/wflw"):
                held = [summary["full_set"]["estimate"], *(summary["subsets"][subset] for subset in SUBSETS)]
                lines.append(f"| {size}, ours | {' | '.join(f'{v[measure]:.{places}f}' for v in held)} |")
    lines += ["", "All figures of the manifest, in percent but for AUC10 and the scores' calibration error:", ""]
    for model, row in rows.items():
        if row.metrics:
            lines += ["", f"{model}, {row.metrics[0]['date']}, {row.metrics[0]['hardware']}:", ""]
            lines += [f"- `{m['dataset']}`, {m['metric']}: {m['value']:g}" for m in row.metrics]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="manifest ids, such as HIH_T/wflw")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="into weights_manifest.json and reports/")
    parser.add_argument("--sheets", type=Path, help="folder for the pictures of the worst 16 faces")
    arguments = parser.parse_args()

    from hih_align.evaluation.report import as_dict, write_report
    from hih_align.hub.manifest import read_manifest, record

    for model in arguments.models:
        name = model.replace("/", "_")

        def keep(report: Any, command: str, name: str = name) -> None:
            with tempfile.TemporaryDirectory() as folder:
                write_report(report, folder, command=command)
                if arguments.write:
                    (ROOT / "reports" / name).mkdir(parents=True, exist_ok=True)
                    for part in KEPT:
                        shutil.copy(Path(folder) / part, ROOT / "reports" / name / part)
                    summary = {key: as_dict(report)[key] for key in ("overall", "subsets", "full_set")}
                    (ROOT / "reports" / name / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
                if arguments.sheets is not None:
                    arguments.sheets.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path(folder) / "worst.png", arguments.sheets / f"{name}.png")

        rows = figures(model, arguments.data, "../shared/data", keep)
        if arguments.write:
            print(f"wrote {record(model, metrics=rows)}")
        else:
            print(json.dumps(rows, indent=1))
    if arguments.write:
        files = {model: ROOT / "reports" / model.replace("/", "_") / SUMMARY for model in read_manifest()}
        summaries = {model: json.loads(file.read_text("utf-8")) for model, file in files.items() if file.is_file()}
        (ROOT / "reports" / "README.md").write_text(tables(read_manifest(), summaries), "utf-8")


if __name__ == "__main__":
    main()
