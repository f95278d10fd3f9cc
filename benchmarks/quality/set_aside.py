"""Copy the tasks that a checkpoint's training set aside into a folder to evaluate on.

    python benchmarks/quality/set_aside.py CHECKPOINT OUT TASKS/train TASKS/train_extra
    lorasmith evaluate --tasks OUT --checkpoint CHECKPOINT ...

Choices between architectures and settings are made on these, never on held-out tasks.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from generator.engine import read_generator
from library.tasks.files import read_task, task_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    options = parser.parse_args()
    names = set(read_generator(options.checkpoint).info.training["data"]["set_aside"])
    options.out.mkdir(parents=True)
    for file in (file for folder in options.tasks for file in task_files(folder)):
        if read_task(file).name in names:
            shutil.copy(file, options.out)
    print(f"{len(list(options.out.iterdir()))} of {len(names)} tasks in {options.out}")


if __name__ == "__main__":
    main()
