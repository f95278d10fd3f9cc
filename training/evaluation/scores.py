"""Scores of a task's answers: what a report says of one method on one task."""

from collections.abc import Callable, Sequence

from library.tasks.files import Task
from library.tasks.metrics import (
    exact_match,
    is_structured,
    json_fields,
    rouge_l,
    strict_exact,
    valid_json,
)
from training.data.relabel import labels_of

Score = Callable[[str, Sequence[str]], float]

# By its name in a report; in tables the others stand behind ROUGE-L under these titles.
METRIC_TITLES = {
    "exact_match": "exact",
    "strict_exact": "strict",
    "in_labels": "in labels",
    "valid_json": "JSON",
    "json_fields": "JSON fields",
}
SCORES = ("rouge_l", *METRIC_TITLES)


def scores_of(task: Task, answers: Sequence[str]) -> dict[str, float | None]:
    """Means over a task's test rows, in [0, 1], by metric.

    None where a task has no such score: `in_labels`, the share of answers that are one of its
    labels, whatever the case, without labels; `valid_json` and `json_fields` unless each reference
    is a JSON object or array.
    """
    every: dict[str, Score] = {
        "rouge_l": rouge_l,
        "exact_match": exact_match,
        "strict_exact": strict_exact,
    }
    labels = {label.strip().casefold() for label in labels_of(task)}
    if labels:
        every["in_labels"] = lambda answer, _: float(answer.strip().casefold() in labels)
    if all(is_structured(output) for row in task.instances for output in row.outputs):
        every |= {"valid_json": lambda answer, _: valid_json(answer), "json_fields": json_fields}
    pairs = list(zip(answers, task.test, strict=True))
    means: dict[str, float | None] = dict.fromkeys(SCORES)
    for name, metric in every.items():
        means[name] = sum(metric(answer, row.outputs) for answer, row in pairs) / len(pairs)
    return means
