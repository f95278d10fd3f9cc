"""Whether what was expected of adapters came true: numbers, a table, a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy

from benchmarks.calibrate.points import Point
from generator.expected import ScoreRange
from training.evaluation.comparison import spearman
from training.evaluation.report import markdown

matplotlib.use("Agg")
from matplotlib import pyplot

THIRD = 100 / 3  # a warning is given below it
BINS = 6
Judged = Sequence[tuple[Point, ScoreRange]]
_MEASURES = {
    "points": "adapters",
    "spearman": "rank correlation with the measured share",
    "coverage": "intervals that hold it (0.8 meant)",
    "width": "their width",
    "warning_precision": "warning 'fewer than a third right': precision",
    "warning_recall": "recall",
}


def judged(pairs: Judged) -> dict[str, Any]:
    """Rank correlation, coverage, the warning's precision and recall, and a reliability table."""
    if not pairs:
        return {}
    scores, said = [p.score for p, _ in pairs], [e.score for _, e in pairs]
    low = [s < THIRD for s in scores]
    warned = [e < THIRD for e in said]
    hits = sum(a and b for a, b in zip(low, warned, strict=True))
    order = sorted(range(len(pairs)), key=said.__getitem__)
    bins = [part for part in numpy.array_split(numpy.array(order), BINS) if len(part)]
    return {
        "points": len(pairs),
        "spearman": round(spearman(said, scores), 3),
        "coverage": round(sum(e.low <= p.score <= e.high for p, e in pairs) / len(pairs), 3),
        "width": round(sum(e.high - e.low for _, e in pairs) / len(pairs), 1),
        "warning_precision": round(hits / max(1, sum(warned)), 3),
        "warning_recall": round(hits / max(1, sum(low)), 3),
        "reliability": [
            {
                "expected": round(float(numpy.mean([said[i] for i in part])), 1),
                "measured": round(float(numpy.mean([scores[i] for i in part])), 1),
                "points": len(part),
            }
            for part in bins
        ],
    }


def reliability_table(found: Mapping[str, dict[str, Any]]) -> str:
    """Every measure of each part, and below what was expected and measured in each bin."""
    names = [name.replace("_", " ") for name in found]
    measures = [
        [title, *(str(part[key]) for part in found.values())] for key, title in _MEASURES.items()
    ]
    bins = [
        [str(number + 1), *(_bin(part["reliability"], number) for part in found.values())]
        for number in range(max(len(part["reliability"]) for part in found.values()))
    ]
    return "\n\n".join(
        [markdown(["", *names], measures), markdown(["expected → measured, bin", *names], bins)]
    )


def _bin(bins: Sequence[dict[str, Any]], number: int) -> str:
    if number >= len(bins):
        return "–"
    return f"{bins[number]['expected']} → {bins[number]['measured']}"


def reliability_picture(path: Path, parts: Mapping[str, Judged]) -> None:
    """A panel for each part: every adapter, and the means of the bins beside the diagonal."""
    size = (4.2 * len(parts), 4)
    figure, axes = pyplot.subplots(1, len(parts), figsize=size, squeeze=False, layout="constrained")
    for axis, (name, pairs) in zip(axes[0], parts.items(), strict=True):
        bins = judged(pairs)["reliability"]
        said, scores = [e.score for _, e in pairs], [p.score for p, _ in pairs]
        axis.plot([0, 100], [0, 100], color="#9aa3aa", linestyle="--", linewidth=1)
        axis.scatter(said, scores, s=9, alpha=0.2, color="#4a7fb5", linewidths=0)
        means = [[one[key] for one in bins] for key in ("expected", "measured")]
        axis.plot(*means, color="#1c2024", marker="o", markersize=4, linewidth=1.2)
        axis.set(title=f"{name.replace('_', ' ')} ({len(pairs)})", xlabel="expected of 100")
        axis.set(ylabel="exactly right of 100", xlim=(-2, 102), ylim=(-2, 102))
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
