"""Adding tasks to a library: another part of its plan, and what of it is still to be trained.

A part is written before anything is trained and names its shards, so that an add may be killed at
any moment and the same one goes on. Those who add at once do not wait for each other: of two parts
that name a task with the same rows either may train it, and its record is written once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from library.build.plan import digests_of, shards_of, sorted_out
from library.errors import TaskFileError
from library.store.folder import LibraryFolder
from library.store.parts import recorded_jobs, whole_plan, write_part
from library.store.plan import JobPlan, Plan, Shards
from library.tasks.files import Task


@dataclass(frozen=True)
class Addition:
    """What is left to train of some tasks.

    Attributes:
        plan: the library's, whose shards hold what is missing and no more.
        existing: adapters that are there already.
        skipped: reason for each task that cannot be trained on.
    """

    plan: Plan
    existing: int
    skipped: dict[str, str]

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing."""
        return not any(self.plan.shards)


def begin_addition(
    folder: LibraryFolder, tasks: Mapping[str, Task], tokenizer: Any, *, shard_size: int = 64
) -> Addition:
    """Write a part for the tasks that a library does not have.

    Raises:
        TaskFileError: the library has a task of that name with other rows, or none of the tasks
            can be trained on.
        UsageError: the library has no plan.
    """
    plan = whole_plan(folder)
    _require_same_rows(plan, tasks)
    trainable, skipped = sorted_out(list(tasks.values()), tokenizer, plan.max_length)
    new = [task for task in trainable if task.name not in plan.tasks]
    if new:
        variants = 1 + max(job.variant for shard in plan.shards for job in shard)
        part = write_part(folder, digests_of(new), shards_of(new, variants, shard_size))
        try:  # another add may have come between
            _require_same_rows(whole_plan(folder, without=part), tasks)
        except TaskFileError:
            folder.remove(part)
            raise
        plan = whole_plan(folder)
    missing, existing = _missing(folder, plan, {task.name for task in trainable})
    return Addition(replace(plan, shards=missing), existing, skipped)


def _require_same_rows(plan: Plan, tasks: Mapping[str, Task]) -> None:
    digests = digests_of(list(tasks.values()))
    others = sorted(
        name for name in digests if plan.tasks.get(name, digests[name]) != digests[name]
    )
    if others:
        raise TaskFileError(
            f"the library has other rows for {others[0]}"
            + (f" and {len(others) - 1} more of the tasks" if others[1:] else "")
            + "; a task with other rows needs another name"
        )


def _missing(folder: LibraryFolder, plan: Plan, tasks: Collection[str]) -> tuple[Shards, int]:
    """Shards with jobs of some tasks that lack records, and how many lack none.

    A shard that is not finished has all of its jobs, as it is replayed; a job that two parts name
    is in the first of their shards.
    """
    missing, existing, seen = Shards(), 0, set[JobPlan]()
    for number, shard in enumerate(plan.shards):
        jobs = tuple(job for job in shard if job.task in tasks and job not in seen)
        seen.update(jobs)
        finished = not jobs or recorded_jobs(folder, plan, number).issuperset(jobs)
        existing += len(jobs) if finished else 0
        missing += ((),) if finished else (jobs,)
    return missing, existing
