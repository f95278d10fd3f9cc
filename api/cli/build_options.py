"""What `library build` and `add` share: options, tasks, where both train, and what they say."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.console import progress_bar
from library.errors import LorasmithError, UsageError
from library.quiet import quiet_libraries

if TYPE_CHECKING:
    from library.base.models import BaseReference
    from library.build.build import BuildReport
    from library.store.plan import Plan
    from library.tasks.files import Task

TaskFolders = Annotated[list[Path], typer.Option(help="Folder of task files; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
ShardSize = Annotated[
    int, typer.Option(min=1, help="Adapters in a shard, the unit that a worker builds.")
]
ExcludedLicenses = Annotated[
    str, typer.Option(help="Leave out tasks of these licence classes, separated by commas.")
]
WorkerCount = Annotated[
    int, typer.Option(min=1, help="Worker processes; each builds one shard at a time.")
]
Executor = Annotated[
    Literal["local", "ray"], typer.Option(help="Where the workers run: on this machine, or on Ray.")
]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster. Default: start one on this machine.")
]
Device = Annotated[str, typer.Option(help="Device to train on: cpu or cuda.")]
CompileLayers = Annotated[
    bool, typer.Option("--compile", help="Compile the base model with torch.compile.")
]
SkipBroken = Annotated[
    bool, typer.Option(help="Skip task files that cannot be read, instead of stopping.")
]


@dataclass(frozen=True)
class TrainingPlace:
    """Where adapters are trained, and by how many workers."""

    device: str
    compiled: bool
    workers: int
    executor: Literal["local", "ray"]
    ray_address: str | None

    def __post_init__(self) -> None:
        """Raises UsageError for a device that is not there."""
        from library.base.models import require_device

        require_device(self.device)
        quiet_libraries()

    def train(
        self, location: str, base: "BaseReference", plan: "Plan", tasks: "Mapping[str, Task]"
    ) -> "BuildReport":
        """Train what a library lacks of a plan's shards."""
        from library.build.workers import Workplace, build_library

        alone = self.executor == "local" and self.workers == 1
        threads = None if alone else max(1, (os.cpu_count() or 1) // self.workers)
        with progress_bar("training", unit="step") as progress:
            return build_library(
                Workplace(location, base, self.device, self.compiled, threads),
                plan,
                tasks,
                workers=self.workers,
                ray=self.executor == "ray",
                ray_address=self.ray_address,
                progress=progress,
            )


def read_task_folders(
    folders: list[Path], skip_broken: bool, exclude_license: str
) -> tuple[dict[str, "Task"], dict[str, str]]:
    """Tasks by name, and the reason for each file that was left out."""
    from library.tasks.files import read_tasks

    tasks_by_name: dict[str, Task] = {}
    broken: dict[str, str] = {}
    excluded = set(filter(None, exclude_license.split(",")))

    def leave_out(file: Path, error: LorasmithError) -> None:
        broken[file.name] = str(error)

    for folder in folders:
        for task in read_tasks(folder, on_broken=leave_out if skip_broken else None):
            if task.name in tasks_by_name:
                raise UsageError(f"two folders hold a task named {task.name}")
            tasks_by_name[task.name] = task
    return {n: t for n, t in tasks_by_name.items() if t.license_class not in excluded}, broken


def say_built(report: "BuildReport", out: str, skipped: Mapping[str, str], as_json: bool) -> None:
    """Say what was done."""
    summary = report.summary() | {"skipped": dict(skipped)}
    typer.echo(json.dumps(summary) if as_json else _readable(summary, out))


def _readable(summary: Mapping[str, Any], out: str) -> str:
    lines = [
        f"{out}: {summary['adapters']} adapters in {summary['seconds']:.1f} s "
        f"({summary['tokens_per_second']:,.0f} tokens/s, {100 * summary['padding']:.1f} % padding)"
    ]
    if summary["kept"]:
        lines.append(f"{summary['kept']} were there already")
    if summary["failed"]:
        lines.append(f"{summary['failed']} never stayed finite and were given up")
    lines += [f"skipped: {reason}" for reason in summary["skipped"].values()]
    return "\n".join(lines)
