"""Measures the authored tasks, as JSON: how many, their lengths, and what of a bench is nearest.

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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.measure_synthetic import mean_tokens
from index.encoders.descriptions import DescriptionEncoder
from library.base.models import load_tokenizer, resolve_base
from library.tasks.files import Task, read_tasks
from training.synthetic.authored import read_authored


def vectors(encoder: DescriptionEncoder, texts: Iterable[str]) -> dict[str, Tensor]:
    """Unit vectors by text."""
    different = list(dict.fromkeys(texts))
    return dict(zip(different, encoder.vectors(different), strict=True))


def nearest(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Any]:
    """The two texts whose unit vectors have the highest cosine, and the cosine."""
    cosines = torch.stack([*own.values()]) @ torch.stack([*other.values()]).T
    row, column = divmod(int(cosines.argmax()), len(other))
    texts = {"own": [*own][row], "other": [*other][column]}
    return {"cosine": round(float(cosines.max()), 3), **texts}


def counts(tasks: Sequence[Task], tokenizer: Any) -> dict[str, Any]:
    """How many tasks, inputs and rows, and the mean tokens of descriptions, inputs and answers."""
    rows = [row for task in tasks for row in task.train]
    texts = {
        "description": [text for task in tasks for text in task.descriptions],
        "input": list({row.input for row in rows}),
        "answer": [row.output for row in rows],
    }
    return {
        "tasks": len(tasks),
        "kinds_of_inputs": len({task.categories for task in tasks}),
        "inputs": len(texts["input"]),
        "rows": len(rows),
        "mean_tokens": mean_tokens(texts, tokenizer),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--near", type=Path, nargs="+", required=True, metavar="TASKS")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    encoder, tasks = DescriptionEncoder(dtype=torch.float32), read_authored()
    wordings = vectors(encoder, (text for task in tasks for text in task.descriptions))
    inputs = vectors(encoder, (row.input for task in tasks for row in task.train))
    report = {
        "command": shlex.join(
            ["python", "-m", "benchmarks.quality.measure_authored", *sys.argv[1:]]
        ),
        **counts(tasks, load_tokenizer(resolve_base())),
        "nearest": {},
    }
    for folder in o.near:
        others = read_tasks(folder)
        descriptions = vectors(encoder, (text for t in others for text in t.descriptions))
        asked = vectors(encoder, (row.input for t in others for row in t.instances))
        report["nearest"][str(folder)] = {
            "wordings": nearest(wordings, descriptions),
            "inputs": nearest(inputs, asked),
        }
    o.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
