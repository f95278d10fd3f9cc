"""Prints synthetic tasks, to be read by a person: both descriptions, labels and rows.

python benchmarks/quality/show_synthetic.py --seed 0 --first 0 --count 5
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4)
    arguments = parser.parse_args()
    stream = SyntheticTasks(arguments.seed, FAMILIES, read_topics())
    for number in range(arguments.first, arguments.first + arguments.count):
        task = stream[number]
        print(f"=== {task.name}\n{task.description}\n--- or\n{task.paraphrase}")
        print(f"--- labels: {', '.join(map(repr, task.labels)) or 'none'}")
        for row in map(task.row, range(arguments.rows)):
            print(f"    {row.input!r} -> {row.output!r}")


if __name__ == "__main__":
    main()
