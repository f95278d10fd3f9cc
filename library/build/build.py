"""Building a library: shard by shard, adapter by adapter, and again where it was stopped.

An adapter is in the library once its record is. Records are written after the adapter's files and
never rewritten, so a build may be killed at any moment and go on: a shard with all its records is
skipped, another is replayed, and what it stored already stays as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from library.base.models import BaseModel, numerics, of_one_base
from library.build.plan import job_for, rows_digest, task_rows
from library.errors import LayoutMismatch, OutputError, OutputExists, UsageError
from library.layout import Layout
from library.peft.provenance import Provenance, finish
from library.peft.write import lasting_profile, to_peft
from library.progress import Progress, no_progress, part_of
from library.store.folder import MANIFEST, RECORDS, LibraryFolder
from library.store.parts import recorded_jobs
from library.store.plan import JobPlan, Plan, has_plan
from library.store.records import Record, new_record, write_record
from library.store.snapshots import write_snapshots
from library.tasks.files import Task
from library.trainer.batched import BatchedTrainer
from library.trainer.peft_trainer import PeftTrainer
from library.trainer.run_state import Trained, best_check
from library.trainer.trainer import AdapterTrainer

TRAINERS: dict[str, type[AdapterTrainer[Any]]] = {"batched": BatchedTrainer, "peft": PeftTrainer}


@dataclass
class BuildReport:
    """Counts and cost of a build, or of a part of it.

    Attributes:
        stored: adapters that were trained and stored.
        existing: adapters that were in the library already.
        failed: adapters that never stayed finite.
        seconds: of the whole build.
        tokens, cells: trained, without and with padding.
        memory: peak bytes of GPU memory of one worker.
    """

    stored: int = 0
    existing: int = 0
    failed: int = 0
    seconds: float = 0.0
    tokens: int = 0
    cells: int = 0
    memory: int = 0

    def add(self, other: "BuildReport") -> None:
        """Add the counts of another part."""
        for name in ("stored", "existing", "failed", "tokens", "cells"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.memory = max(self.memory, other.memory)

    def summary(self) -> dict[str, Any]:
        seconds = self.seconds or 1.0
        return {
            "adapters": self.stored,
            "kept": self.existing,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / seconds, 1),
            "adapters_per_second": round(self.stored / seconds, 4),
            "padding": round(1 - self.tokens / self.cells, 4) if self.cells else 0.0,
            **({"gpu_memory_gb": round(self.memory / 1e9, 2)} if self.memory else {}),
        }


def require_place(folder: LibraryFolder, *, resume: bool) -> None:
    """Raise OutputExists unless the folder is empty, or is a library and `resume` is true."""
    names = folder.names("")  # listed once: another builder may be about to begin
    if MANIFEST in names and not resume:
        raise OutputExists(f"{folder.location} already exists; use --resume to go on with it")
    if names and MANIFEST not in names:
        raise OutputExists(f"{folder.location} is not empty and not a library")


def begin(folder: LibraryFolder, plan: Plan, *, resume: bool) -> None:
    """Write the manifest, or compare a resumed build with the one in the folder.

    Raises:
        OutputExists: as `require_place`.
        LayoutMismatch, UsageError: the library was begun for another base, or otherwise.
    """
    require_place(folder, resume=resume)
    if not folder.exists(MANIFEST) or not has_plan(folder.read_json(MANIFEST)):
        folder.write_json(MANIFEST, plan.to_dict())
        return
    begun = folder.plan()
    begun.layout.require_same(plan.layout, f"the library {folder.location}", "this build")
    require_base_of_plan(begun, plan.base)
    before, now = begun.to_dict(), plan.to_dict()
    changed = sorted(k for k in {**now, **before} if now.get(k) != before.get(k))
    if changed:
        more = "; `library add` is for more tasks" if "tasks" in changed else ""
        raise UsageError(f"the library was begun with other settings: {', '.join(changed)}{more}")


def require_base_of_plan(plan: Plan, base: Mapping[str, Any]) -> None:
    """Raise LayoutMismatch unless a base is the one that a library was begun for."""
    if not of_one_base(plan.base, base):
        raise LayoutMismatch(
            f"the library was made for {plan.base['id']} with weights {plan.base['sha256']}, "
            f"not {base['id']} with {base['sha256']}"
        )


@dataclass(frozen=True)
class ShardBuilder:
    """Trains the shards of a plan in this process and stores their adapters."""

    folder: LibraryFolder
    plan: Plan
    base: BaseModel

    def build_all(
        self, tasks: Mapping[str, Task], progress: Progress = no_progress
    ) -> Iterator[BuildReport]:
        """Build every shard that is not finished; `progress` counts training steps."""
        steps = [self.plan.config.steps * len(shard) for shard in self.plan.shards]
        for number in range(len(steps)):
            advance = part_of(progress, sum(steps[:number]), sum(steps))
            yield self.build(number, tasks, advance)
            advance(steps[number], steps[number])

    def build(
        self, number: int, tasks: Mapping[str, Task], progress: Progress = no_progress
    ) -> BuildReport:
        """Train one shard, storing each adapter as it is done."""
        report, plan, place = BuildReport(), self.plan, self.plan.folder_number(number)
        jobs = {job.name: job for job in plan.shards[number]}
        if len(recorded_jobs(self.folder, plan, number)) == len(jobs):
            report.existing = len(jobs)
        else:
            pad = self.base.tokenizer.pad_token_id
            trainer = TRAINERS[plan.recipe.trained_by](
                self.base.model, plan.layout, plan.recipe, plan.config, pad=pad, seed=plan.seed
            )
            ready = [
                job_for(job, tasks[job.task], self.base.tokenizer, plan) for job in jobs.values()
            ]
            for trained in trainer.run(ready, progress):
                job = jobs[trained.job.name]
                if self.folder.exists(_record_name(place, job)):
                    report.existing += 1
                    continue
                self._store(place, job, tasks[job.task], trained)
                report.stored += trained.adapter is not None
                report.failed += trained.adapter is None
            report.tokens, report.cells = trainer.figures.tokens, trainer.figures.cells
        if self.base.device.type == "cuda":
            report.memory = torch.cuda.max_memory_allocated()
        return report

    def _store(self, number: int, job: JobPlan, task: Task, trained: Trained) -> None:
        """Store files, then snapshots, then the record that makes them count.

        Raises OutputError if the library is not there any more.
        """
        plan, adapter = self.plan, trained.adapter
        if not self.folder.exists(MANIFEST):
            raise OutputError(f"the library {self.folder.location} has vanished")
        layout = adapter.layout if adapter else plan.layout
        record = _record(plan, number, job, task, trained, layout)
        if adapter is not None:
            provenance = Provenance(
                generator=f"oracle:{plan.recipe.name}",
                checkpoint=None,
                description=task.definition,
                examples=rows_digest(task_rows(job, task, plan.seed)),
                seed=plan.seed,
                numerics=numerics(self.base.model),
                layout_digest=layout.digest,
                base=plan.base,
                details=_details(plan, job, trained, layout),
            )
            profile = lasting_profile(layout)
            peft = to_peft(adapter, base_name=plan.base["id"], profile=profile)
            files = finish(peft, provenance)
            self.folder.write_adapter(files.id, files.files)
            record |= {"id": files.id, "sha256": files.sha256}
        if trained.snapshots:
            write_snapshots(self.folder, number, job, trained.snapshots)
        write_record(self.folder, _record_name(number, job), record)


def _record_name(number: int, job: JobPlan) -> str:
    return f"{RECORDS}/{number:04}/{job.name}.json"


def _record(
    plan: Plan, number: int, job: JobPlan, task: Task, trained: Trained, layout: Layout
) -> Record:
    best = best_check(trained.checks)
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
        steps=trained.steps,
        best_step=best.step if best else trained.steps,
        restarts=trained.restarts,
        scores=scores | trained.scores,
        **_update(plan),
    )


def _details(plan: Plan, job: JobPlan, trained: Trained, layout: Layout) -> dict[str, Any]:
    """What provenance says of a training; of ranks by module also what their layout is of, so that
    a portable copy can name its own.
    """
    said = {"task": job.task, "variant": job.variant, "steps": trained.steps, **_update(plan)}
    if lasting_profile(layout) == "lossless":
        said["layout"] = {"model_type": layout.model_type, "depth": layout.depth}
    return said


def _update(plan: Plan) -> dict[str, str]:
    """The rule that the factors were updated by, if there was one."""
    return {} if plan.recipe.update == "adamw" else {"update": plan.recipe.update}
