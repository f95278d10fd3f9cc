"""`lorasmith evaluate`: every method on every task, decoded greedily, scored, reported.

A cell is one (task, method, mode). Cells are decoded together, many adapters to a batch; each
finished cell is kept in the cache under the digest of all that its answers depend on, so a run
that was stopped goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from generator.engine import DEFAULT_STRATEGY, Engine
from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.prompts import Mode
from library.canonical import json_digest
from library.tasks.files import Task
from training.evaluation.cells import Cell, Prompts, cell_key, decode_all
from training.evaluation.library_methods import LibraryMethods, similarity
from training.evaluation.methods import MULTI_TASK, PLAIN, Method, descriptions, proposed
from training.evaluation.pool import Pool
from training.evaluation.routing import Routing


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        tasks: with their splits ("seen" or "held-out"), one for each.
        methods: as parsed.
        modes: bare, prompted or both.
        seed: of derangements and choices of paraphrases.
        batch_size: prompts decoded together.
    """

    tasks: Sequence[Task]
    splits: Sequence[str]
    methods: Sequence[Method]
    modes: Sequence[Mode]
    seed: int = 0
    batch_size: int = 32


@dataclass(frozen=True)
class EvaluationOutcome:
    """All cells, and what else a report says.

    Attributes:
        pairs: (task, source) of swapped descriptions, by method.
        abstentions: how often a zero adapter came out, by method.
        similarity: of each task's description to the nearest in the library, if there is one.
        chosen: which strategy `auto` followed for each task, by method.
    """

    cells: list[Cell] = field(default_factory=list)
    pairs: dict[str, list[list[str]]] = field(default_factory=dict)
    abstentions: dict[str, int] = field(default_factory=dict)
    similarity: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)


def evaluate(
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine | None,
    library: LibraryMethods | None = None,
    multi_task: Mapping[Mode, Adapter] | None = None,
    routing: Routing | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationOutcome:
    """Decode and score a plan.

    Args:
        plan: tasks, methods, modes.
        base: the loaded base.
        engine: needed by the generators' methods, and
        library: by those that mix or look up a library's adapters, and
        multi_task: by that method: one adapter for all tasks, by mode, and
        routing: by the methods that choose for each row.
        progress: called with (cells finished, cells in all).
    """
    pool, prompts, outcome = Pool(), Prompts(base, plan.seed), EvaluationOutcome()
    cells = outcome.cells
    for method in plan.methods:
        if method.head == MULTI_TASK and multi_task is not None:
            for mode, adapter in multi_task.items():
                places = [pool.add(adapter)] * len(plan.tasks)
                cells += _cells(method, places, replace(plan, modes=[mode]), prompts, pool)
            continue
        if method.routed and routing is not None:
            for task, split in zip(plan.tasks, plan.splits, strict=True):
                cells += _routed(method, task, split, plan, routing, prompts, pool)
            continue
        places = [None] * len(plan.tasks)
        if method.generates and engine is not None:
            places = _generated(method, plan, base, engine, pool, outcome)
        elif method.from_library and library is not None:
            found = library.adapters(method.head, plan.tasks, base)
            places = [pool.add(a) if a is not None else None for a in found]
        if method.head not in PLAIN:
            zeros = [pool.is_zero(place) for place in places if place is not None]
            outcome.abstentions[method.name] = sum(zeros)
        cells += _cells(method, places, plan, prompts, pool)
    decode_all(cells, base, pool, plan.batch_size, progress)
    outcome.similarity.update(_similarity(plan, base, engine, library))
    return outcome


def _generated(
    method: Method,
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine,
    pool: Pool,
    outcome: EvaluationOutcome,
) -> list[int | None]:
    """Places in the pool of a generator's adapters; pairs of a swap and choices are noted."""
    texts, swapped = descriptions(method.suffix, plan.tasks, plan.splits, plan.seed)
    if swapped:
        outcome.pairs[method.name] = swapped
    places, chosen = [], {}
    for task, text in zip(plan.tasks, texts, strict=True):
        made = proposed(engine, method, base.reference, task, text)
        places.append(None if made is None else pool.add(made.adapter))
        if made is not None:
            chosen[task.name] = made.chosen.strategy
    if method.head == DEFAULT_STRATEGY:
        outcome.chosen[method.name] = chosen
    return places


def _similarity(
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine | None,
    library: LibraryMethods | None,
) -> dict[str, float]:
    if library is not None:
        return similarity(library.library, plan.tasks)
    if engine is None or engine.resources.library_fit.misfit(base.reference):
        return {}
    return similarity(engine.resources.retriever(base.reference), plan.tasks)


def _cells(
    method: Method, places: Sequence[int | None], plan: EvaluationPlan, prompts: Prompts, pool: Pool
) -> list[Cell]:
    """One for each task that the method has something for, and mode."""
    cells = []
    for task, split, place in zip(plan.tasks, plan.splits, places, strict=True):
        if place is None and method.head not in PLAIN:
            continue
        for mode in plan.modes:
            asked = prompts.of(task, mode, shots=method.head == "in-context")
            key = cell_key(prompts.base, asked, pool.digests[place] if place is not None else None)
            cells.append(Cell(task, split, method, mode, place, asked, key))
    return cells


def _routed(
    method: Method,
    task: Task,
    split: str,
    plan: EvaluationPlan,
    routing: Routing,
    prompts: Prompts,
    pool: Pool,
) -> list[Cell]:
    """Cells of one task, each row of which has a mix of its own."""
    found = routing.mixes(method.head, task)
    mixes = [[(pool.add(adapter), weight) for adapter, weight in mix] for mix in found]
    cells = []
    for mode in plan.modes:
        asked = prompts.of(task, mode, shots=False)
        digests = [[[pool.digests[place], weight] for place, weight in mix] for mix in mixes]
        key = cell_key(prompts.base, asked, json_digest(digests))
        cells.append(Cell(task, split, method, mode, mixes[0][0][0], asked, key, mixes))
    return cells
