"""Trains the multi-task adapter that ships: one adapter for all tasks, instruction in the prompt.

    python -m benchmarks.calibrate.multi_task --tasks TASKS/train TASKS/train_extra --rank 16 \\
        --steps 560 --device cuda --out pretrained/multi-task

One job of the batched trainer that builds libraries: 256 rows a step, drawn from 200 of each task.
Half of the prompts have another wording of the instruction than its definition, where there is one,
and in 3 of 10 the labels are swapped for others in instruction and answer alike, so that the
instruction has to be read. Tasks of the licence class `restricted` are left out.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from library.adapter import Adapter
from library.base.batches import TokenRow
from library.base.models import (
    BaseModel,
    described,
    fast_dtype,
    load_base,
    load_config,
    numerics,
    resolve_base,
)
from library.base.prompts import answer_ids, prompt_ids, user_turn
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import Provenance, finish
from library.peft.write import to_peft
from library.tasks.files import Task
from library.trainer.batched import BatchedTrainer
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import recipe_named
from library.trainer.run_state import TrainConfig
from training.data.relabel import Relabelling, relabellings
from training.data.tasks import read_folders

ROWS = 256  # of a step
DRAWN = 200  # of a task
LONGEST = 320  # tokens
RELABELLED, REWORDED = 0.3, 0.5


def main() -> None:
    o = _options()
    reference = resolve_base(o.base)
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    tasks = [task for task in read_folders(o.tasks, {"restricted"}) if task.train]
    layout = layout_of(load_config(reference), ("q_proj", "v_proj"), rank=o.rank)
    trainer = BatchedTrainer(
        base.model,
        layout,
        recipe_named("lora", lr=o.lr),
        TrainConfig(steps=o.steps, rows=ROWS, slots=1, micro_batches=3, patience=0),
        pad=base.tokenizer.pad_token_id,
    )
    (result,) = trainer.run([TrainingJob("all", drawn_rows(base, tasks))])
    assert result.adapter is not None, "the training diverged"
    _write(o.out, result.adapter, base, tasks, {"steps": o.steps, "lr": o.lr})


def drawn_rows(base: BaseModel, tasks: Sequence[Task]) -> tuple[TokenRow, ...]:
    """Rows of all tasks, each with the instruction in a wording of its own."""
    rng, rows = random.Random(0), []
    for task, relabelled in zip(tasks, relabellings(tasks, 24, 0), strict=True):
        for example in rng.choices(task.train, k=DRAWN):
            instruction, labels = _wording(rng, task, relabelled)
            answer = labels.get(example.output, example.output)
            prompt = prompt_ids(base.tokenizer, user_turn("prompted", instruction, example.input))
            row = TokenRow(0, prompt, answer_ids(base.tokenizer, answer))
            if len(row) <= LONGEST:
                rows.append(row)
    return tuple(rows)


def _wording(
    rng: random.Random, task: Task, relabelled: Sequence[Relabelling]
) -> tuple[str, dict[str, str]]:
    """An instruction, and what the answers become."""
    if relabelled and rng.random() < RELABELLED:
        chosen = rng.choice(relabelled)
        return chosen.definition, dict(chosen.labels)
    if len(task.descriptions) > 1 and rng.random() < REWORDED:
        return rng.choice(task.descriptions[1:]), {}
    return task.definition, {}


def _write(
    out: Path, adapter: Adapter, base: BaseModel, tasks: Sequence[Task], settings: dict[str, float]
) -> None:
    provenance = Provenance(
        generator="multi-task",
        checkpoint=None,
        description=None,
        seed=0,
        numerics=numerics(base.model),
        layout_digest=adapter.layout.digest,
        base=described(base.reference),
        details={**settings, "tasks": sorted(task.name for task in tasks)},
    )
    files = to_peft(adapter, base_name=base.reference.name)
    write_folder(out, finish(files, provenance).files, overwrite=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--base")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=560)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
