"""Measure the accuracy figures of a checkpoint: those of the manifest, the README and `reports/`.

    python benchmarks/accuracy.py HIH_T/300w HIH_T/wflw --write
    python benchmarks/accuracy.py HIH_T/wflw --sheets ../runs/worst      # also draws the worst 16 faces
    python benchmarks/accuracy.py HIH_T/wflw --write --only mirrored     # leaves all other figures as they are

Each figure is the result of one `hih-align evaluate` command, which is stored beside the figure. `--write` writes the
figures into the manifest, with date and hardware, and the main report into `reports/`. The sheets show faces that must
not be published, so they stay out of the repository.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speed import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # reproduction/ is not a part of the wheel
from reproduction.paper import SUBSETS, W300, WFLW  # noqa: E402

#: The files of a report that are kept. They show no faces.
KEPT = ("report.md", "ced.png", "calibration.png")
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Figure:
    """One measurement: the data set, the name of the figure, and the options of `evaluate`."""

    data: str
    name: str
    options: tuple[tuple[str, str], ...] = ()

    def command(self, model: str, root: str) -> str:
        options = [("--model", model), ("--data", f"{root}/{self.data}"), *self.options]
        return shlex.join(["hih-align", "evaluate", *(word for option in options for word in option if word)])


NME = "NME inter-ocular"
LFPW = "300w_test_lfpw/annotations.json"
DEV = "wflw_dev/annotations.json"
#: The part of `wflw_dev` that figures are reported on. Settings are chosen on the other part, wflw_dev_choose.txt.
REPORTED = ("--where", "benchmarks/splits/wflw_dev_report.txt")
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


#: The measurements by scheme. The first gives the report, with FR10, AUC10 and the calibration error of the scores.
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
    """The report of a figure."""
    from hih_align import FaceAligner
    from hih_align.data.annotations import read_dataset
    from hih_align.evaluation.evaluate import evaluate

    options = dict(figure.options)
    aligner = FaceAligner.from_pretrained(model, device="cpu", decode=options.get("--decode"))  # type: ignore[arg-type]
    dataset = read_dataset(root / figure.data, aligner.scheme)
    return evaluate(
        aligner,
        dataset,
        box=options.get("--box", "annotated"),  # type: ignore[arg-type]
        refine=int(options["--refine"]) if "--refine" in options else None,
        mirror="--mirror" in options,
        normalizer=options.get("--normalizer"),
        keep=_kept(options["--where"], dataset) if "--where" in options else None,
        subsets=options["--subsets"].split(",") if "--subsets" in options else (),
    )


def _kept(split: str, dataset: Any) -> Any:
    """The condition of a split file, named as in the command."""
    from hih_align.evaluation.subsets import chosen_by

    return replace(chosen_by([str(ROOT / split)], dataset), text=split)


def values(figure: Figure, report: Any, main: bool) -> dict[str, float]:
    """The values of a figure by name, as in the manifest."""
    full = report.full_set
    name = figure.name + (", full-set estimate" if full is not None else "")
    summary = full.estimate if full is not None else report.overall
    found = {name: round(summary.nme, 2)}
    if main:
        suffix = name.removeprefix(NME)
        found |= {f"FR10{suffix}": round(summary.fr10, 2), f"AUC10{suffix}": round(summary.auc10, 3)}
        found |= {"score calibration error": round(report.score_quality.error, 3)}
    return found


def figures(
    model: str, root: Path, shown: str, keep: Callable[[Any, str], None], only: str = ""
) -> list[dict[str, Any]]:
    """The metrics of a model as rows of the manifest.

    ``keep`` gets the main report and its command. Only the figures whose name contains ``only`` are measured.
    """
    host = machine()
    hardware = f"{host['cores']} cores, {host['cpu'].removesuffix(' Processor')}"
    hardware += " (AVX512-BF16)" if host["avx512_bf16"] else ""
    rows = []
    for number, figure in enumerate(FIGURES[model.partition("/")[2]]):
        if only not in figure.name:
            continue
        report, command = measure(model, figure, root), figure.command(model, shown)
        chosen = " (reporting part)" if REPORTED in figure.options else ""
        for name, value in values(figure, report, number == 0).items():
            row = {"dataset": figure.data.partition("/")[0] + chosen, "metric": name, "value": value}
            rows.append(row | {"command": command, "date": time.strftime("%Y-%m-%d"), "hardware": hardware})
            print(f"{model}  {row['dataset']}  {name}: {value}", flush=True)
        if number == 0:
            keep(report, command)
    return rows


def merged(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The old rows with new values where they were measured again. Other new rows follow."""
    fresh = {(row["dataset"], row["metric"]): row for row in new}
    kept = [fresh.pop((row["dataset"], row["metric"]), row) for row in old]
    return [*kept, *fresh.values()]


def tables(rows: dict[str, Any], summaries: dict[str, Any]) -> str:
    """Our figures beside the paper's, as Markdown: 300W (Tab. III) and WFLW by attribute (Tab. I and IV).

    Args:
        rows: the rows of the manifest, by id.
        summaries: the summaries that `--write` wrote into ``reports/``, by id.
    """
    absent = "not measured here"
    lines = [
        "# Beside the paper",
        "",
        "Written by `python benchmarks/accuracy.py MODEL --write`. Boxes are annotated, the decoder is the default, "
        "faces are not mirrored. The paper's networks saw more data: its 300W networks were trained on the whole 300-W "
        "training set (ours on 57 % of it), its WFLW networks on WFLW's own labels (ours on none of them).",
        "",
        "300W, inter-ocular NME (Tab. III). We have only the LFPW half of the common set, and no challenging faces.",
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
        "COFW (Tab. II): not measured, because we have no COFW faces. The 29 points are converted from the 98 points.",
        "",
        "WFLW: our rows are for the 202 faces of the reporting part of `wflw_dev` "
        '(`benchmarks/splits/wflw_dev_report.txt`). "full set" is an estimate for the whole test set.',
    ]
    for measure, places in (("nme", 2), ("fr10", 2), ("auc10", 3)):
        name = {"nme": "NME (Tab. I)", "fr10": "FR10 (Tab. IV)", "auc10": "AUC10 (Tab. IV)"}[measure]
        lines += ["", f"| {name} | full set | {' | '.join(SUBSETS)} |", "| --- |" + " --- |" * (len(SUBSETS) + 1)]
        for size, measures in WFLW.items():
            lines.append(f"| {size}, the paper | {' | '.join(f'{v:.{places}f}' for v in measures[measure])} |")
            if summary := summaries.get(f"{size}/wflw"):
                held = [summary["full_set"]["estimate"], *(summary["subsets"][subset] for subset in SUBSETS)]
                lines.append(f"| {size}, ours | {' | '.join(f'{v[measure]:.{places}f}' for v in held)} |")
    lines += ["", "All figures of the manifest, in percent except AUC10 and the calibration error of the scores:", ""]
    for model, row in rows.items():
        if row.metrics:
            lines += ["", f"{model}, {row.metrics[0]['date']}, {row.metrics[0]['hardware']}:", ""]
            lines += [f"- `{m['dataset']}`, {m['metric']}: {m['value']:g}" for m in row.metrics]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="manifest ids, such as HIH_T/wflw")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="write into weights_manifest.json and reports/")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure only the figures whose name contains TEXT")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the worst 16 faces")
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

        rows = figures(model, arguments.data, "../shared/data", keep, arguments.only)
        if not rows:
            parser.error(f"--only is {arguments.only!r}, which no figure's name contains")
        if arguments.write:
            rows = merged(read_manifest()[model].metrics, rows) if arguments.only else rows
            print(f"wrote {record(model, metrics=rows)}")
        else:
            print(json.dumps(rows, indent=1))
    if arguments.write:
        files = {model: ROOT / "reports" / model.replace("/", "_") / SUMMARY for model in read_manifest()}
        summaries = {model: json.loads(file.read_text("utf-8")) for model, file in files.items() if file.is_file()}
        (ROOT / "reports" / "README.md").write_text(tables(read_manifest(), summaries), "utf-8")


if __name__ == "__main__":
    main()
