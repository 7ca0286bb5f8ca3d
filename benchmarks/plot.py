"""Plot accuracy against time, from the results of `speed.py`.

python benchmarks/plot.py benchmarks/results/speed.json benchmarks/results/speed.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from competitors import COMPETITORS
from worker import PLAIN, Contender

#: The setting that gives the time. The NME is that of annotated boxes, of which few need a second pass.
SETTING = "1 face, refine 0"
MARKERS = {
    (PLAIN, "fp32"): "x",
    ("torch", "fp32"): "o",
    ("torch", "bf16"): "s",
    ("openvino", "fp32"): "^",
    ("openvino", "bf16"): "v",
    ("onnxruntime", "fp32"): "D",
}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
OTHERS = "0.25"


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the plot: a point for each contender with weights, a line for each contender without.

    Of several numbers of threads the largest is drawn. If no single face was timed, nothing is written.

    Args:
        report: the report of `speed.py`.
        path: the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = [(Contender(**row["contender"]), row, _time(row)) for row in report["results"]]
    rows = [(contender, row, ms) for contender, row, ms in rows if ms is not None]
    if not rows:
        return
    threads = max(contender.threads for contender, _, _ in rows)
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set(
        xscale="log",
        xlabel="milliseconds a face, one face at a time, one pass",
        ylabel="NME, % of inter-ocular distance",
    )
    sizes: dict[str, str] = {}  # the colour of each size
    used: dict[tuple[str, str], None] = {}
    for contender, row, ms in rows:
        competitor = COMPETITORS.get(contender.backend)
        if contender.threads != threads and not (competitor and competitor.one_thread):
            continue
        if row["accuracy"] is None:
            if competitor is not None:
                axes.axvline(ms, color=OTHERS, linestyle="--", linewidth=1)
                axes.annotate(
                    f"{competitor.title}: time only",
                    (ms, 0.98),
                    xycoords=("data", "axes fraction"),
                    xytext=(-3, 0),
                    textcoords="offset points",
                    rotation=90,
                    ha="right",
                    va="top",
                    fontsize=8,
                )
            continue
        nme = row["accuracy"]["nme"]
        if competitor is not None:
            face = "none" if competitor.hollow else OTHERS
            axes.plot(ms, nme, "o", color=OTHERS, markerfacecolor=face, markersize=8)
            text = competitor.title + (f"\n({competitor.note})" if competitor.hollow else "")
            axes.annotate(text, (ms, nme), xytext=(-4, 8), textcoords="offset points", va="bottom", fontsize=8)
            continue
        colour = sizes.setdefault(row["size"], COLOURS[len(sizes) % len(COLOURS)])
        kind = (contender.backend, contender.precision)
        used[kind] = None
        axes.plot(ms, nme, MARKERS.get(kind, "P"), color=colour, markersize=7)
    handles = [Line2D([], [], color=colour, linewidth=6, label=size) for size, colour in sizes.items()]
    handles += [
        Line2D([], [], color="0.4", linestyle="", marker=MARKERS.get(kind, "P"), label=" ".join(kind)) for kind in used
    ]
    if handles:
        axes.legend(handles=handles, fontsize=8, title="hih-align", title_fontsize=8)
    about = report["machine"]
    parts = (report["data"], about["cpu"], f"{threads} thread{'s' * (threads > 1)}", about["date"][:10])
    axes.set_title(", ".join(map(str, parts)), fontsize=9)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15, y=0.15)
    axes.grid(which="both", alpha=0.2)
    figure.savefig(path, dpi=150)


def _time(row: dict[str, Any]) -> float | None:
    found = row["measured"].get(SETTING)
    return None if found is None else float(found["ms_per_face"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="speed.json")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.report.read_text("utf-8")), arguments.out)


if __name__ == "__main__":
    main()
