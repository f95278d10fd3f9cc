"""Refinement of one or many starts: the adapters, and what held-out rows say of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from generator.refine.costs import MOST_STEPS, holds_out, rate_for, steps_for
from generator.refine.held_out import HeldOut, held_out_scores, held_out_sets
from generator.refine.teacher import Lesson, Taught, Teacher, agreement, lesson
from generator.refine.training import (
    Refinement,
    RefineSettings,
    Trainee,
    example_rows,
    refine_adapters,
)
from generator.refine.writer import Writer, written_inputs
from library.adapter import Adapter
from library.base.batches import TokenRow, labelled_and_taught
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
        instructed: whether it was trained to follow the instruction that the usage's prompt holds.
        inputs: without answers, for the teacher to answer; there are examples or these, or both.
        teacher: answers them.
        writer: writes the inputs, where none are given.
    """

    adapter: Adapter
    examples: Sequence[Example]
    usage: Usage
    saw_examples: bool = False
    instructed: bool = False
    inputs: Sequence[str] = ()
    teacher: Teacher | None = None
    writer: Writer | None = None

    @property
    def inputs_count(self) -> int:
        """Inputs that are given or to be written."""
        return len(self.inputs) if self.writer is None else self.writer.count


@dataclass(frozen=True)
class Refined:
    """A refined adapter.

    Attributes:
        adapter: after training on all examples, on the CPU.
        settings: of the training.
        used: examples that it was trained on; longer ones are left out.
        held_out: of adapters trained on a part of them; None if it was not measured.
        trained_in: numerics of the base.
        taught: what training on a teacher's answers came to; None if there were no inputs.
    """

    adapter: Adapter
    settings: RefineSettings
    used: int
    held_out: HeldOut | None
    trained_in: str
    taught: Taught | None = None

    def to_dict(self) -> dict[str, Any]:
        """As provenance says it."""
        return {
            "steps": self.settings.steps,
            "lr": self.settings.lr,
            "rows": self.settings.rows,
            "examples_used": self.used,
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
            "inputs": None if self.taught is None else self.taught.to_dict(),
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
    """Every start after training on its examples, on a teacher's answers to its inputs, or on both.

    The loss is the mean cross-entropy of the examples' answers, plus the mean divergence from the
    teacher at its answers. The last step's weights are taken, and all examples are trained on: what
    is said of new inputs comes from adapters that train beside, each on a part of the examples. Of
    the teacher's answers some are held back, and where there are no examples these choose the step.
    What becomes of a start depends on no other.

    Args:
        base: the loaded base model.
        starts: of one layout.
        steps: of AdamW; by default what suits the examples of each.
        budget: seconds that steps and held-out training may cost by the stored table of costs, so
            that bytes do not depend on a clock; steps that are given are not cut.
        seed: of the order of rows, and of which are held out.
        progress: called with inputs answered and steps done, and of how many.
    Raises:
        UsageError: no example of a start is short enough, no input is left or answered, or the
            training diverges.
        LayoutMismatch: the starts differ in layout.
    """
    # 1. The rows, the schedule and the held-out sets of each.
    lessons, done = _lessons(base, starts, seed, progress)
    rows = [_rows(base, start, taught) for start, taught in zip(starts, lessons, strict=True)]
    plans = [
        _plan(start, own, base.device.type, steps, budget, seed)
        for start, own in zip(starts, rows, strict=True)
    ]
    total = done + sum(settings.steps * (1 + len(sets)) for settings, sets in plans)
    layout, results = starts[0].adapter.layout, dict[int, Refined]()
    for settings in dict.fromkeys(settings for settings, _ in plans):
        # 2. One training of all with a schedule: of each the whole, then what leaves a set out.
        group = [i for i, plan in enumerate(plans) if plan[0] == settings]
        jobs = [job for i in group for job in _jobs(starts[i], rows[i], plans[i][1], lessons[i])]
        watch = part_of(progress, done, total)
        trained = refine_adapters(base, layout, jobs, settings, seed=seed, progress=watch)
        done += settings.steps * len(jobs)
        # 3. Each start's results.
        for i in group:
            sets = plans[i][1]
            whole, *parts = (trained.pop(0) for _ in range(1 + len(sets)))
            others = [part.adapter for part in parts]
            scores = held_out_scores(base, starts[i].adapter, others, rows[i], sets)
            used = sum(row.teacher is None for row in rows[i])
            taught = _taught(base, starts[i], whole, lessons[i])
            about = (settings, used, scores, numerics(base.model), taught)
            results[i] = Refined(whole.adapter, *about)
    return [results[i] for i in range(len(starts))]


def _lessons(
    base: BaseModel, starts: Sequence[Start], seed: int, progress: Progress
) -> tuple[list[Lesson | None], int]:
    """What the teachers answer, and how many inputs count as done."""
    lessons, done = list[Lesson | None](), 0
    # The steps are not known yet.
    total = sum(start.inputs_count + MOST_STEPS for start in starts)
    for start in starts:
        if start.teacher is None:
            lessons.append(None)
            continue
        known = [example.input for example in start.examples]
        watch = part_of(progress, done, total)
        asked = (base, start.teacher, _inputs(base, start, seed, watch), start.usage)
        taught = lesson(*asked, labelled=known, seed=seed, progress=watch)
        if start.writer is not None:
            taught = replace(taught, about=replace(taught.about, writer=start.writer.digest))
        lessons.append(taught)
        done += start.inputs_count
    return lessons, done


def _inputs(base: BaseModel, start: Start, seed: int, progress: Progress) -> Sequence[str]:
    """What the teacher is asked: what is given, or else written.

    Writing counts as nothing done, and is followed all the same.
    """
    if start.writer is None:
        return start.inputs
    count = start.writer.count
    return written_inputs(
        base, start.writer, seed=seed, progress=lambda done, of: progress(0, count)
    )


def _rows(base: BaseModel, start: Start, taught: Lesson | None) -> tuple[TokenRow, ...]:
    """The rows that a start is trained on: its examples, then its teacher's answers."""
    rows = () if taught is None else taught.rows
    if not start.examples:
        return rows
    return (*example_rows(base, _distinct(start.examples), start.usage), *rows)


def _taught(base: BaseModel, start: Start, trained: Trainee, given: Lesson | None) -> Taught | None:
    if given is None:
        return None
    same = agreement(base, start.adapter, trained.adapter, given.held_back)
    return Taught(given.about, len(given.rows), trained.step, same)


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Each pair once: one that comes twice would be trained on and held out at once."""
    return [*{(example.input, example.output): example for example in examples}.values()]


def _plan(
    start: Start,
    rows: Sequence[TokenRow],
    device: str,
    steps: int | None,
    budget: float | None,
    seed: int,
) -> tuple[RefineSettings, list[tuple[int, ...]]]:
    """The schedule of a start with these rows, and which of them are held out."""
    count = steps or steps_for(rows, device, budget)
    together = min(ROWS, max(map(len, labelled_and_taught(rows))))
    settings = RefineSettings(count, rate_for(rows, start.instructed), together)
    sets = held_out_sets(sum(row.teacher is None for row in rows), seed)
    if start.saw_examples or not holds_out(rows, sets, settings, device, budget):
        sets = []
    return settings, sets


def _jobs(
    start: Start,
    rows: tuple[TokenRow, ...],
    sets: Sequence[tuple[int, ...]],
    taught: Lesson | None,
) -> list[Refinement]:
    """The training on all rows, then those that leave a set of examples out.

    Beside examples the teacher's answers choose nothing: where it is wrong, they know better.
    """
    parts = (rows, *(_without(rows, held) for held in sets))
    tune = () if taught is None or start.examples else taught.held_back
    return [Refinement(start.adapter, part, tune) for part in parts]


def _without(rows: tuple[TokenRow, ...], held: tuple[int, ...]) -> tuple[TokenRow, ...]:
    return tuple(row for i, row in enumerate(rows) if i not in held)
