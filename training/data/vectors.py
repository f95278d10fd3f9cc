"""Task vectors of a library's adapters, computed once before training.

In-context vectors come in several draws a task, so that a generator learns to serve descriptions
alone as well as descriptions with examples. Train rows alone are read, never tune or test rows.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.models import BaseModel, base_layout, load_base, resolve_base
from library.base.task_vectors import SHOTS, adapted_prompts, in_context_prompts, task_vectors
from library.errors import TaskFileError, UsageError
from library.tasks.files import Example, Task
from training.data.tasks import read_folders

VectorKind = Literal["in-context", "adapted"]
Vectors = Float[Tensor, "adapters draws d"]


@dataclass(frozen=True)
class VectorConfig:
    """Settings of the task vectors that conditions hold. Raises UsageError for no draws.

    Attributes:
        tasks: folders (or files) of the library's tasks, for their train rows; none: no vectors.
        base: Hub id or folder of the library's base model; the default base if None.
        kind: "in-context" serves requests; "adapted" is the paper's, for tasks with an adapter.
        draws: in-context vectors of each task, of which a step takes one: the first is the
            definition alone, half of the others a description alone.
    """

    tasks: list[str] | None = None
    base: str | None = None
    kind: VectorKind = "in-context"
    draws: int = 8

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UsageError(f"draws of task vectors must be 1 or more, not {self.draws}")

    @property
    def record(self) -> dict[str, Any] | None:
        """What a checkpoint tells of them: no paths; None without vectors."""
        return {"kind": self.kind, "draws": self.draws} if self.tasks else None


def library_vectors(
    config: VectorConfig, names: Sequence[str], adapters: Adapter, seed: int, location: str
) -> Vectors:
    """Vectors of a library's adapters.

    Args:
        config: of vectors that there shall be.
        names: the task of each adapter.
        adapters: as many.
        seed: of the draws.
        location: of the library, for errors.
    Raises:
        TaskFileError: the folders lack a task or its train rows.
        LayoutMismatch: the library was made for another base.
        MissingPath, BaseModelError.
    """
    tasks = tasks_of(config.tasks or [], names, location)
    reference, layout = resolve_base(config.base), adapters.layout
    base_layout(reference, layout).require_same(
        layout, f"base model '{reference.name}'", f"the library {location}"
    )
    base = load_base(reference, device="cuda" if torch.cuda.is_available() else "cpu")
    if config.kind == "adapted":
        return adapted_vectors(base, [tasks[name] for name in names], adapters)[:, None]
    vectors = drawn_vectors(base, list(tasks.values()), config.draws, seed)
    order = list(tasks)
    return vectors[[order.index(name) for name in names]]


def tasks_of(folders: Sequence[str], names: Sequence[str], location: str) -> Mapping[str, Task]:
    """The tasks of a library's adapters, by name. Raises TaskFileError if rows are lacking."""
    found = {task.name: task for task in read_folders(folders) if task.train}
    lacking = sorted(set(names) - set(found))
    if lacking:
        raise TaskFileError(
            f"task vectors need train rows of {lacking[0]}, which {location} holds an adapter of, "
            "and no task folder has any"
        )
    return {name: found[name] for name in dict.fromkeys(names)}


def adapted_vectors(
    base: BaseModel, tasks: Sequence[Task], adapters: Adapter
) -> Float[Tensor, "adapters d"]:
    """The paper's vectors: each adapter acts on train rows of its own task."""
    prompts = {task.name: adapted_prompts(base.tokenizer, task.train) for task in tasks}
    return task_vectors(base, [prompts[task.name] for task in tasks], adapters)


def drawn_vectors(
    base: BaseModel, tasks: Sequence[Task], draws: int, seed: int
) -> Float[Tensor, "tasks draws d"]:
    """In-context vectors: of the definition alone, and of random descriptions and examples."""
    prompts = [
        in_context_prompts(base.tokenizer, *_drawn(task, draw, seed))
        for task in tasks
        for draw in range(draws)
    ]
    return task_vectors(base, prompts).unflatten(0, (len(tasks), draws))


def _drawn(task: Task, draw: int, seed: int) -> tuple[str, list[Example]]:
    """A description, and no example or up to five: a function of task, draw and seed."""
    if draw == 0:
        return task.definition, []
    rng = random.Random(f"{seed}/{task.name}/vector/{draw}")
    description = rng.choice(task.descriptions)
    count = rng.randint(1, SHOTS) if rng.random() < 0.5 else 0
    return description, rng.sample(task.train, min(count, len(task.train)))
