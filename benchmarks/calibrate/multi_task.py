"""Trains a multi-task adapter, as those that ship: one for all tasks, instruction in the prompt.

    python -m benchmarks.calibrate.multi_task --tasks TASKS/train TASKS/train_extra --rank 16 \\
        --steps 560 --device cuda --out pretrained/multi-task

One job of the batched trainer that builds libraries: 256 rows a step, drawn from 200 of each task.
Half of the prompts have another wording of the instruction than its definition, where there is one,
and in 3 of 10 the labels are swapped for others in instruction and answer alike, so that the
instruction has to be read; `--variants SHARE` of the rows have further rules, and `--synthetic N`
adds two rows of each of N synthetic tasks, of which `--distinct M` are different; `--authored R`
adds R rows of each authored task (training.synthetic.authored), which are not relabelled. Tasks of
the licence class `restricted` are left out. `--writes-inputs` trains the adapter that writes inputs
from descriptions (generator.refine.writer), on the same rows.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.calibrate.multi_task_rows import RowSource
from generator.strategies.input_writer import InputWriter
from generator.strategies.multi_task import MultiTask
from library.adapter import Adapter
from library.base.compiled import compile_layers
from library.base.models import (
    BaseModel,
    described,
    fast_dtype,
    load_base,
    load_config,
    load_tokenizer,
    numerics,
    resolve_base,
)
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import Provenance, finish
from library.peft.write import to_peft
from library.trainer.batched import BatchedTrainer
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import recipe_named
from library.trainer.run_state import TrainConfig
from training.data.tasks import read_folders
from training.synthetic.authored import authored_digest, read_authored
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks

ROWS = 256  # of a step


def main() -> None:
    o = _options()
    reference = resolve_base(o.base)
    tasks = [task for task in read_folders(o.tasks, {"restricted"}) if task.train]
    # 1. All rows, before a process holds the GPU.
    endless = SyntheticTasks(o.seed, FAMILIES, read_topics(), count=o.distinct)
    tokenizer = load_tokenizer(reference)
    authored = read_authored() if o.authored else ()
    source = RowSource(
        tokenizer=tokenizer, tasks=[*tasks, *authored], authored_rows=o.authored,
        variants=o.variants, synthetic=endless, visits=o.synthetic, seed=o.seed,
        writes=o.writes_inputs,
    )  # fmt: skip
    job = TrainingJob("all", source.rows(o.workers), seed=o.seed)
    # 2. One adapter on them.
    base = load_base(reference, device=o.device, dtype=fast_dtype(o.device))
    if o.compile:
        compile_layers(base.model)
    trainer = BatchedTrainer(
        base.model,
        layout_of(load_config(reference), o.targets.split(","), rank=o.rank),
        recipe_named("lora", lr=o.lr),
        TrainConfig(steps=o.steps, rows=ROWS, slots=1, micro_batches=3, patience=0),
        pad=base.tokenizer.pad_token_id,
    )
    (result,) = trainer.run([job])
    assert result.adapter is not None, "the training diverged"
    settings = {
        "steps": o.steps, "lr": o.lr, "variants": o.variants, "synthetic_tasks": o.synthetic,
        "authored_tasks": len(authored), "authored_rows": o.authored,
        "authored_sha256": authored_digest() if authored else None,
        "distinct": o.distinct, "rows": len(job.train), "tokens": trainer.figures.tokens,
    }  # fmt: skip
    _write(o, result.adapter, base, {**settings, "tasks": sorted(task.name for task in tasks)})


def _write(
    o: argparse.Namespace, adapter: Adapter, base: BaseModel, details: dict[str, Any]
) -> None:
    made_for = described(base.reference) | ({"id": o.base_name} if o.base_name else {})
    provenance = Provenance(
        generator=InputWriter.name if o.writes_inputs else MultiTask.name,
        checkpoint=None,
        description=None,
        seed=o.seed,
        numerics=numerics(base.model),
        layout_digest=adapter.layout.digest,
        base=made_for,
        details=details,
    )
    files = to_peft(adapter, base_name=made_for["id"])
    write_folder(o.out, finish(files, provenance).files, overwrite=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--base")
    parser.add_argument("--base-name", help="what the adapter calls it; by default as --base does")
    parser.add_argument("--synthetic", type=int, default=0, metavar="TASKS")
    parser.add_argument("--distinct", type=int, metavar="TASKS")
    parser.add_argument("--authored", type=int, default=0, metavar="ROWS")
    parser.add_argument("--variants", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=560)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="pays on a GPU")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw rows")
    parser.add_argument("--writes-inputs", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
