"""`lorasmith evaluate`: every method on every task, decoded greedily, scored, reported.

A cell is one (task, method, mode). Cells are decoded together, many adapters to a batch; each
finished cell is kept in the cache under the digest of all that its answers depend on, so a run
that was stopped goes on where it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from generator.engine import DEFAULT_STRATEGY, Engine
from generator.request import UsageMode
from generator.strategies.base import Proposal
from generator.strategies.multi_task import MultiTask
from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.usage import Usage
from library.progress import Progress, no_progress
from library.tasks.files import Task
from training.evaluation.cells import Cell, Pool, Prompts, Source, cell_key, decode_all
from training.evaluation.library_methods import LibraryMethods, similarity
from training.evaluation.methods import (
    IN_CONTEXT,
    SHOTS,
    WITHOUT_ADAPTERS,
    Asked,
    Method,
    proposals,
)
from training.evaluation.routing import Routing
from training.evaluation.swaps import WRONG_EXAMPLES, descriptions, other_tasks, swapped_names


@dataclass(frozen=True)
class EvaluationPlan:
    """The tasks, methods and modes of an evaluation.

    Attributes:
        tasks: with their splits ("seen" or "held-out"), one for each.
        methods: as parsed.
        modes: bare, prompted, or best: each adapter in the mode that its usage names.
        seed: of derangements and choices of paraphrases.
        batch_size: prompts decoded together.
    """

    tasks: Sequence[Task]
    splits: Sequence[str]
    methods: Sequence[Method]
    modes: Sequence[UsageMode]
    seed: int = 0
    batch_size: int = 32


@dataclass(frozen=True)
class EvaluationOutcome:
    """All cells, and what else a report says.

    Attributes:
        pairs: (task, source) of swapped descriptions or examples, by method.
        abstentions: how often a zero adapter came out, by method.
        similarity: of each task's description to the nearest in the library, if there is one.
        chosen: which strategy `auto` followed for each task, by method and mode.
    """

    cells: list[Cell] = field(default_factory=list)
    pairs: dict[str, list[list[str]]] = field(default_factory=dict)
    abstentions: dict[str, int] = field(default_factory=dict)
    similarity: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)


def evaluate(
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine,
    library: LibraryMethods | None = None,
    multi_task: Mapping[UsageMode, Adapter] | None = None,
    routing: Routing | None = None,
    progress: Progress = no_progress,
) -> EvaluationOutcome:
    """Decode and score a plan.

    Args:
        plan: tasks, methods, modes.
        base: the loaded base.
        engine: for the generators' methods, and
        library: by those that mix or look up a library's adapters, and
        multi_task: in place of the shipped ones, by mode, and
        routing: by the methods that choose for each row.
        progress: called with (cells finished, cells in all).
    """
    pool, prompts, outcome = Pool(), Prompts(base, plan.seed), EvaluationOutcome()
    cells, n = outcome.cells, len(plan.tasks)
    for method in plan.methods:
        # 1. For each task, what answers it: an adapter, a mix for each row, or the base alone.
        if method.name == MultiTask.name and multi_task is not None:
            for mode, adapter in multi_task.items():
                one: list[Source] = [pool.add(adapter)] * n
                cells += _cells(method, one, mode, plan, prompts, pool)
            continue
        if method.generates:
            for mode in plan.modes:
                cells += _generated(method, mode, plan, base, engine, pool, prompts, outcome)
            continue
        sources: Sequence[Source] = [None] * n
        if method.from_library and library is not None:
            adapters = library.adapters(method.head, plan.tasks, base)
            sources = [None if adapter is None else pool.add(adapter) for adapter in adapters]
            outcome.abstentions[method.name] = _zeros(sources, pool)
        elif method.routed and routing is not None:
            sources = [
                [[(pool.add(a), w) for a, w in mix] for mix in routing.mixes(method.head, task)]
                for task in plan.tasks
            ]
        # 2. The cells; without a usage of its own, a method is best when prompted.
        for mode in plan.modes:
            cells += _cells(method, sources, mode, plan, prompts, pool)
    # 3. Their answers.
    decode_all(cells, base, pool, plan.batch_size, progress)
    outcome.similarity.update(_similarity(plan, base, engine, library))
    return outcome


def _generated(
    method: Method,
    mode: UsageMode,
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine,
    pool: Pool,
    prompts: Prompts,
    outcome: EvaluationOutcome,
) -> list[Cell]:
    """The cells of a strategy in a mode; pairs of a swap, choices and zero adapters are noted."""
    drawn = (method.suffix, plan.tasks, plan.splits, plan.seed)
    texts, swapped = descriptions(*drawn)
    lenders = other_tasks(*drawn) if method.suffix == WRONG_EXAMPLES else None
    if lenders is not None:
        swapped = swapped_names(plan.tasks, lenders)
    if swapped:
        outcome.pairs[method.name] = swapped
    asked = [
        Asked(method, texts, mode, plan.seed + number, lenders) for number in range(method.samples)
    ]
    by_draw = [proposals(engine, one, base.reference, plan.tasks) for one in asked]
    found = by_draw[0]
    sources = [_source(samples, pool) for samples in zip(*by_draw, strict=True)]
    outcome.abstentions[method.name] = _zeros(sources, pool)
    if method.head == DEFAULT_STRATEGY:
        chosen = {
            task.name: p.chosen.strategy
            for task, p in zip(plan.tasks, found, strict=True)
            if p is not None
        }
        outcome.chosen[f"{method.name}, {mode}"] = chosen
    own = [_own_usage(mode, p) for p in found]
    cells = _cells(method, sources, mode, plan, prompts, pool, own)
    by_task = {task.name: p for task, p in zip(plan.tasks, found, strict=True)}
    return [replace(cell, refined=_refined(by_task[cell.task.name])) for cell in cells]


def _source(samples: Sequence[Proposal | None], pool: Pool) -> Source:
    """What answers for a task: one adapter, or its samples together; None if there is none."""
    adapters = [proposal.adapter for proposal in samples if proposal is not None]
    return pool.ensemble(adapters) if adapters else None


def _own_usage(mode: UsageMode, proposal: Proposal | None) -> Usage | None:
    """The prompt of an adapter that has to be asked with its own; None: the task's definition.

    So a swapped description stands in the prompt where the prompt is what carries it: in the mode
    that the usage names, after training with it, and for the multi-task adapter.
    """
    if proposal is None or mode == "bare":
        return None
    own = mode == "best" or proposal.refined or proposal.chosen.strategy == MultiTask.name
    return proposal.usage if own else None


def _refined(proposal: Proposal | None) -> dict[str, Any] | None:
    return None if proposal is None or not proposal.refined else proposal.refined.to_dict()


def _zeros(sources: Sequence[Source], pool: Pool) -> int:
    """How many adapters change nothing."""
    return sum(pool.is_zero(source) for source in sources if isinstance(source, int))


def _similarity(
    plan: EvaluationPlan,
    base: BaseModel,
    engine: Engine,
    library: LibraryMethods | None,
) -> dict[str, float]:
    if library is not None:
        return similarity(library.library, plan.tasks)
    if engine.resources.library_fit.misfit(base.reference):
        return {}
    return similarity(engine.resources.retriever(base.reference), plan.tasks)


def _cells(
    method: Method,
    sources: Sequence[Source],
    mode: UsageMode,
    plan: EvaluationPlan,
    prompts: Prompts,
    pool: Pool,
    own: Sequence[Usage | None] = (),
) -> list[Cell]:
    """One for each task that the method has something for.

    Args:
        mode: as it is reported; without a usage, best is prompted.
        own: the usage of each task's prompts, where an adapter has its own.
    """
    cells, own = [], own or [None] * len(plan.tasks)
    for task, split, source, stated in zip(plan.tasks, plan.splits, sources, own, strict=True):
        if source is None and method.head not in WITHOUT_ADAPTERS:
            continue
        usage = stated or Usage.of("bare" if mode == "bare" else "prompted", task.definition)
        shots = (method.examples or SHOTS) if method.head == IN_CONTEXT else 0
        ids = prompts.of(task, usage, shots)
        key = cell_key(prompts.base, ids, pool.digest(source))
        cells.append(Cell(task, split, method, mode, usage.mode, source, ids, key))
    return cells
