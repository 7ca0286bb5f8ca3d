"""The training curve: a picture of a run's ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.report import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve_figure(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot validation NME and loss over the minutes of training. Colours separate the stages.

    Args:
        epochs: the lines of ``metrics.jsonl``, at least one. The minutes of a run that was stopped and resumed add up.
            They include validation. The NME of a matched start is a dashed line.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = blank_figure(7.0, 4.0, layout=None)
    figure.subplots_adjust(left=0.16, right=0.985, bottom=0.115, top=0.94, hspace=0.07)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    minutes = np.cumsum([epoch["seconds"] / 60 for epoch in epochs])
    begun = 0.0
    places = enumerate(epochs)
    for number, stage in groupby(places, lambda place: place[1]["stage"]):
        members = [place for place, _ in stage]
        of = [epochs[place] for place in members]
        at, colour = minutes[members], f"C{number}"
        validated = [place for place in members if "nme" in epochs[place]]  # not every epoch, see `validate_every`
        nme = [epochs[place]["nme"] for place in validated]
        above.plot(minutes[validated], nme, color=colour, marker=".", label=f"{of[0]['size']} px")
        below.plot(at, [epoch["loss"] for epoch in of], color=colour, marker=".")
        for axes in (above, below):
            axes.axvspan(begun, at[-1], color=colour, alpha=0.06, linewidth=0)
        begun = float(at[-1])
    start = next((epoch["start"] for epoch in epochs if "start" in epoch), None)
    if start is not None:
        above.axhline(start, color="grey", linestyle="--", label="start, without training")
    above.set(yscale="log", ylabel="validation NME, %")
    above.legend(fontsize=8)
    below.set(yscale="log", xlim=(0, begun), xlabel="minutes of training", ylabel="loss")
    scores = [epoch["nme"] for epoch in epochs if epoch["stage"] == epochs[-1]["stage"] and "nme" in epoch]
    best = f", best NME {min([*scores, *([] if start is None else [start])]):.2f}" if scores else ""
    above.set_title(f"{len(epochs)} epochs, {begun:.0f} minutes{best}", fontsize=9)
    for axes in (above, below):
        low, high = axes.get_ylim()
        # a logarithmic axis labels too many or too few values by itself
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 4 * low else MaxNLocator(5))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:.4g}")
        axes.grid(alpha=0.3)
    return figure
