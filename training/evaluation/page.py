"""The report as one HTML page with tables and pictures; nothing is loaded from outside."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib import rc_context
from matplotlib.figure import Figure

from training.evaluation.report import interval, percent
from training.evaluation.scores import METRIC_TITLES

BLUE = "#4a7fb5"


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    scores: dict[str, dict[tuple[str, str], float]] = {}  # by task, then by method and mode
    for row in report["rows"]:
        scores.setdefault(row["task"], {})[row["method"], row["mode"]] = row["rouge_l"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        metrics=METRIC_TITLES,
        percent=percent,
        interval=interval,
        columns=list(dict.fromkeys((row["method"], row["mode"]) for row in report["rows"])),
        scores=scores,
        bars=_bars(report["means"]),
        scatter=_scatter(report["calibration"]) if report["calibration"] else None,
    )


def _bars(means: Sequence[dict[str, Any]]) -> str:
    """A panel for each mode and split: the mean of every method, with its interval."""
    panels = list(dict.fromkeys((mean["mode"], mean["split"]) for mean in means))
    methods = list(dict.fromkeys(mean["method"] for mean in means))
    figure = Figure((4.2 * len(panels) + 1.5, 0.36 * len(methods) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for mean in means:
            if (mean["mode"], mean["split"]) == panel:
                y = methods.index(mean["method"])
                axis.barh(y, 100 * mean["rouge_l"], color=BLUE, height=0.62)
                axis.plot([100 * x for x in mean["ci95"]], [y, y], color="#1c2024", linewidth=1.4)
        axis.set(title=", ".join(panel), xlabel="ROUGE-L x 100", xlim=(0, 100))
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    return _svg(figure)


def _scatter(curves: Sequence[dict[str, Any]]) -> str:
    """A panel for each method and mode: similarity and recovery of every task."""
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = Figure((4 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis, curve in zip(axes.flat, curves, strict=False):
        points = curve["points"]
        recoveries = [max(-1.0, min(2.0, p["recovery"])) for p in points]
        axis.scatter([p["similarity"] for p in points], recoveries, s=14, alpha=0.6, color=BLUE)
        title = f"{curve['method']}, {curve['mode']} (Spearman {curve['spearman']:.2f})"
        axis.set(xlabel="similarity", ylabel="recovery", ylim=(-1.1, 2.1))
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "lorasmith"}):  # else its ids are random
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
