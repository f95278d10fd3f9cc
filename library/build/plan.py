"""The plan of a library: everything that decides what it holds, fixed before the first step.

It is the manifest in the library's folder. A shard is a fixed list of jobs; whoever builds it, and
however often it was stopped, builds it from the plan alone.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from library.base.batches import TokenRow
from library.base.prompts import answer_ids, prompt_ids
from library.canonical import json_digest
from library.errors import TaskFileError, UsageError
from library.layout import Layout
from library.tasks.files import Example, Task
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.registry import recipe_from_dict
from library.trainer.run_state import TrainConfig, TrainingJob

FORMAT = 1


@dataclass(frozen=True)
class JobPlan:
    """One adapter to train: a task, and a variant of its rows and their order.

    Variant 0 trains on all train rows; each other on its own random half.
    """

    task: str
    variant: int = 0

    @property
    def name(self) -> str:
        return f"{self.task}.v{self.variant}" if self.variant else self.task


@dataclass(frozen=True)
class Plan:
    """The content of a library before it is trained.

    Attributes:
        base: {"id", "sha256", "source"} of the base model.
        layout: of every adapter.
        recipe, config: of their training.
        seed: of the A that all start from, and of the order of rows.
        max_length: longer rows are left out.
        tasks: digest of the rows of each task.
        shards: jobs, by shard.
        skipped: reason for each task that cannot be trained on.
    """

    base: dict[str, Any]
    layout: Layout
    recipe: Recipe
    config: TrainConfig
    seed: int
    max_length: int
    tasks: dict[str, str]
    shards: tuple[tuple[JobPlan, ...], ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{k: v for k, v in vars(self).items() if k not in ("layout", "recipe", "config")},
            "format": FORMAT,
            "layout": self.layout.to_dict(),
            "layout_digest": self.layout.digest,
            "recipe": asdict(self.recipe),
            "config": asdict(self.config),
            "shards": [[asdict(job) for job in shard] for shard in self.shards],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Plan":
        """Raises UsageError for a library of a newer version, or of imported adapters only."""
        if data["format"] > FORMAT:
            raise UsageError(
                f"the library has format {data['format']}; this version reads up to {FORMAT}"
            )
        if not has_plan(data):
            raise UsageError(
                "the library has no plan, only imported adapters: `library build --resume` adds one"
            )
        names = ("base", "seed", "max_length", "tasks", "skipped")
        return cls(
            layout=Layout.from_dict(data["layout"]),
            recipe=recipe_from_dict(data["recipe"]),
            config=TrainConfig(**data["config"]),
            shards=tuple(tuple(JobPlan(**job) for job in shard) for shard in data["shards"]),
            **{name: data[name] for name in names},
        )


def has_plan(manifest: dict[str, Any]) -> bool:
    """True if a manifest is a plan; the library of an import has one of its format alone."""
    return "layout" in manifest


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
    reasons = {task.name: _unfit(task, tokenizer, max_length) for task in tasks}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    trainable = [task for task in tasks if task.name not in skipped]
    if not trainable:
        raise TaskFileError("none of the tasks can be trained on: " + "; ".join(skipped.values()))
    jobs = [JobPlan(task.name, v) for v in range(variants) for task in trainable]
    shards = [tuple(jobs[i : i + shard_size]) for i in range(0, len(jobs), shard_size)]
    digests = {task.name: rows_digest(task.train) for task in trainable}
    return Plan(base, layout, recipe, config, seed, max_length, digests, tuple(shards), skipped)


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
    return tuple(_fitting(rows, tokenizer, longest))


def _fitting(rows: Sequence[Example], tokenizer: Any, longest: int) -> Iterator[TokenRow]:
    for example in rows:
        prompt = prompt_ids(tokenizer, example.input)
        row = TokenRow(0, prompt, answer_ids(tokenizer, example.outputs[0]))
        if len(row) <= longest:
            yield row


def _unfit(task: Task, tokenizer: Any, longest: int) -> str:
    """The reason why a task cannot be trained on; empty if it can."""
    if not task.train:
        return f"{task.name} has {len(task.instances)} rows, which leaves none to train on"
    if next(_fitting(task.train, tokenizer, longest), None) is None:
        return f"every train row of {task.name} is longer than {longest} tokens"
    return ""
