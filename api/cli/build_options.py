"""Options that `library build` and `add` share, and where both train."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.console import progress_bar

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
