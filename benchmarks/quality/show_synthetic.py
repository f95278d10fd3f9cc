"""Prints synthetic tasks, to be read by a person: both descriptions, labels and rows.

python -m benchmarks.quality.show_synthetic --seed 0 --first 0 --count 5
python -m benchmarks.quality.show_synthetic --tasks TASKS/train --count 5  # variants of them
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.tasks.files import read_tasks
from training.data.task_variants import Variants
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks


def show_variants(folder: Path, rng: random.Random, count: int, rows: int) -> None:
    """Prints variants of a folder's tasks."""
    tasks = [task for task in read_tasks(folder) if task.train]
    for task in rng.choices(tasks, k=count):
        variant = Variants(task).drawn(rng, task.train)
        print(f"=== {task.name}\n{variant.described(rng.choice(task.descriptions), rng)}")
        for row in map(variant.row, rng.choices(task.train, k=rows)):
            print(f"    {row.input!r} -> {row.output!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tasks", type=Path, help="a folder: print variants of its tasks instead")
    arguments = parser.parse_args()
    if arguments.tasks:
        rng = random.Random(f"{arguments.seed}/{arguments.first}")
        return show_variants(arguments.tasks, rng, arguments.count, arguments.rows)
    stream = SyntheticTasks(arguments.seed, FAMILIES, read_topics())
    for number in range(arguments.first, arguments.first + arguments.count):
        task = stream[number]
        print(f"=== {task.name}\n{task.description}\n--- or\n{task.paraphrase}")
        print(f"--- labels: {', '.join(map(repr, task.labels)) or 'none'}")
        for row in map(task.row, range(arguments.rows)):
            print(f"    {row.input!r} -> {row.output!r}")


if __name__ == "__main__":
    main()
