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
        shards = [[asdict(job) for job in shard] for shard in self.shards]
        return {
            **{k: v for k, v in vars(self).items() if k not in ("layout", "recipe", "config")},
            "format": LIBRARY_FORMAT,
            "layout": self.layout.to_dict(),
            "layout_digest": self.layout.digest,
            "recipe": recipe_to_dict(self.recipe),
            "config": asdict(self.config),
            "shards": shards,
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
            shards=tuple(tuple(JobPlan(**job) for job in shard) for shard in data["shards"]),
            **{name: data[name] for name in names},
        )


def has_plan(manifest: dict[str, Any]) -> bool:
    """True if a manifest is a plan; the library of an import has one of its format alone."""
    return "layout" in manifest
