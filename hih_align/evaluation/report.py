"""Writing a `Report` as JSON, Markdown and pictures."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import crops
from ..drawing import larger
from ..files import replacing
from ..images import read_image
from ..scores import TOLERANCE
from . import metrics
from .normalizers import normalizer_text
from .results import WFLW_TEST, ErrorSummary, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TARGET = "#35d04a"
_FOUND = "#ff3b6b"


def write_report(
    report: Report, folder: str | os.PathLike[str], *, worst: int = 16, command: str | None = None
) -> list[Path]:
    """Write ``report.json``, ``report.md``, ``ced.png``, ``calibration.png`` and ``worst.png``, each atomically.

    Args:
        report: the report to write.
        folder: the folder; it is made if it does not exist.
        worst: number of faces on the sheet of the worst faces. The sheet is left out if no face has an NME.
        command: the command that measured the report; it is written into the report.

    Returns:
        The files that were written.

    Raises:
        ImportError: matplotlib is missing.
    """
    context = {"command": command, "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat()}
    texts = {
        "report.json": json.dumps(context | as_dict(report), indent=1, allow_nan=False) + "\n",
        "report.md": markdown(report) + (f"\nMeasured on {context['date']} by `{command}`.\n" if command else ""),
    }
    figures = {"ced.png": ced_figure([report]), "calibration.png": calibration_figure(report)}
    if len(report.worst(worst)):
        figures["worst.png"] = worst_figure(report, worst)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(target / name) as temporary:
            temporary.write_text(text, "utf-8")
    for name, figure in figures.items():
        with replacing(target / name) as temporary:
            figure.savefig(temporary, pil_kwargs={"compress_level": 1})
    return [target / name for name in (*texts, *figures)]


def as_dict(report: Report) -> dict[str, Any]:
    """The report as a dictionary for JSON, without the predicted points. A value that was not measured is None."""
    full, quality = report.full_set, report.score_quality
    return {
        "model": report.model,
        "dataset": report.dataset,
        "scheme": report.scheme.id,
        "settings": asdict(report.settings),
        "without_points": report.without_points,
        "missed": list(report.missed),
        "overall": _plain(report.overall),
        "subsets": {name: _plain(summary) for name, summary in report.by_subset.items()},
        "full_set": None if full is None else {name: _plain(getattr(full, name)) for name in vars(full)},
        "scores": {
            "tolerance": TOLERANCE,
            "points": quality.points,
            "expected_calibration_error": _finite(quality.error),
            "rank_correlation": _finite(quality.rank_correlation),
            "face_rank_correlation": _finite(quality.face_rank_correlation),
            "bins": [
                {"points": int(n), "score": _finite(s), "found": _finite(f)}
                for n, s, f in zip(quality.count, quality.score, quality.found, strict=True)
            ],
        },
        "landmarks": [
            {"name": name, "faces": int(n), "nme": _finite(e), "box_nme": _finite(b)}
            for name, n, e, b in zip(
                report.scheme.names,
                report.labelled.sum(0),
                report.landmark_nme,
                report.landmark_box_nme,
                strict=True,
            )
        ],
        "faces": [
            {
                "key": record.key,
                "image": record.image.name,
                "box": box.tolist(),
                "nme": _finite(nme),
                "box_nme": _finite(box_nme),
                "score": _finite(score),
                "attributes": {
                    name: _finite(value) if isinstance(value, float) else value
                    for name, value in record.attributes.items()
                },
            }
            for record, box, nme, box_nme, score in zip(
                report.records, report.boxes, report.nme, report.box_nme, report.scores.mean(-1), strict=True
            )
        ],
    }


def markdown(report: Report) -> str:
    """The report as Markdown: summary by subset, scores, parts of the face, worst faces."""
    s = report.settings
    manner = [f"{s.box.capitalize()} boxes", f"refine {s.refine}", *(["mirrored averaging"] if s.mirror else [])]
    manner += [f"{s.decoder.get('method', 'unknown')} decoder", s.dtype]
    if s.backend != "torch":
        manner.append(s.backend)
    if s.keep is not None:
        manner.append(f"faces {s.keep}" if s.keep == "chosen by a function" else f"faces chosen by {s.keep}")
    unit = normalizer_text(s.normalizer)
    lines = [
        f"## {report.model or 'model'} on {report.dataset}",
        "",
        f"{', '.join(manner)}; NME in percent of the {unit}.",
        "",
        *summary_table(report),
        "",
    ]
    notes = []
    if missing := report.overall.faces - report.overall.measured:
        notes.append(
            f"{missing} of {len(report)} faces have no labelled {unit}. They have no NME and count only in box NME."
        )
    if s.box == "detector":
        named = f", first {report.missed[0]}" if report.missed else ""
        notes.append(f"{len(report.missed)} of {len(report) + len(report.missed)} faces were not found{named}.")
    if report.without_points:
        notes.append(f"{report.without_points} faces without labelled points are left out.")
    if report.full_set is not None:
        share = WFLW_TEST[0] / sum(WFLW_TEST)
        notes.append(
            f"Full set: estimate for WFLW's whole test set: {share:.4f} x with attribute + {1 - share:.4f} x without."
        )
    quality = report.score_quality
    notes.append(
        f"Scores: expected calibration error {_text(quality.error, 3)} over {quality.points} points, rank correlation "
        f"with the error {_text(quality.rank_correlation)} (points), {_text(quality.face_rank_correlation)} (faces)."
    )
    if not s.calibrated:
        notes.append(
            "The scores are not calibrated: they are heatmap heights, which rank points but are no probabilities. "
            "`hih-align calibrate` calibrates them."
        )
    lines += [*notes, ""]
    if parts := part_errors(report):
        lines += ["| part | NME | box NME |", "| --- | --- | --- |"]
        lines += [f"| {name} | {_text(nme)} | {_text(box)} |" for name, (nme, box) in parts.items()]
        lines.append("")
    if len(worst := report.worst()):
        lines += worst_lines(report, worst)
    return "\n".join(lines)


def worst_lines(report: Report, worst: Sequence[int] | NDArray[np.intp]) -> list[str]:
    """Markdown list of the given faces: NME and file name."""
    faces = (f"- {report.nme[i]:.1f} %, {report.records[i].image.name}" for i in worst)
    return ["Worst faces:", "", *faces, ""]


def summary_table(report: Report) -> list[str]:
    """Markdown table: all faces, each subset and, if there is one, the estimate for the full set."""
    rows: dict[str, ErrorSummary] = {"all": report.overall, **report.by_subset}
    if (full := report.full_set) is not None:
        rows |= {"with an attribute": full.with_attribute, "without": full.without_attribute}
        rows["**full set**"] = full.estimate
    lines = [
        "| faces | number | NME | median | FR10 | AUC10 | box NME |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        values = (_text(row.nme), _text(row.median), _text(row.fr10), _text(row.auc10, 3), _text(row.box_nme))
        lines.append(f"| {name} | {row.faces} | {' | '.join(values)} |")
    return lines


def part_errors(report: Report) -> dict[str, tuple[float, float]]:
    """NME and box NME of each part of the scheme: the mean over its landmarks that at least one face has labelled."""
    found = {}
    for name, group in report.scheme.parts.items():
        values = (report.landmark_nme[list(group)], report.landmark_box_nme[list(group)])
        nme, box = (float(v[~np.isnan(v)].mean()) if not np.isnan(v).all() else math.nan for v in values)
        found[name] = (nme, box)
    return found


def ced_figure(reports: Sequence[Report], limit: float = 10.0) -> Figure:
    """Plot cumulative error distributions: of one report and its subsets, or of several reports.

    Args:
        reports: at least one.
        limit: NME at the end of the axis, in percent.
    """
    figure = blank_figure(6.4, 4.4)
    axes = figure.add_subplot()
    if len(reports) == 1:
        nme = reports[0].nme
        curves = [("all", nme), *((name, nme[mask]) for name, mask in reports[0].subsets.items())]
        axes.set_title(_literal(f"{reports[0].model} on {reports[0].dataset}"))
    else:
        curves = [(f"{report.model} on {report.dataset}", report.nme) for report in reports]
    for number, (name, errors) in enumerate(curves):
        steps = metrics.ced(errors)
        if not len(steps.error):
            continue
        # extend the curve from 0 to beyond the end of the axis
        x, y = np.concatenate(([0.0], steps.error, [1e6])), np.concatenate(([0.0], steps.share, [1.0]))
        label = _literal(f"{name}: NME {np.mean(steps.error):.2f}, AUC {metrics.auc(errors, limit):.3f}")
        width, style = (2.2 if number == 0 else 1.1), ("-" if number < 10 else "--")
        axes.step(x, 100 * y, where="post", label=label, linewidth=width, linestyle=style)
    axes.set(xlim=(0, limit), ylim=(0, 100), xlabel=f"NME, % of {_units(reports)}", ylabel="faces, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="best", fontsize=7)
    return figure


def calibration_figure(report: Report) -> Figure:
    """Plot the scores against the share of points that are correct, and the distribution of the scores."""
    quality = report.score_quality
    figure = blank_figure(4.6, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middle = (np.arange(len(quality.count)) + 0.5) / len(quality.count)
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    # the size of a dot shows how many points its bin has
    share = quality.count / max(quality.points, 1)
    known = quality.count > 0
    above.plot(quality.score[known], quality.found[known], color="C0", linewidth=1)
    above.scatter(
        quality.score[known], quality.found[known], s=12 + 120 * share[known], color="C0", zorder=3, clip_on=False
    )
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel=f"share with an error below {TOLERANCE:.0%} of the box")
    above.set_title(
        f"{_literal(f'{report.model} on {report.dataset}')}\nexpected calibration error {_text(quality.error, 3)}, "
        f"rank correlation {_text(quality.rank_correlation)}",
        fontsize=9,
    )
    below.bar(middle, 100 * share, width=0.9 / len(middle), color="C0")
    below.set(xlabel="score", ylabel="points, %")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def worst_figure(report: Report, count: int = 16, columns: int = 4) -> Figure:
    """Plot the faces with the largest NME, the worst first.

    Annotated points are green, predicted points are red, and a grey line joins the two. The title of each face gives
    its NME, its score and its file name.
    """
    faces = report.worst(count)
    rows = max(1, math.ceil(len(faces) / columns))
    figure = blank_figure(3.2 * columns, 3.4 * rows + 0.5)
    figure.suptitle(
        f"{_literal(f'{report.model} on {report.dataset}')}, {report.settings.box} boxes: the worst {len(faces)} faces "
        "(green: annotated, red: predicted)",
        fontsize=11,
    )
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(faces):
            _draw_face(axes, report, int(faces[place]))
    return figure


def _draw_face(axes: Axes, report: Report, index: int, size: int = 320) -> None:
    record = report.records[index]
    crop = crops.square_crop(record.box, 1.5, size)
    axes.imshow(crops.warp(read_image(record.image), crop.matrix, size))
    target, found = crop.to_crop(report.target[index]), crop.to_crop(report.points[index])
    for a, b in zip(target, found, strict=True):
        axes.plot(*zip(a, b, strict=True), color="0.8", linewidth=0.5)  # a line with NaN is not drawn
    area = 3 * larger(len(target)) ** 2  # of a point; that of the label is larger, so that it is seen below the other
    for points, colour, share in ((target, _TARGET, 1.0), (found, _FOUND, 0.4)):
        for contour in report.scheme.contours:
            axes.plot(*points[list(contour)].T, color=colour, linewidth=0.7, alpha=0.8)
        axes.scatter(points[:, 0], points[:, 1], s=share * area, color=colour, linewidths=0, zorder=3)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    score = float(report.scores[index].mean())
    axes.set_title(f"{report.nme[index]:.1f} %, score {score:.2f}, {_literal(record.image.name)}", fontsize=8)


def blank_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure made without pyplot: no global state and no display are needed.

    Without a layout the axes stand where the caller puts them, and drawing is faster.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'hih-align[train]'") from error
    figure = Figure((width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _units(reports: Sequence[Report]) -> str:
    return " or ".join(sorted({normalizer_text(report.settings.normalizer) for report in reports}))


def _plain(summary: ErrorSummary) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(summary).items()}


def _literal(text: str) -> str:
    """A text that Matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _finite(value: float | np.floating[Any]) -> float | None:
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def _text(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"
