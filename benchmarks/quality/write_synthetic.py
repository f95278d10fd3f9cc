"""Writes synthetic tasks as task files, to be evaluated like any others.

    python -m benchmarks.quality.write_synthetic --seed 777 --out TASKS/synthetic
    lorasmith evaluate --tasks TASKS/synthetic --methods text-to-lora,multi-task --out FILE ...

Every second task of the stream, as groups have two, until there are --each with labels (`labels-…`)
and --each without (`free-…`); 60 rows each. Tasks with few different inputs are left out. A stream
of another seed than the training's has descriptions that the training never had.
"""

import argparse
import json
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.files import write_file
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTask, SyntheticTasks

ROWS, INPUTS = 60, 30  # of a task; at least so many different inputs


def chosen(seed: int, each: int) -> dict[str, SyntheticTask]:
    """Tasks by the name of their file."""
    stream, tasks = SyntheticTasks(seed, FAMILIES, read_topics()), dict[str, SyntheticTask]()
    numbers = {"labels": 0, "free": 0}
    places = count(step=2)
    while min(numbers.values()) < each:
        task = stream[next(places)]
        kind = "labels" if task.labels else "free"
        if numbers[kind] < each and len({task.row(j).input for j in range(ROWS)}) >= INPUTS:
            tasks[f"{kind}-{numbers[kind]:02d}"] = task
            numbers[kind] += 1
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--each", type=int, default=22)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    for name, task in chosen(o.seed, o.each).items():
        rows = [{"input": r.input, "output": r.output} for r in map(task.row, range(ROWS))]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_file(o.out / f"{name}.jsonl", lines.encode())
        write_file(o.out / f"{name}.txt", task.description.encode())


if __name__ == "__main__":
    main()
