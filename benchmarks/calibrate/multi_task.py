"""Trains the multi-task adapter that ships: one adapter for all tasks, instruction in the prompt.

    python -m benchmarks.calibrate.multi_task --tasks TASKS/train TASKS/train_extra --rank 16 \\
        --steps 560 --device cuda --out pretrained/multi-task

One job of the batched trainer that builds libraries: 256 rows a step, drawn from 200 of each task.
Half of the prompts have another wording of the instruction than its definition, where there is one,
and in 3 of 10 the labels are swapped for others in instruction and answer alike, so that the
instruction has to be read; `--variants SHARE` of the rows have further rules, and `--synthetic N`
adds two rows of each of N synthetic tasks. Tasks of the licence class `restricted` are left out.
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
from training.data.batches import Wording
from training.data.relabel import Relabelling, relabellings
from training.data.task_variants import Variants
from training.data.tasks import read_folders
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks

ROWS = 256  # of a step
DRAWN = 200  # of a task
LONGEST = 320  # tokens
RELABELLED, REWORDED = 0.3, 0.5


def main() -> None:
    o = _options()
    reference = resolve_base(o.base)
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    tasks = [task for task in read_folders(o.tasks, {"restricted"}) if task.train]
    layout = layout_of(load_config(reference), o.targets.split(","), rank=o.rank)
    trainer = BatchedTrainer(
        base.model,
        layout,
        recipe_named("lora", lr=o.lr),
        TrainConfig(steps=o.steps, rows=ROWS, slots=1, micro_batches=3, patience=0),
        pad=base.tokenizer.pad_token_id,
    )
    rows = (
        *drawn_rows(base, tasks, o.variants, o.seed),
        *synthetic_rows(base, o.synthetic, o.seed),
    )
    (result,) = trainer.run([TrainingJob("all", rows, seed=o.seed)])
    assert result.adapter is not None, "the training diverged"
    settings = {
        "steps": o.steps, "lr": o.lr, "variants": o.variants, "synthetic_tasks": o.synthetic,
    }  # fmt: skip
    _write(o.out, result.adapter, base, tasks, settings, o.seed)


def drawn_rows(
    base: BaseModel, tasks: Sequence[Task], share: float, seed: int
) -> tuple[TokenRow, ...]:
    """Rows of all tasks, each with the instruction in a wording of its own; a share of variants."""
    rng, rows = random.Random(seed), []
    for task, relabelled in zip(tasks, relabellings(tasks, 24, seed), strict=True):
        variants = Variants(task)
        for example in rng.choices(task.train, k=DRAWN):
            wording = _wording(rng, task, relabelled)
            text, row = wording.text, wording.pair(example)
            if rng.random() < share:
                variant = variants.drawn(rng, [wording.pair(each) for each in task.train])
                text, row = variant.described(text, rng), variant.row(row)
            rows.append(_row(base, text, row.input, row.output))
    return tuple(row for row in rows if len(row) <= LONGEST)


def synthetic_rows(base: BaseModel, count: int, seed: int) -> tuple[TokenRow, ...]:
    """Two rows of each of the first synthetic tasks, one by either of its descriptions."""
    tasks, rows = SyntheticTasks(seed, FAMILIES, read_topics()), []
    for task in (tasks[number] for number in range(count)):
        for j, text in enumerate((task.description, task.paraphrase)):
            example = task.row(j)
            rows.append(_row(base, text, example.input, example.output))
    return tuple(row for row in rows if len(row) <= LONGEST)


def _row(base: BaseModel, instruction: str, text: str, answer: str) -> TokenRow:
    prompt = prompt_ids(base.tokenizer, user_turn("prompted", instruction, text))
    return TokenRow(0, prompt, answer_ids(base.tokenizer, answer))


def _wording(rng: random.Random, task: Task, relabelled: Sequence[Relabelling]) -> Wording:
    """An instruction, and what the answers become."""
    if relabelled and rng.random() < RELABELLED:
        chosen = rng.choice(relabelled)
        return Wording(chosen.definition, chosen.definition, chosen.labels)
    if len(task.descriptions) > 1 and rng.random() < REWORDED:
        return Wording(rng.choice(task.descriptions[1:]), task.definition)
    return Wording(task.definition, task.definition)


def _write(
    out: Path,
    adapter: Adapter,
    base: BaseModel,
    tasks: Sequence[Task],
    settings: dict[str, float],
    seed: int,
) -> None:
    provenance = Provenance(
        generator="multi-task",
        checkpoint=None,
        description=None,
        seed=seed,
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
    parser.add_argument("--synthetic", type=int, default=0, metavar="TASKS")
    parser.add_argument("--variants", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=560)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
