"""The model card of a generator checkpoint: its data, licence classes, command and scores.

python benchmarks/cards/model_card.py CHECKPOINT --tasks TASKS/train TASKS/train_extra \
    --reports docs/results/heldout.json docs/results/seen.json > pretrained/text-to-lora/README.md
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from generator.engine import read_generator
from library.checkpoint import CHECKPOINT_CONFIG, Checkpoint
from library.tasks.files import Task, read_tasks
from training.evaluation.report import table

TEXT = """\
---
license: apache-2.0
base_model: {base}
library_name: lorasmith
---
# Text-to-LoRA for {base}

A description becomes a LoRA adapter (rank {rank}, {modules}) in one forward pass.
{parameters:,} parameters, size {size}, stored as {storage}. Digest `{digest}`.

## Trained on
{count} Super-NaturalInstructions tasks ({rows:,} rows), {objective} for {steps:,} steps.
Weights of the base: {source} (SHA-256 `{sha256}`).
Settings are in `config.json` under `training`.

Descriptions, {descriptions:,} in all: each task's definition and summary from
Super-NaturalInstructions (Apache-2.0); for {paraphrased} tasks also up to 32 paraphrases,
machine-written, from the Text-to-LoRA repository (Apache-2.0).

| licence class of the data | tasks |
| --- | --- |
{classes}

## Scores of this file
ROUGE-L F1 x 100, mean over tasks, 40 test rows each, greedy.

{scores}

Made with `benchmarks/quality/reproduce_text_to_lora.sh`; each report's own command stands in its
JSON.

## Limits
A 135M base: adapted answers take the right form far more often than they are right. English tasks
with short answers. A description far from the training tasks gives an adapter that may not help:
measure it.
"""


def class_rows(tasks: Iterable[Task]) -> str:
    """Numbers of tasks of each licence class, as rows of a table."""
    classes = Counter(task.license_class or "unknown" for task in tasks)
    return "\n".join(f"| {name} | {n} |" for name, n in sorted(classes.items()))


def card(checkpoint: Checkpoint, config: dict, tasks: list[Task], reports: list[Path]) -> str:
    trained = [task for task in tasks if task.name in set(checkpoint.info.tasks)]
    missing = set(checkpoint.info.tasks) - {task.name for task in trained}
    if missing:
        raise SystemExit(f"task {min(missing)} of the checkpoint is in none of the folders")
    return TEXT.format(
        base=checkpoint.info.base["id"],
        rank=checkpoint.module.layout.rank,
        modules=" and ".join(dict.fromkeys(g.module_type for g in checkpoint.module.layout.groups)),
        parameters=sum(p.numel() for p in checkpoint.module.parameters()),
        size=checkpoint.module.config.size,
        storage=config["storage"],
        digest=checkpoint.digest,
        count=len(trained),
        rows=sum(len(task.train) for task in trained),
        objective=checkpoint.info.training["objective"],
        steps=checkpoint.info.training["steps"],
        source=checkpoint.info.base["source"],
        sha256=checkpoint.info.base["sha256"],
        descriptions=sum(len(task.descriptions) for task in trained),
        paraphrased=sum(bool(task.paraphrases) for task in trained),
        classes=class_rows(trained),
        scores="\n\n".join(table(json.loads(path.read_text())) for path in reports),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--reports", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    config = json.loads((options.checkpoint / CHECKPOINT_CONFIG).read_text(encoding="utf-8"))
    tasks = [task for folder in options.tasks for task in read_tasks(folder)]
    print(card(read_generator(options.checkpoint), config, tasks, options.reports), end="")


if __name__ == "__main__":
    main()
