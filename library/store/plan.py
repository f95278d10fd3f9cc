"""The plan of a library: everything that decides what it holds, fixed before the first step.

It is the manifest in the library's folder. A shard is a fixed list of jobs; whoever builds it, and
however often it was stopped, builds it from the plan alone.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from library.errors import UsageError
from library.layout import Layout
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.registry import recipe_from_dict, recipe_to_dict
from library.trainer.run_state import TrainConfig

LIBRARY_FORMAT = 1


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
        placement: {"name", "budget"} of what chose the layout's ranks, with the digest of the
            uniform layout whose numbers it spends; empty for one rank everywhere.
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
    placement: dict[str, str] = field(default_factory=dict)
    first_added: int | None = None

    def folder_number(self, shard: int) -> int:
        """The number of the folder that a shard's records and snapshots lie in.

        All that was added shares one. Two adds at once may put a task into different shards, and
        there is one record of it all the same.
        """
        return shard if self.first_added is None else min(shard, self.first_added)

    def to_dict(self) -> dict[str, Any]:
        """The manifest, which names no later parts."""
        apart = ("layout", "recipe", "config", "placement", "first_added")
        return {
            **{k: v for k, v in vars(self).items() if k not in apart},
            **({"placement": self.placement} if self.placement else {}),
            "format": LIBRARY_FORMAT,
            "layout": self.layout.to_dict(),
            "layout_digest": self.layout.digest,
            "recipe": recipe_to_dict(self.recipe),
            "config": asdict(self.config),
            "shards": shards_json(self.shards),
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
            shards=shards_from(data["shards"]),
            placement=data.get("placement", {}),
            **{name: data[name] for name in names},
        )


def has_plan(manifest: dict[str, Any]) -> bool:
    """True if a manifest is a plan; the library of an import has one of its format alone."""
    return "layout" in manifest


def shards_json(shards: Shards) -> list[list[dict[str, Any]]]:
    """Shards as a manifest has them."""
    return [[asdict(job) for job in shard] for shard in shards]


def shards_from(data: list[list[dict[str, Any]]]) -> Shards:
    """The shards of a manifest."""
    return tuple(tuple(JobPlan(**job) for job in shard) for shard in data)
