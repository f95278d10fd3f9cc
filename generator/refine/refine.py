"""Refinement of one or many starts: the adapters, and what held-out examples say of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from generator.refine.costs import holds_out, steps_for
from generator.refine.held_out import HeldOut, held_out_scores, held_out_sets
from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
from library.adapter import Adapter
from library.base.batches import TokenRow
from library.base.models import BaseModel
from library.base.usage import Usage
from library.progress import Progress, no_progress
from library.tasks.files import Example

ROWS = 8  # examples of a step


@dataclass(frozen=True)
class Start:
    """What is refined: an adapter (n = 1), on examples, for the prompt of a usage."""

    adapter: Adapter
    examples: Sequence[Example]
    usage: Usage


@dataclass(frozen=True)
class Refined:
    """A refined adapter.

    Attributes:
        adapter: after training on all examples, on the CPU.
        settings: of the training.
        used: examples that it was trained on; longer ones are left out.
        held_out: of adapters trained on a part of them; None if it was not measured.
    """

    adapter: Adapter
    settings: RefineSettings
    used: int
    held_out: HeldOut | None

    def to_dict(self) -> dict[str, Any]:
        """As provenance says it."""
        return {
            "steps": self.settings.steps,
            "lr": self.settings.lr,
            "rows": self.settings.rows,
            "examples_used": self.used,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }


def refine_starts(
    base: BaseModel,
    starts: Sequence[Start],
    *,
    steps: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Refined]:
    """Every start after training on its examples; the loss is the answers' alone.

    The last step's weights are taken, and all examples are trained on: what is said of new inputs
    comes from adapters that train beside, each on a part of the examples.

    Args:
        base: the loaded base model.
        starts: of one layout.
        steps: of AdamW; what suits the largest number of examples by default.
        budget: seconds that steps and held-out training may cost by the stored table of costs, so
            that bytes do not depend on a clock; steps that are given are not cut.
        seed: of the order of examples, and of which are held out.
    Raises:
        UsageError: no example of a start is short enough, or the training diverges.
        LayoutMismatch: the starts differ in layout.
    """
    # 1. The rows, and the schedule that all share.
    rows = [example_rows(base, start.examples, start.usage) for start in starts]
    most = max(rows, key=len)
    settings = RefineSettings(
        steps or steps_for(most, base.device.type, budget), rows=min(ROWS, len(most))
    )
    sets = [held_out_sets(len(r), seed) for r in rows]
    if not holds_out(most, sets[rows.index(most)], settings, base.device.type, budget):
        sets = [[] for _ in rows]
    # 2. One training of all: for each start the whole, then what leaves a set out.
    jobs = [
        Refinement(start.adapter, part)
        for start, own, members in zip(starts, rows, sets, strict=True)
        for part in (own, *(_without(own, held) for held in members))
    ]
    layout = starts[0].adapter.layout
    trained = refine_adapters(base, layout, jobs, settings, seed=seed, progress=progress)
    # 3. Each start's results.
    results = []
    for start, own, members in zip(starts, rows, sets, strict=True):
        whole, *parts = (trained.pop(0) for _ in range(1 + len(members)))
        scores = held_out_scores(base, start.adapter, parts, own, members)
        results.append(Refined(whole, settings, len(own), scores))
    return results


def _without(rows: tuple[TokenRow, ...], held: tuple[int, ...]) -> tuple[TokenRow, ...]:
    return tuple(replace(row) for i, row in enumerate(rows) if i not in held)
