"""The plan of a library: everything that decides what it holds, fixed before the first step.

It is the manifest in the library's folder. A shard is a fixed list of jobs; whoever builds it, and
however often it was stopped, builds it from the plan alone.

What is added later are further parts of the plan, one file each beside the manifest, which say
their tasks and shards. A part is named by its content and never rewritten, so that those who add at
the same time need no lock.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from library.canonical import json_digest
from library.errors import UsageError
from library.layout import Layout
from library.store.folder import RECORDS, LibraryFolder
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.registry import recipe_from_dict
from library.trainer.run_state import TrainConfig

LIBRARY_FORMAT = 1
PARTS = "parts"


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


Shards = tuple[tuple[JobPlan, ...], ...]


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
        first_added: number of the first shard that a later part brought; None if there is none.
    """

    base: dict[str, Any]
    layout: Layout
    recipe: Recipe
    config: TrainConfig
    seed: int
    max_length: int
    tasks: dict[str, str]
    shards: Shards
    skipped: dict[str, str] = field(default_factory=dict)
    first_added: int | None = None

    def folder_number(self, shard: int) -> int:
        """The number of the folder that a shard's records and snapshots lie in.

        All that was added shares one. Two adds at once may put a task into different shards, and
        there is one record of it all the same.
        """
        return shard if self.first_added is None else min(shard, self.first_added)

    def recorded(self, folder: LibraryFolder, shard: int) -> set[JobPlan]:
        """The jobs of a shard that have their records."""
        names = set(folder.names(f"{RECORDS}/{self.folder_number(shard):04}"))
        return {job for job in self.shards[shard] if f"{job.name}.json" in names}

    def to_dict(self) -> dict[str, Any]:
        """The manifest, which names no later parts."""
        apart = ("layout", "recipe", "config", "first_added")
        return {
            **{k: v for k, v in vars(self).items() if k not in apart},
            "format": LIBRARY_FORMAT,
            "layout": self.layout.to_dict(),
            "layout_digest": self.layout.digest,
            "recipe": asdict(self.recipe),
            "config": asdict(self.config),
            "shards": _shards_json(self.shards),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Plan":
        """Raises UsageError for a library of a newer version, or of imported adapters only."""
        if data["format"] > LIBRARY_FORMAT:
            limit = f"this version reads up to {LIBRARY_FORMAT}"
            raise UsageError(f"the library has format {data['format']}; {limit}")
        if not has_plan(data):
            raise UsageError(
                "the library has no plan, only imported adapters: `library build --resume` adds one"
            )
        names = ("base", "seed", "max_length", "tasks", "skipped")
        return cls(
            layout=Layout.from_dict(data["layout"]),
            recipe=recipe_from_dict(data["recipe"]),
            config=TrainConfig(**data["config"]),
            shards=_shards_of(data["shards"]),
            **{name: data[name] for name in names},
        )


def has_plan(manifest: dict[str, Any]) -> bool:
    """True if a manifest is a plan; the library of an import has one of its format alone."""
    return "layout" in manifest


def whole_plan(folder: LibraryFolder, without: str = "") -> Plan:
    """The plan of a library with its later parts (all but one). Raises as `LibraryFolder.plan`."""
    first = folder.plan()
    names = [f"{PARTS}/{name}" for name in folder.names(PARTS)]
    tasks, added = dict(first.tasks), Shards()
    for part in [folder.read_json(name) for name in names if name != without]:
        tasks = {**part["tasks"], **tasks}
        added += _shards_of(part["shards"])
    return replace(first, tasks=tasks, shards=first.shards + added, first_added=len(first.shards))


def write_part(folder: LibraryFolder, tasks: dict[str, str], shards: Shards) -> str:
    """Add a part to a library's plan: digests of tasks' rows, and jobs. Returns its file's name."""
    part = {"tasks": tasks, "shards": _shards_json(shards)}
    folder.write_json(name := f"{PARTS}/{json_digest(part)[:40]}.json", part)
    return name


def _shards_json(shards: Shards) -> list[list[dict[str, Any]]]:
    return [[asdict(job) for job in shard] for shard in shards]


def _shards_of(data: list[list[dict[str, Any]]]) -> Shards:
    return tuple(tuple(JobPlan(**job) for job in shard) for shard in data)
