"""The report as one HTML page with tables and pictures; nothing is loaded from outside."""

import html
import io
from collections.abc import Sequence
from typing import Any

from training.evaluation.report import table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2024; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e3e6e8;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #9aa3aa; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
code { background: #f2f4f5; padding: .1rem .3rem; overflow-wrap: anywhere; }
.scroll { max-height: 32rem; overflow: auto; }
"""


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<title>lorasmith evaluation</title>",
        f"<style>{STYLE}</style></head><body>",
        "<h1>lorasmith evaluation</h1>",
        f"<p>Base model <b>{html.escape(str(report['base']))}</b>, {html.escape(report['device'])}."
        " ROUGE-L x 100, means over tasks, intervals 95 %.</p>",
        "<details><summary>How it was measured</summary>",
        f"<p><code>{html.escape(report['command'])}</code></p></details>",
        "<h2>Means</h2>",
        _markdown_table(table(report)),
        "<figure>", _bars(report["means"]), "</figure>",
    ]  # fmt: skip
    if report["recovery"]:
        rows = [
            [r["method"], r["mode"], r["split"], f"{100 * r['recovery']:.0f} %", r["tasks"]]
            for r in report["recovery"]
        ]
        parts += [
            "<h2>Recovery</h2><p>(score - base) / (oracle - base)</p>",
            _table(["method", "mode", "split", "recovery", "tasks"], rows),
        ]
    if report["kinds"]:
        rows = [
            [k["method"], k["mode"], k["kind"], *_interval(k["rouge_l"], k["ci95"]), k["tasks"]]
            for k in report["kinds"]
        ]
        head = ["method", "mode", "kind", "ROUGE-L", "interval", "tasks"]
        parts += ["<h2>Held-out tasks by kind</h2>", _table(head, rows)]
    if report["calibration"]:
        parts += [
            "<h2>Similarity and recovery</h2><p>Each dot is a task: how near the nearest"
            " description of the library is, and how much of the oracle's gain was reached.</p>",
            "<figure>", _scatter(report["calibration"]), "</figure>",
        ]  # fmt: skip
    if report["pairs"]:
        rows = [
            [f"{p['a']} - {p['b']}", p["mode"], p["split"],
             *_interval(p["difference"], p["ci95"]), p["tasks"]]
            for p in report["pairs"]
        ]  # fmt: skip
        head = ["pair", "mode", "split", "difference", "interval", "tasks"]
        parts += ["<h2>Paired differences</h2><div class='scroll'>", _table(head, rows), "</div>"]
    parts += ["<h2>Tasks</h2><div class='scroll'>", _tasks(report["rows"]), "</div></body></html>"]
    return "\n".join(parts)


def _tasks(rows: Sequence[dict[str, Any]]) -> str:
    """One line a task, one column a method and mode."""
    columns = list(dict.fromkeys((row["method"], row["mode"]) for row in rows))
    found = {(row["task"], row["method"], row["mode"]): row["rouge_l"] for row in rows}
    lines = [
        [task, *(_percent(found.get((task, *column))) for column in columns)]
        for task in dict.fromkeys(row["task"] for row in rows)
    ]
    return _table(["task", *(f"{method}, {mode}" for method, mode in columns)], lines)


def _bars(means: Sequence[dict[str, Any]]) -> str:
    pyplot = _pyplot()
    panels = list(dict.fromkeys((m["mode"], m["split"]) for m in means))
    names = list(dict.fromkeys(m["method"] for m in means))
    size = (4.2 * len(panels) + 1.5, 0.36 * len(names) + 1.2)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        for mean in means:
            if (mean["mode"], mean["split"]) == panel:
                value, (low, high) = 100 * mean["rouge_l"], [100 * x for x in mean["ci95"]]
                place = names.index(mean["method"])
                axis.barh(place, value, color="#4a7fb5", height=0.62)
                axis.plot([low, high], [place, place], color="#1c2024", linewidth=1.4)
        axis.set(title=", ".join(panel), xlabel="ROUGE-L x 100", xlim=(0, 100))
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    return _svg(figure)


def _scatter(found: Sequence[dict[str, Any]]) -> str:
    pyplot = _pyplot()
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(4 * columns, 3.2 * lines), squeeze=False, layout="constrained"
    )
    for axis, one in zip(axes.flat, found, strict=False):
        points = one["points"]
        values = [max(-1.0, min(2.0, p["recovery"])) for p in points]
        axis.scatter([p["similarity"] for p in points], values, s=14, alpha=0.6, color="#4a7fb5")
        title = f"{one['method']}, {one['mode']} (Spearman {one['spearman']:.2f})"
        axis.set(xlabel="similarity", ylabel="recovery", ylim=(-1.1, 2.1))
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(found) :]:
        axis.remove()
    return _svg(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lorasmith"  # else its ids are random
    from matplotlib import pyplot

    return pyplot


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    _pyplot().close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _markdown_table(text: str) -> str:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return _table(lines[0], lines[2:])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _interval(value: float, ci95: Sequence[float]) -> tuple[str, str]:
    return f"{100 * value:.1f}", f"{100 * ci95[0]:.1f} to {100 * ci95[1]:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
