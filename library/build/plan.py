"""Making the plan of a library (library.store.plan), and the rows of each of its jobs."""

import random
from collections.abc import Sequence
from typing import Any

from library.base.batches import TokenRow, fitting_rows
from library.canonical import json_digest
from library.errors import TaskFileError
from library.layout import Layout
from library.store.plan import JobPlan, Plan, Shards
from library.tasks.files import Example, Task
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.run_state import TrainConfig


def make_plan(
    tasks: Sequence[Task],
    tokenizer: Any,
    *,
    base: dict[str, Any],
    layout: Layout,
    recipe: Recipe,
    config: TrainConfig,
    seed: int = 0,
    max_length: int = 320,
    variants: int = 1,
    shard_size: int = 64,
) -> Plan:
    """Plan a library of `variants` adapters a task.

    Raises UsageError if the recipe cannot serve the layout, TaskFileError if no task can be trained
    on.
    """
    recipe.require_fit(layout, config.steps)
    trainable, skipped = sorted_out(tasks, tokenizer, max_length)
    shards = shards_of(trainable, variants, shard_size)
    return Plan(
        base, layout, recipe, config, seed, max_length, digests_of(trainable), shards, skipped
    )


def sorted_out(
    tasks: Sequence[Task], tokenizer: Any, max_length: int
) -> tuple[list[Task], dict[str, str]]:
    """The tasks that can be trained on, and the reason for each other.

    Raises TaskFileError if there are only others.
    """
    reasons = {task.name: _unfit(task, tokenizer, max_length) for task in tasks}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    trainable = [task for task in tasks if task.name not in skipped]
    if not trainable:
        raise TaskFileError("none of the tasks can be trained on: " + "; ".join(skipped.values()))
    return trainable, skipped


def shards_of(tasks: Sequence[Task], variants: int, size: int) -> Shards:
    """The jobs of some tasks, `size` of them a shard."""
    jobs = [JobPlan(task.name, v) for v in range(variants) for task in tasks]
    return tuple(tuple(jobs[i : i + size]) for i in range(0, len(jobs), size))


def digests_of(tasks: Sequence[Task]) -> dict[str, str]:
    """The digest of each task's train rows, by name."""
    return {task.name: rows_digest(task.train) for task in tasks}


def task_rows(job: JobPlan, task: Task, seed: int) -> tuple[Example, ...]:
    """The train rows of a variant."""
    if job.variant == 0:
        return task.train
    rng = random.Random(f"{seed}/{job.name}/rows")
    half = set(rng.sample(range(len(task.train)), -(-len(task.train) // 2)))
    return tuple(row for i, row in enumerate(task.train) if i in half)


def rows_digest(rows: Sequence[Example]) -> str:
    """Digest of examples, as provenance names them."""
    return json_digest([[row.input, list(row.outputs)] for row in rows])


def job_for(job: JobPlan, task: Task, tokenizer: Any, plan: Plan) -> TrainingJob:
    """Tokenise a job's rows without the instruction: the adapter has to carry the task."""
    train = tokenised(task_rows(job, task, plan.seed), tokenizer, plan.max_length)
    return TrainingJob(job.name, train, tokenised(task.tune, tokenizer, plan.max_length), plan.seed)


def tokenised(rows: Sequence[Example], tokenizer: Any, longest: int) -> tuple[TokenRow, ...]:
    """Bare prompts and first answers as token ids; rows of more than `longest` are left out."""
    return tuple(fitting_rows(rows, tokenizer, longest))


def _unfit(task: Task, tokenizer: Any, longest: int) -> str:
    """The reason why a task cannot be trained on; empty if it can."""
    if not task.train:
        return f"{task.name} has {len(task.instances)} rows, which leaves none to train on"
    if next(fitting_rows(task.train, tokenizer, longest), None) is None:
        return f"every train row of {task.name} is longer than {longest} tokens"
    return ""
