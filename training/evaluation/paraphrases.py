"""One evaluation under several paraphrases of every description: does the wording matter?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from library.errors import TaskFileError
from library.tasks.files import Task
from training.evaluation.comparison import Row, averaged, by_cell
from training.evaluation.report import summaries
from training.evaluation.scores import SCORES

_OF_PARAPHRASE = ("usage", *SCORES, "refined")  # what a row keeps of each


def paraphrased(tasks: Sequence[Task], count: int) -> list[list[Task]]:
    """The tasks `count` times, each time with another paraphrase as their definition.

    Raises TaskFileError if a task has fewer.
    """
    for task in tasks:
        if len(task.paraphrases) < count:
            raise TaskFileError(
                f"{task.name} has {len(task.paraphrases)} paraphrases, of which {count} are needed"
            )
    return [
        [replace(task, definition=task.paraphrases[number]) for task in tasks]
        for number in range(count)
    ]


def over_paraphrases(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report of those that differ in the descriptions alone, with their spread.

    A row's scores are means, and `paraphrases` has those of each. Similarities are means,
    abstentions sums; what `auto` chose stands under the number of the paraphrase.
    """
    cells = by_cell([row for report in reports for row in report["rows"]])
    rows = [{**averaged(cell), "paraphrases": [_part(row) for row in cell]} for cell in cells]
    similarity = {
        task: sum(report["similarity"][task] for report in reports) / len(reports)
        for task in reports[0]["similarity"]
    }
    return {
        **reports[0],
        "rows": rows,
        "similarity": similarity,
        **summaries(rows, similarity),
        "abstentions": {
            method: sum(report["abstentions"][method] for report in reports)
            for method in reports[0]["abstentions"]
        },
        "chosen": {
            f"{cell}, paraphrase {number}": choices
            for number, report in enumerate(reports, start=1)
            for cell, choices in report["chosen"].items()
        },
    }


def _part(row: Row) -> Row:
    return {name: row[name] for name in _OF_PARAPHRASE}
