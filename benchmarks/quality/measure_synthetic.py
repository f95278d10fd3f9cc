"""Measures the stream of synthetic tasks: time, plain and repeated descriptions, lengths, as JSON.

python -m benchmarks.quality.measure_synthetic --count 20000

Milliseconds are those of this process's CPU, for a task with `--rows` rows; lengths are tokens of
the offline base on the first 1,500 tasks.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from library.base.models import load_tokenizer, resolve_base
from training.synthetic.banks import plain, read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.settings import invented_name
from training.synthetic.stream import SyntheticTask, SyntheticTasks

MEASURED = 1500


def descriptions(tasks: Sequence[SyntheticTask]) -> dict[str, float]:
    """Shares of plain descriptions, and of those that occur more than once."""
    texts = [text for task in tasks for text in (task.description, task.paraphrase)]
    counts = Counter(map(plain, texts))
    bare = sum(invented_name(number) not in text for number, text in enumerate(texts))
    repeated = sum(count for count in counts.values() if count > 1)
    return {"plain": bare / len(texts), "repeated": repeated / len(texts)}


def lengths(tasks: Sequence[SyntheticTask], tokenizer: Any) -> dict[str, float]:
    """Mean tokens of a description, an input and an answer."""
    rows = [task.row(0) for task in tasks]
    texts = {
        "description": [task.description for task in tasks],
        "input": [row.input for row in rows],
        "answer": [row.output for row in rows],
    }
    return mean_tokens(texts, tokenizer)


def mean_tokens(texts: Mapping[str, Sequence[str]], tokenizer: Any) -> dict[str, float]:
    """Mean tokens of a text of each kind."""
    return {
        name: round(fmean(len(ids) for ids in tokenizer(some)["input_ids"]), 1)
        for name, some in texts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=4)
    arguments = parser.parse_args()
    stream = SyntheticTasks(arguments.seed, FAMILIES, read_topics())
    start, tasks = time.process_time(), list[SyntheticTask]()
    for number in range(arguments.count):
        tasks.append(stream[number])
        for row in range(arguments.rows):
            tasks[-1].row(row)
    took = time.process_time() - start
    first = tasks[:MEASURED]
    families = [task for task in first if task.name.split("/")[3].split("(")[0] in FAMILIES]
    tokenizer = load_tokenizer(resolve_base())
    print(
        json.dumps(
            {
                "tasks": len(tasks),
                "families": len(FAMILIES),
                "milliseconds_per_task": round(1000 * took / len(tasks), 3),
                **descriptions(tasks),
                "tokens_families": lengths(families, tokenizer),
                "tokens_classification": lengths(
                    [task for task in first if task not in families], tokenizer
                ),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
