"""Measures the authored tasks, as JSON: how many, their lengths, and the nearest tasks of a test.

    python -m benchmarks.quality.measure_authored --near benchmarks/user_tasks \\
        benchmarks/user_tasks/reporting --out docs/results/authored.json

Nearness is the cosine of two texts' vectors by the description encoder: for each folder the
authored wording nearest to a description in it, and the authored input nearest to an input. Tasks
from 0.72 up, and rows from 0.75 up, were left out when the files were written. Lengths are tokens
of the offline base.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from index.encoders.descriptions import DescriptionEncoder
from library.base.models import load_tokenizer, resolve_base
from library.tasks.files import Task, read_tasks
from training.data.relabel import labels_of
from training.synthetic.authored import read_authored


def vectors(encoder: DescriptionEncoder, texts: Sequence[str]) -> Tensor:
    """Unit vectors, one row a text."""
    rows = torch.stack([each.pooled.reshape(-1) for each in encoder.encode_batch(texts)])
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def nearest(encoder: DescriptionEncoder, own: Sequence[str], other: Sequence[str]) -> Any:
    """The two texts of the highest cosine, and the cosine."""
    cosines = vectors(encoder, own) @ vectors(encoder, other).T
    row, column = divmod(int(cosines.argmax()), len(other))
    return {"cosine": round(float(cosines.max()), 3), "own": own[row], "other": other[column]}


def counts(tasks: Sequence[Task], tokenizer: Any) -> dict[str, Any]:
    """How many tasks, inputs and rows, and the mean tokens of descriptions, inputs and answers."""
    rows = [row for task in tasks for row in task.train]
    texts = {
        "description": [text for task in tasks for text in task.descriptions],
        "input": list({row.input for row in rows}),
        "answer": [row.output for row in rows],
    }
    tokens = {
        name: round(fmean(len(ids) for ids in tokenizer(some)["input_ids"]), 1)
        for name, some in texts.items()
    }
    return {
        "tasks": len(tasks),
        "kinds_of_inputs": len({task.categories for task in tasks}),
        "inputs": len(texts["input"]),
        "rows": len(rows),
        "tasks_with_at_most_7_answers": sum(0 < len(labels_of(task)) <= 7 for task in tasks),
        "mean_tokens": tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--near", type=Path, nargs="+", required=True, metavar="TASKS")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    encoder, tasks = DescriptionEncoder(dtype=torch.float32), read_authored()
    wordings = [text for task in tasks for text in task.descriptions]
    inputs = list({row.input: None for task in tasks for row in task.train})
    report = {
        "command": shlex.join(
            ["python", "-m", "benchmarks.quality.measure_authored", *sys.argv[1:]]
        ),
        **counts(tasks, load_tokenizer(resolve_base())),
        "nearest": {},
    }
    for folder in o.near:
        others = read_tasks(folder)
        report["nearest"][folder.name] = {
            "wordings": nearest(encoder, wordings, [d for t in others for d in t.descriptions]),
            "inputs": nearest(encoder, inputs, [r.input for t in others for r in t.instances]),
        }
    o.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
