"""What the rows of an evaluation say about each other: kinds, recovery, pairs of methods.

Rows are those of the report. Everything here is a mean over tasks with a bootstrap interval over
them; a pair of methods is compared on the tasks and the mode that both have.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from library.tasks.metrics import bootstrap_ci95

Row = dict[str, Any]
LEAST_GAIN = 0.1  # of an oracle over the base, for a task's recovery to mean something


def means(rows: Sequence[Row], *keys: str) -> list[Row]:
    """Mean scores of the rows that agree in `keys`, with intervals that resample tasks."""
    return [
        {
            **dict(zip(keys, key, strict=True)),
            "rouge_l": _mean([row["rouge_l"] for row in members]),
            "ci95": bootstrap_ci95([row["rouge_l"] for row in members]),
            "exact_match": _mean([row["exact_match"] for row in members]),
            "tasks": len(members),
        }
        for key, members in _grouped(rows, *keys).items()
    ]


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """Means of the held-out tasks of each kind (their category was seen in training, or not)."""
    held_out = [row for row in rows if row["split"] == "held-out" and row["kind"]]
    return means(held_out, "method", "mode", "kind")


def recovery(rows: Sequence[Row]) -> list[Row]:
    """(score - base) / (oracle - base) of mean scores, on the tasks that have all three."""
    found = []
    for (mode, split), members in _grouped(rows, "mode", "split").items():
        scores = _scores(members)
        base, oracle = scores.get("base", {}), scores.get("oracle", {})
        for method, own in scores.items():
            tasks = sorted(own.keys() & base.keys() & oracle.keys())
            if method in ("base", "oracle") or not tasks:
                continue
            ours, low, high = (_mean([s[t] for t in tasks]) for s in (own, base, oracle))
            if high > low:
                share = (ours - low) / (high - low)
                found.append(
                    {"method": method, "mode": mode, "split": split, "recovery": share,
                     "tasks": len(tasks)}
                )  # fmt: skip
    return found


def pairs(rows: Sequence[Row]) -> list[Row]:
    """Paired differences of ROUGE-L between any two methods, with 95 % intervals."""
    found = []
    for (mode, split), members in _grouped(rows, "mode", "split").items():
        for (a, ours), (b, theirs) in combinations(_scores(members).items(), 2):
            tasks = sorted(ours.keys() & theirs.keys())
            if tasks:
                differences = [ours[t] - theirs[t] for t in tasks]
                found.append(
                    {"a": a, "b": b, "mode": mode, "split": split, "tasks": len(tasks),
                     "difference": _mean(differences), "ci95": bootstrap_ci95(differences)}
                )  # fmt: skip
    return found


def calibration_curve(rows: Sequence[Row], similarity: Mapping[str, float]) -> list[Row]:
    """Does a near neighbour in the library promise a good adapter?

    For each method and mode: Spearman's correlation, over tasks, of the greatest similarity of a
    library description with the task's own recovery. Points are kept for a picture.
    """
    found = []
    for (mode,), members in _grouped(rows, "mode").items():
        scores = _scores(members)
        base, oracle = scores.get("base", {}), scores.get("oracle", {})
        for method, own in scores.items():
            if method in ("base", "oracle", "in-context"):
                continue
            points = [
                {
                    "task": task,
                    "similarity": similarity[task],
                    "recovery": (own[task] - base[task]) / (oracle[task] - base[task]),
                }
                for task in sorted(own.keys() & base.keys() & oracle.keys() & similarity.keys())
                if oracle[task] - base[task] >= LEAST_GAIN
            ]
            if len(points) > 2:
                values = ([p["similarity"] for p in points], [p["recovery"] for p in points])
                found.append(
                    {"method": method, "mode": mode, "spearman": spearman(*values),
                     "points": points}
                )  # fmt: skip
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; 0 if either does not vary."""
    from scipy.stats import spearmanr

    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def _scores(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """ROUGE-L by method and task."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["task"]] = row["rouge_l"]
    return found


def _grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
