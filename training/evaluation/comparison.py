"""Summaries of an evaluation's rows: means, kinds of tasks, recovery, spread, pairs of methods.

Rows are those of the report. Everything here is a mean over tasks with a bootstrap interval over
them; a pair of methods is compared on the tasks and the mode that both have.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import stdev
from typing import Any

# Not scipy.stats.bootstrap: its draws would change nine of ten published intervals by a decimal.
from library.tasks.metrics import bootstrap_ci95
from training.evaluation.scores import METRIC_TITLES, SCORES

Row = dict[str, Any]
SPREAD_METRICS = ("rouge_l", "strict_exact")
LEAST_GAIN = 0.1  # of an oracle over the base, for a task's recovery to mean something


def means(rows: Sequence[Row], *keys: str) -> list[Row]:
    """Mean scores of the rows that agree in `keys`, with intervals that resample tasks."""
    return [
        {
            **dict(zip(keys, key, strict=True)),
            "rouge_l": _mean([row["rouge_l"] for row in members]),
            "ci95": bootstrap_ci95([row["rouge_l"] for row in members]),
            **{name: _mean_of(name, members) for name in METRIC_TITLES},
            "tasks": len(members),
        }
        for key, members in _grouped(rows, *keys).items()
    ]


def by_cell(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each task, method and mode, of which several draws may have one each."""
    return list(_grouped(rows, "task", "method", "mode").values())


def averaged(rows: Sequence[Row]) -> Row:
    """The mean of one cell's rows: a score is None where one has none, usage where they differ."""
    scores: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in SCORES}
    usages = {row.get("usage") for row in rows}
    return {
        **rows[0],
        "usage": usages.pop() if len(usages) == 1 else None,
        **{name: None if None in values else _mean(values) for name, values in scores.items()},
        "refined": None,
    }


def spread(rows: Sequence[Row]) -> list[Row]:
    """How far scores move between the paraphrases of a task, of rows that were measured so.

    One entry a method, mode, split and metric: `spread`, the mean over tasks of the best less the
    worst score, with an interval that resamples tasks; `deviation`, that of the standard deviation
    (n - 1); and the mean score under each paraphrase.
    """
    measured = [row for row in rows if row.get("paraphrases")]
    return [
        {**dict(zip(("method", "mode", "split"), key, strict=True)), **_spread(members, metric)}
        for key, members in _grouped(measured, "method", "mode", "split").items()
        for metric in SPREAD_METRICS
    ]


def _spread(rows: Sequence[Row], metric: str) -> Row:
    scores = [[one[metric] for one in row["paraphrases"]] for row in rows]
    ranges = [max(of_task) - min(of_task) for of_task in scores]
    return {
        "metric": metric,
        "tasks": len(rows),
        "mean": _mean([row[metric] for row in rows]),
        "spread": _mean(ranges),
        "ci95": bootstrap_ci95(ranges),
        "deviation": _mean([stdev(of_task) for of_task in scores]),
        "by_paraphrase": [_mean(column) for column in zip(*scores, strict=True)],
    }


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """Means of the held-out tasks of each kind (their category was seen in training, or not)."""
    held_out = [row for row in rows if row["split"] == "held-out" and row["kind"]]
    return means(held_out, "method", "mode", "kind")


def recovery(rows: Sequence[Row]) -> list[Row]:
    """(score - base) / (oracle - base) of mean scores, on the tasks that have all three."""
    results = []
    for labels, tasks in _with_base_and_oracle(rows, "mode", "split"):
        score, base, oracle = (_mean(scores) for scores in list(zip(*tasks, strict=True))[1:])
        if oracle > base:
            share = (score - base) / (oracle - base)
            results.append({**labels, "recovery": share, "tasks": len(tasks)})
    return results


def pairs(rows: Sequence[Row], metric: str = "rouge_l") -> list[Row]:
    """Paired differences of a score between any two methods, with 95 % intervals."""
    results = []
    for (mode, split), members in _grouped(rows, "mode", "split").items():
        for (a, scores_a), (b, scores_b) in combinations(_scores(members, metric).items(), 2):
            tasks = sorted(scores_a.keys() & scores_b.keys())
            if tasks:
                differences = [scores_a[task] - scores_b[task] for task in tasks]
                results.append(
                    {"a": a, "b": b, "mode": mode, "split": split, "tasks": len(tasks),
                     "difference": _mean(differences), "ci95": bootstrap_ci95(differences)}
                )  # fmt: skip
    return results


def calibration_curve(rows: Sequence[Row], similarity: Mapping[str, float]) -> list[Row]:
    """Rank correlation of a description's similarity to the library with the task's recovery.

    One entry a method and mode: Spearman's correlation over tasks, and the tasks' points, for a
    picture. A task whose oracle gains less than LEAST_GAIN over the base is left out.
    """
    results = []
    for labels, tasks in _with_base_and_oracle(rows, "mode"):
        points = [
            {
                "task": task,
                "similarity": similarity[task],
                "recovery": (score - base) / (oracle - base),
            }
            for task, score, base, oracle in tasks
            if task in similarity and oracle - base >= LEAST_GAIN
        ]
        if len(points) > 2 and labels["method"] != "in-context":
            xy = ([p["similarity"] for p in points], [p["recovery"] for p in points])
            results.append({**labels, "spearman": spearman(*xy), "points": points})
    return results


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; 0 if either does not vary."""
    from scipy.stats import spearmanr

    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    result: Any = spearmanr(x, y)
    return float(result.statistic)


def _with_base_and_oracle(
    rows: Sequence[Row], *keys: str
) -> Iterator[tuple[Row, list[tuple[str, float, float, float]]]]:
    """Each other method, by `keys`, with (task, score, base, oracle) of its comparable tasks."""
    for key, members in _grouped(rows, *keys).items():
        scores = _scores(members)
        base, oracle = scores.pop("base", {}), scores.pop("oracle", {})
        for method, by_task in scores.items():
            tasks = sorted(by_task.keys() & base.keys() & oracle.keys())
            if tasks:
                labels = {"method": method, **dict(zip(keys, key, strict=True))}
                yield labels, [(task, by_task[task], base[task], oracle[task]) for task in tasks]


def _scores(rows: Sequence[Row], metric: str = "rouge_l") -> dict[str, dict[str, float]]:
    """A score by method and task."""
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        scores.setdefault(row["method"], {})[row["task"]] = row[metric]
    return scores


def _grouped(rows: Sequence[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _mean_of(metric: str, rows: Sequence[Row]) -> float | None:
    """Over the tasks that have it; None if none has, as in reports from before it existed."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return _mean(values) if values else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
