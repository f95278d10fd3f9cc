"""The model card of a generator checkpoint: its data, licence classes, commands and scores.

python benchmarks/cards/model_card.py pretrained/sg-lora --tasks TASKS/train TASKS/train_extra \
    --reports docs/results/sg-lora-sample.json docs/results/sg-lora-heldout.json \
    > pretrained/sg-lora/README.md

Run at the root, with paths of the reports from there. What is told of each kind of generator stands
in benchmarks/cards/texts.py.
"""

import argparse
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cards.texts import TEXTS
from generator.engine import read_generator
from library.checkpoint import CHECKPOINT_CONFIG, Checkpoint
from library.tasks.files import Task, read_tasks
from training.evaluation.report import table
from training.synthetic.authored import read_authored

RESULTS = Path("docs/results")
TEXT = """\
---
license: apache-2.0
base_model: {base}
library_name: lorasmith
---
# {title} for {base}

{what}

{parameters:,} parameters, stored as {storage}. Digest
`{digest}`.

## What a request needs
{needs}

## Trained on
{learned_from}

{trained}

Weights of the base: {source} (SHA-256
`{sha256}`).
All settings are in `config.json` under `training`. Made with:

{commands}
Descriptions of the tasks of Super-NaturalInstructions, {descriptions:,} in all: each one's
definition and summary from there (Apache-2.0); for {paraphrased} also up to 32 paraphrases,
machine-written, from the Text-to-LoRA repository (Apache-2.0).

| licence class of the data | tasks |
| --- | --- |
{classes}

## Scores of this file
ROUGE-L F1 x 100, mean over tasks, 40 test rows each, greedy; bare and prompted are without and with
the task's instruction in the prompt.

{tables}

Reports, each with its command: {reports}.

{scores}

## Limits
{limits}

A 135M base: adapted answers take the right form far more often than they are right. English tasks
with short answers.
"""


def class_rows(tasks: Iterable[Task]) -> str:
    """Numbers of tasks of each licence class, as rows of a table."""
    classes = Counter(task.license_class or "unknown" for task in tasks)
    return "\n".join(f"| {name} | {n} |" for name, n in sorted(classes.items()))


def trained_tasks(checkpoint: Checkpoint, tasks: Iterable[Task]) -> list[Task]:
    """The tasks that a checkpoint was trained on. Raises SystemExit if one is missing."""
    trained = [task for task in tasks if task.name in set(checkpoint.info.tasks)]
    missing = set(checkpoint.info.tasks) - {task.name for task in trained}
    if missing:
        raise SystemExit(f"task {min(missing)} of the checkpoint is in none of the folders")
    return trained


def learned_from(
    real: Sequence[Task], authored: Sequence[Task], training: Mapping[str, Any]
) -> str:
    """How many tasks and rows of either kind, in how many steps, as a wrapped sentence."""
    rows, written = (sum(len(task.train) for task in some) for some in (real, authored))
    told = f"{len(real)} Super-NaturalInstructions tasks ({rows:,} rows)"
    if authored:
        told += (
            f" and {len(authored):,} authored ones ({written:,} rows), written for this project as "
            "users put them, with the help of a language model (Apache-2.0; docs/training.md)"
        )
    told += f", in {training['steps']:,} steps of `{training['objective']}`."
    return textwrap.fill(told, 100)


def held_out(report: Mapping[str, Any], method: str) -> str:
    """Held-out scores x 100, "bare / prompted"."""
    means = {(m["method"], m["mode"], m["split"]): m["rouge_l"] for m in report["means"]}
    return " / ".join(f"{100 * means[method, m, 'held-out']:.1f}" for m in ("bare", "prompted"))


def differences(reports: Iterable[Mapping[str, Any]], method: str) -> str:
    """By how much a method is better than others, paired by task, with intervals, by report."""
    told = []
    for number, report in enumerate(reports, start=1):
        modes = []
        for pair in report["pairs"]:
            if pair["a"] == method:
                low, high = (100 * x for x in pair["ci95"])
                by = 100 * pair["difference"]
                modes.append(f"{by:.1f} ({low:.1f} to {high:.1f}) {pair['mode']}")
        told.append(f"{' and '.join(modes)} in table {number}")
    return "; ".join(told)


def numbers(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    tasks: Sequence[Task],
    reports: Mapping[Path, dict[str, Any]],
) -> dict[str, Any]:
    """What the braces of the texts stand for."""
    layout, data = checkpoint.module.layout, checkpoint.info.training["data"]
    shipped = read(RESULTS / "heldout.json")
    reconstruction = read(RESULTS / "text-to-lora-reconstruction-heldout.json")
    real, authored = ([t for t in tasks if t.authored is own] for own in (False, True))
    *first, last = layout.module_types
    modules = f"{', '.join(first)} and {last}" if first else last
    return {
        **{key: config[key] for key in ("architecture", "training", "storage")},
        "base": checkpoint.info.base["id"],
        "source": checkpoint.info.base["source"],
        "sha256": checkpoint.info.base["sha256"],
        "digest": checkpoint.digest,
        "rank": layout.rank,
        "layout_told": f"rank {layout.rank}, {modules}",
        "parameters": sum(p.numel() for p in checkpoint.module.parameters()),
        "library": data.get("library", data),
        "learned_from": learned_from(real, authored, config["training"]),
        "count": len(real),
        "descriptions": sum(len(task.descriptions) for task in real),
        "paraphrased": sum(bool(task.paraphrases) for task in real),
        "classes": class_rows(real),
        "tables": "\n\n".join(table(report) for report in reports.values()),
        "reports": ", ".join(f"[{path.stem}](../../{path})" for path in reports),
        "differences": differences(reports.values(), checkpoint.kind),
        "alone": held_out(shipped, "base"),
        "shipped": held_out(shipped, "text-to-lora"),
        "reconstruction": held_out(reconstruction, "text-to-lora"),
    }


def card(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    tasks: Iterable[Task],
    reports: Mapping[Path, dict[str, Any]],
) -> str:
    text = TEXTS[checkpoint.kind]
    known = numbers(checkpoint, config, trained_tasks(checkpoint, tasks), reports)
    told = {
        name: textwrap.fill(
            words.format(**known), 100, break_long_words=False, break_on_hyphens=False
        )
        for name, words in vars(text).items()
        if name != "commands"
    }
    return TEXT.format(**known, **told, commands=text.commands)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True)
    parser.add_argument("--reports", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    config = read(options.checkpoint / CHECKPOINT_CONFIG)
    tasks = [task for folder in options.tasks for task in read_tasks(folder)]
    tasks += read_authored()
    reports = {file: read(file) for file in options.reports}
    print(card(read_generator(options.checkpoint), config, tasks, reports), end="")


if __name__ == "__main__":
    main()
