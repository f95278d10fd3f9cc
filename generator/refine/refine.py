"""Refinement of one or many starts: the adapters, and what held-out examples say of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from generator.refine.costs import holds_out, steps_for
from generator.refine.held_out import HeldOut, held_out_scores, held_out_sets
from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
from library.adapter import Adapter
from library.base.batches import TokenRow
from library.base.models import BaseModel, BaseReference, numerics
from library.base.usage import Usage
from library.progress import Progress, no_progress, part_of
from library.tasks.files import Example

ROWS = 8  # examples of a step


@dataclass(frozen=True)
class Start:
    """What is refined: an adapter (n = 1), on examples, for the prompt of a usage.

    Attributes:
        saw_examples: whether the adapter was made from these examples, or trained on them; then
            none of them can be held out from it.
    """

    adapter: Adapter
    examples: Sequence[Example]
    usage: Usage
    saw_examples: bool = False


@dataclass(frozen=True)
class Refined:
    """A refined adapter.

    Attributes:
        adapter: after training on all examples, on the CPU.
        settings: of the training.
        used: examples that it was trained on; longer ones are left out.
        held_out: of adapters trained on a part of them; None if it was not measured.
        trained_in: numerics of the base.
    """

    adapter: Adapter
    settings: RefineSettings
    used: int
    held_out: HeldOut | None
    trained_in: str

    def to_dict(self) -> dict[str, Any]:
        """As provenance says it."""
        return {
            "steps": self.settings.steps,
            "lr": self.settings.lr,
            "rows": self.settings.rows,
            "examples_used": self.used,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }


@runtime_checkable
class Refiner(Protocol):
    """`refine_starts` wherever the base is loaded: in this process or in another one."""

    def __call__(
        self,
        base: BaseReference,
        starts: Sequence[Start],
        *,
        steps: int | None,
        budget: float | None,
        seed: int,
        progress: Progress,
    ) -> list[Refined]: ...


def refiner_here(load: Callable[[BaseReference], BaseModel]) -> Refiner:
    """Refinement in this process, on bases that `load` gives."""
    return lambda base, starts, **options: refine_starts(load(base), starts, **options)


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
    comes from adapters that train beside, each on a part of the examples. What becomes of a start
    depends on no other.

    Args:
        base: the loaded base model.
        starts: of one layout.
        steps: of AdamW; by default what suits the examples of each.
        budget: seconds that steps and held-out training may cost by the stored table of costs, so
            that bytes do not depend on a clock; steps that are given are not cut.
        seed: of the order of examples, and of which are held out.
    Raises:
        UsageError: no example of a start is short enough, or the training diverges.
        LayoutMismatch: the starts differ in layout.
    """
    # 1. The rows, the schedule and the held-out sets of each.
    rows = [example_rows(base, _distinct(start.examples), start.usage) for start in starts]
    plans = [_plan(own, base.device.type, steps, budget, seed) for own in rows]
    plans = [
        (settings, [] if start.saw_examples else sets)
        for start, (settings, sets) in zip(starts, plans, strict=True)
    ]
    total = sum(settings.steps * (1 + len(sets)) for settings, sets in plans)
    layout, done, results = starts[0].adapter.layout, 0, dict[int, Refined]()
    for settings in dict.fromkeys(settings for settings, _ in plans):
        # 2. One training of all with a schedule: of each the whole, then what leaves a set out.
        group = [i for i, plan in enumerate(plans) if plan[0] == settings]
        jobs = [job for i in group for job in _jobs(starts[i], rows[i], plans[i][1])]
        watch = part_of(progress, done, total)
        trained = refine_adapters(base, layout, jobs, settings, seed=seed, progress=watch)
        done += settings.steps * len(jobs)
        # 3. Each start's results.
        for i in group:
            sets = plans[i][1]
            whole, *parts = (trained.pop(0) for _ in range(1 + len(sets)))
            scores = held_out_scores(base, starts[i].adapter, parts, rows[i], sets)
            results[i] = Refined(whole, settings, len(rows[i]), scores, numerics(base.model))
    return [results[i] for i in range(len(starts))]


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Each pair once: one that comes twice would be trained on and held out at once."""
    return [*{(example.input, example.output): example for example in examples}.values()]


def _plan(
    rows: Sequence[TokenRow], device: str, steps: int | None, budget: float | None, seed: int
) -> tuple[RefineSettings, list[tuple[int, ...]]]:
    """The schedule of a start with these rows, and which of them are held out."""
    count = steps or steps_for(rows, device, budget)
    settings = RefineSettings(count, rows=min(ROWS, len(rows)))
    sets = held_out_sets(len(rows), seed)
    return settings, sets if holds_out(rows, sets, settings, device, budget) else []


def _jobs(
    start: Start, rows: tuple[TokenRow, ...], sets: Sequence[tuple[int, ...]]
) -> list[Refinement]:
    parts = (rows, *(_without(rows, held) for held in sets))
    return [Refinement(start.adapter, part) for part in parts]


def _without(rows: tuple[TokenRow, ...], held: tuple[int, ...]) -> tuple[TokenRow, ...]:
    return tuple(row for i, row in enumerate(rows) if i not in held)
