"""`lorasmith evaluate`: every method on every task, decoded greedily, scored, reported.

A cell is one (task, method, mode). Cells are decoded together, many adapters to a batch; each
finished cell is kept in the cache under the digest of all that its answers depend on, so a run
that was stopped goes on where it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from generator.engine import DEFAULT_STRATEGY, Engine
from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.prompts import Mode
from library.progress import Progress, no_progress
from library.tasks.files import Task
from training.evaluation.cells import Cell, Pool, Prompts, Source, cell_key, decode_all
from training.evaluation.library_methods import LibraryMethods, similarity
from training.evaluation.methods import MULTI_TASK, WITHOUT_ADAPTERS, Method, descriptions, proposed
from training.evaluation.routing import Routing


@dataclass(frozen=True)
class EvaluationPlan:
    """The tasks, methods and modes of an evaluation.

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
    engine: Engine,
    library: LibraryMethods | None = None,
    multi_task: Mapping[Mode, Adapter] | None = None,
    routing: Routing | None = None,
    progress: Progress = no_progress,
) -> EvaluationOutcome:
    """Decode and score a plan.

    Args:
        plan: tasks, methods, modes.
        base: the loaded base.
        engine: for the generators' methods, and
        library: by those that mix or look up a library's adapters, and
        multi_task: by that method: one adapter for all tasks, by mode, and
        routing: by the methods that choose for each row.
        progress: called with (cells finished, cells in all).
    """
    pool, prompts, outcome = Pool(), Prompts(base, plan.seed), EvaluationOutcome()
    cells, n = outcome.cells, len(plan.tasks)
    for method in plan.methods:
        # 1. For each task, what answers it: an adapter, a mix for each row, or the base alone.
        sources: Sequence[Source] = [None] * n
        if method.generates:
            sources = _generated(method, plan, base, engine, pool, outcome)
        elif method.from_library and library is not None:
            adapters = library.adapters(method.head, plan.tasks, base)
            sources = [None if adapter is None else pool.add(adapter) for adapter in adapters]
        elif method.routed and routing is not None:
            sources = [
                [[(pool.add(a), w) for a, w in mix] for mix in routing.mixes(method.head, task)]
                for task in plan.tasks
            ]
        # 2. How many adapters are zero.
        if method.generates or method.from_library:
            zeros = [pool.is_zero(i) for i in sources if isinstance(i, int)]
            outcome.abstentions[method.name] = sum(zeros)
        # 3. The cells; a multi-task adapter may differ from mode to mode.
        if method.head == MULTI_TASK:
            for mode, adapter in (multi_task or {}).items():
                cells += _cells(method, [pool.add(adapter)] * n, [mode], plan, prompts, pool)
        else:
            cells += _cells(method, sources, plan.modes, plan, prompts, pool)
    # 4. Their answers.
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
    """Indices of a generator's adapters; pairs of a swap and choices are noted."""
    texts, swapped = descriptions(method.suffix, plan.tasks, plan.splits, plan.seed)
    if swapped:
        outcome.pairs[method.name] = swapped
    indices, choices = [], {}
    for task, text in zip(plan.tasks, texts, strict=True):
        proposal = proposed(engine, method, base.reference, task, text)
        indices.append(None if proposal is None else pool.add(proposal.adapter))
        if proposal is not None:
            choices[task.name] = proposal.chosen.strategy
    if method.head == DEFAULT_STRATEGY:
        outcome.chosen[method.name] = choices
    return indices


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
    modes: Sequence[Mode],
    plan: EvaluationPlan,
    prompts: Prompts,
    pool: Pool,
) -> list[Cell]:
    """One for each mode and each task that the method has something for."""
    cells = []
    for task, split, source in zip(plan.tasks, plan.splits, sources, strict=True):
        if source is None and method.head not in WITHOUT_ADAPTERS:
            continue
        for mode in modes:
            ids = prompts.of(task, mode, shots=method.head == "in-context")
            key = cell_key(prompts.base, ids, pool.digest(source))
            cells.append(Cell(task, split, method, mode, source, ids, key))
    return cells
