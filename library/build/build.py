"""Building a library: shard by shard, adapter by adapter, and again where it was stopped.

An adapter is in the library once its record is. Records are written after the adapter's files and
never rewritten, so a build may be killed at any moment and go on: a shard with all its records is
skipped, another is replayed, and what it stored already stays as it is.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save

from library.base.models import BaseModel, numerics
from library.build.plan import job_for, rows_digest, task_rows
from library.errors import LayoutMismatch, OutputError, OutputExists, UsageError
from library.layout import Layout
from library.peft.provenance import Provenance, finish
from library.peft.write import to_peft
from library.store.folder import MANIFEST, RECORDS, LibraryFolder
from library.store.plan import JobPlan, Plan, has_plan
from library.store.records import Record, new_record, write_record
from library.tasks.files import Task
from library.trainer.batched import Figures, Trained
from library.trainer.run_state import Check
from library.trainer.trainers import trainer_for

Progress = Callable[[int, int], None]


@dataclass
class BuildReport:
    """What a build did: adapters stored and given up, and what it cost."""

    stored: int = 0
    kept: int = 0
    failed: int = 0
    seconds: float = 0.0
    tokens: int = 0
    cells: int = 0
    memory: int = 0  # bytes of GPU memory at the most, of one worker

    @property
    def done(self) -> int:
        return self.stored + self.kept + self.failed

    def add(self, figures: Figures) -> None:
        self.tokens += figures.tokens
        self.cells += figures.cells

    def join(self, other: "BuildReport") -> None:
        """Add what a worker did."""
        for name in ("stored", "kept", "failed", "tokens", "cells"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.memory = max(self.memory, other.memory)

    def summary(self) -> dict[str, Any]:
        seconds = self.seconds or 1.0
        return {
            "adapters": self.stored,
            "kept": self.kept,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / seconds, 1),
            "adapters_per_second": round(self.stored / seconds, 4),
            "padding": round(1 - self.tokens / self.cells, 4) if self.cells else 0.0,
            **({"gpu_memory_gb": round(self.memory / 1e9, 2)} if self.memory else {}),
        }


def require_room(folder: LibraryFolder, resume: bool) -> None:
    """Raise OutputExists unless nothing is there, or a library to go on with."""
    there = folder.names("")  # looked at once: another builder may be about to begin
    if MANIFEST in there:
        if not resume:
            raise OutputExists(f"{folder.place} already exists; use --resume to go on with it")
    elif there:
        raise OutputExists(f"{folder.place} is not empty and not a library")


def begin(folder: LibraryFolder, plan: Plan, *, resume: bool) -> Plan:
    """Write the manifest, or hold a resumed build to the one that is there.

    Raises:
        OutputExists: something is there and `resume` is false.
        LayoutMismatch, UsageError: the library was begun for another base, or otherwise.
    """
    require_room(folder, resume)
    if not folder.exists(MANIFEST) or not has_plan(folder.read_json(MANIFEST)):
        folder.write_json(MANIFEST, plan.to_dict())
        return plan
    there = folder.plan()
    there.layout.require_same(plan.layout, f"the library {folder.place}", "this build")
    if there.base != plan.base:
        raise LayoutMismatch(
            f"the library was made for {there.base['id']} with weights {there.base['sha256']}, "
            f"not {plan.base['id']} with {plan.base['sha256']}"
        )
    ours, theirs = plan.to_dict(), there.to_dict()
    changed = sorted(key for key in ours if ours[key] != theirs[key])
    if changed:
        raise UsageError(f"the library was begun with other settings: {', '.join(changed)}")
    return there


def build_shards(
    folder: LibraryFolder,
    plan: Plan,
    tasks: Mapping[str, Task],
    base: BaseModel,
    progress: Progress | None = None,
) -> BuildReport:
    """Build every shard that is not finished; `progress` is told of (steps done, steps in all)."""
    report, started = BuildReport(), time.monotonic()
    total = plan.config.steps * sum(map(len, plan.shards))

    def tick(unfinished: int) -> None:
        if progress:
            progress(plan.config.steps * report.done + unfinished, total)

    for number in range(len(plan.shards)):
        build_shard(folder, plan, number, tasks, base, report, tick)
    report.seconds = time.monotonic() - started
    return report


def build_shard(
    folder: LibraryFolder,
    plan: Plan,
    number: int,
    tasks: Mapping[str, Task],
    base: BaseModel,
    report: BuildReport,
    tick: Callable[[int], None],
) -> None:
    """Train one shard, storing each adapter as it is done."""
    jobs = {job.name: job for job in plan.shards[number]}
    done = set(folder.names(f"{RECORDS}/{number:04}"))
    missing = [name for name in jobs if f"{name}.json" not in done]
    if not missing:
        report.kept += len(jobs)
        tick(0)
        return
    trainer = trainer_for(
        base.model,
        plan.layout,
        plan.recipe,
        plan.config,
        pad=base.tokenizer.pad_token_id,
        seed=plan.seed,
    )
    ready = [job_for(job, tasks[job.task], base.tokenizer, plan) for job in jobs.values()]
    for made in trainer.run(ready, tick):
        job = jobs[made.job.name]
        if job.name in missing and not folder.exists(f"{RECORDS}/{number:04}/{job.name}.json"):
            _store(folder, plan, number, job, tasks[job.task], made, base)
            report.stored += made.adapter is not None
            report.failed += made.adapter is None
        else:
            report.kept += 1
    report.add(trainer.figures)


def _store(
    folder: LibraryFolder,
    plan: Plan,
    number: int,
    job: JobPlan,
    task: Task,
    made: Trained,
    base: BaseModel,
) -> None:
    """Files, then snapshots, then the record that makes them count.

    Raises OutputError if the library is not there any more.
    """
    if not folder.exists(MANIFEST):
        raise OutputError(f"the library {folder.place} has vanished")
    layout = made.adapter.layout if made.adapter else plan.layout
    layout = layout.with_rank(layout.rank)  # as the portable profile stores it
    record = _record(plan, number, job, task, made, layout)
    if made.adapter is not None:
        provenance = Provenance(
            generator=f"oracle:{plan.recipe.name}",
            checkpoint=None,
            description=task.definition,
            examples=rows_digest(task_rows(job, task, plan.seed)),
            seed=plan.seed,
            numerics=numerics(base.model),
            layout_digest=layout.digest,
            base=plan.base,
            details={"task": task.name, "variant": job.variant, "steps": made.steps},
        )
        weights = to_peft(made.adapter, base_name=plan.base["id"])
        files = finish(weights, provenance)
        folder.write_adapter(files.id, files.files)
        record |= {"id": files.id, "sha256": files.sha256}
    if made.snapshots:
        folder.write(f"snapshots/{number:04}/{job.name}.safetensors", _snapshots(made))
    write_record(folder, f"{RECORDS}/{number:04}/{job.name}.json", record)


def _record(
    plan: Plan, number: int, job: JobPlan, task: Task, made: Trained, layout: Layout
) -> Record:
    best = max(made.checks, key=Check.merit, default=None)
    scores = {"tune_accuracy": best.accuracy, "tune_loss": best.loss} if best else {}
    return new_record(
        task=task.name,
        description=task.definition,
        recipe=plan.recipe.name,
        base=plan.base,
        variant=job.variant,
        descriptions=list(task.descriptions),
        categories=list(task.categories),
        licenses=list(task.licenses),
        license_class=task.license_class,
        layout_digest=layout.digest,
        rank=layout.rank,
        seed=plan.seed,
        shard=number,
        steps=made.steps,
        best_step=best.step if best else made.steps,
        restarts=made.restarts,
        scores=scores | made.scores,
    )


def _snapshots(made: Trained) -> bytes:
    """All states of one adapter: `A.<group>` [n, sites, rank, in], `B.<group>` likewise."""
    keys = list(made.snapshots[0].A)
    tensors = {f"A.{k}": torch.cat([s.A[k] for s in made.snapshots]) for k in keys}
    tensors |= {f"B.{k}": torch.cat([s.B[k] for s in made.snapshots]) for k in keys}
    return save(dict(sorted(tensors.items())), metadata={"format": "pt"})
