"""`lorasmith evaluate`: every method on every task, decoded greedily, scored, reported.

A cell is one (task, method, mode). Cells are decoded together, many adapters to a batch; each
finished cell is kept in the cache under the digest of all that its answers depend on, so a run
that was stopped goes on where it was.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generator.generate import Generator
from library.adapter import Adapter
from library.base import BaseModel
from library.canonical import json_digest
from library.decode import MAX_NEW_TOKENS, greedy
from library.files import cache_dir, write_file
from library.metrics import exact_match, rouge_l
from library.prompts import Mode, shots_ids, user_turn
from library.tasks import Instance, Task
from training.library_methods import LibraryMethods
from training.methods import MULTI_TASK, PLAIN, Method, descriptions, generated
from training.pool import Pool

SHOTS = 3


@dataclass(frozen=True)
class Plan:
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


@dataclass
class Cell:
    """One task under one method and mode, and its answers once there are any."""

    task: Task
    split: str
    method: Method
    mode: Mode
    adapter: int | None  # place in the pool
    prompts: list[list[int]]  # of the test rows
    key: str
    predictions: list[str] | None = None

    def scores(self) -> tuple[float, float]:
        """Mean ROUGE-L and exact match over the task's test rows, in [0, 1]."""
        answers = self.predictions or []
        pairs = list(zip(answers, self.task.test, strict=True))
        rouge = sum(rouge_l(answer, row.outputs) for answer, row in pairs)
        exact = sum(exact_match(answer, row.outputs) for answer, row in pairs)
        return rouge / len(pairs), exact / len(pairs)


@dataclass(frozen=True)
class Outcome:
    """All cells, and what else a report says.

    Attributes:
        pairs: (task, source) of swapped descriptions, by method.
        abstentions: how often a zero adapter came out, by method.
        similarity: of each task's description to the nearest in the library, if there is one.
    """

    cells: list[Cell]
    pairs: dict[str, list[list[str]]]
    abstentions: dict[str, int]
    similarity: dict[str, float]


def evaluate(
    plan: Plan,
    base: BaseModel,
    generator: Generator | None,
    library: LibraryMethods | None = None,
    multi_task: Mapping[Mode, Adapter] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Decode and score a plan.

    Args:
        plan: tasks, methods, modes.
        base: the loaded base.
        generator: needed by the generator's methods, and
        library: by those that take adapters from a library, and
        multi_task: by that method: one adapter for all tasks, by mode.
        progress: called with (cells finished, cells in all).
    """
    pool, prompts = Pool(), _Prompts(base, plan.seed)
    cells, pairs, abstentions = [], {}, {}
    for method in plan.methods:
        if method.head == MULTI_TASK and multi_task is not None:
            for mode, adapter in multi_task.items():
                places = [pool.add(adapter)] * len(plan.tasks)
                cells += _cells(method, places, replace(plan, modes=[mode]), prompts, pool)
            continue
        adapters, swapped = _adapters(method, plan, base, generator, library)
        if swapped:
            pairs[method.name] = swapped
        places = [pool.add(a) if a is not None else None for a in adapters]
        if method.head not in PLAIN:
            zeros = [pool.is_zero(place) for place in places if place is not None]
            abstentions[method.name] = sum(zeros)
        cells += _cells(method, places, plan, prompts, pool)
    for cell in cells:
        cell.predictions = _cached(cell.key, len(cell.task.test))
    todo = [cell for cell in cells if cell.predictions is None]
    chunk = max(1, 8 * plan.batch_size // 40)
    done = len(cells) - len(todo)
    if progress:
        progress(done, len(cells))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        _decode(part, base, pool, plan.batch_size)
        done += len(part)
        if progress:
            progress(done, len(cells))
    similarity = library.similarity(plan.tasks) if library is not None else {}
    return Outcome(cells, pairs, abstentions, similarity)


def _adapters(
    method: Method,
    plan: Plan,
    base: BaseModel,
    generator: Generator | None,
    library: LibraryMethods | None,
) -> tuple[list[Adapter | None], list[list[str]]]:
    """A method's adapter for each task, and the pairs of a swap."""
    if method.generates and generator is not None:
        texts, swapped = descriptions(method.suffix, plan.tasks, plan.splits, plan.seed)
        return generated(generator, texts), swapped
    if method.from_library and library is not None:
        return library.adapters(method.head, plan.tasks, base), []
    return [None] * len(plan.tasks), []


def _cells(
    method: Method, places: Sequence[int | None], plan: Plan, prompts: "_Prompts", pool: Pool
) -> list[Cell]:
    """One for each task that the method has something for, and mode."""
    cells = []
    for task, split, place in zip(plan.tasks, plan.splits, places, strict=True):
        if place is None and method.head not in PLAIN:
            continue
        for mode in plan.modes:
            asked = prompts.of(task, mode, shots=method.head == "in-context")
            key = _key(prompts.base, asked, pool.digests[place] if place is not None else None)
            cells.append(Cell(task, split, method, mode, place, asked, key))
    return cells


def _decode(cells: Sequence[Cell], base: BaseModel, pool: Pool, size: int) -> None:
    """Answer the cells' test rows, many adapters to a batch, and keep the answers."""
    layouts = [None if c.adapter is None else pool.layout_digest(c.adapter) for c in cells]
    for layout in dict.fromkeys(layouts):
        part = [cell for cell, found in zip(cells, layouts, strict=True) if found == layout]
        prompts = [ids for cell in part for ids in cell.prompts]
        stacked, rows = None, None
        if layout is not None:
            places = sorted({cell.adapter for cell in part if cell.adapter is not None})
            stacked = pool.stacked(places, base.device)
            rows = [places.index(cell.adapter or 0) for cell in part for _ in cell.task.test]
        answers = greedy(base, prompts, stacked, rows, batch_size=size)
        for cell in part:
            count = len(cell.task.test)
            cell.predictions, answers = answers[:count], answers[count:]
            write_file(_cache_file(cell.key), json.dumps(cell.predictions).encode())


class _Prompts:
    """Prompts of the tasks' test rows: each task is tokenised once a mode, not once a method."""

    def __init__(self, base: BaseModel, seed: int) -> None:
        self.base, self.seed = base, seed
        self._known: dict[tuple[str, Mode, bool], list[list[int]]] = {}

    def of(self, task: Task, mode: Mode, *, shots: bool) -> list[list[int]]:
        key = (task.name, mode, shots)
        if key not in self._known:
            self._known[key] = self._made(task, mode, self._shots(task) if shots else [])
        return self._known[key]

    def _made(self, task: Task, mode: Mode, shots: Sequence[Instance]) -> list[list[int]]:
        """Prompted, the definition stands at the top, once."""
        modes: list[Mode] = [mode, *("bare" for _ in shots)]
        examples = [
            (user_turn(m, task.definition, s.input), s.outputs[0])
            for m, s in zip(modes, shots, strict=False)
        ]
        turns = [user_turn(modes[-1], task.definition, row.input) for row in task.test]
        return [shots_ids(self.base.tokenizer, examples, turn) for turn in turns]

    def _shots(self, task: Task) -> list[Instance]:
        rng = random.Random(f"{self.seed}/{task.name}/shots")
        return rng.sample(task.train, min(SHOTS, len(task.train)))


def _key(base: BaseModel, prompts: list[list[int]], adapter: str | None) -> str:
    """Digest of all that a cell's answers depend on."""
    return json_digest(
        {
            "adapter": adapter,
            "base": base.sha256 or base.reference.name,
            "device": base.device.type,
            "dtype": str(base.model.dtype),
            "max_new_tokens": MAX_NEW_TOKENS,
            "prompts": prompts,
        }
    )


def _cache_file(key: str) -> Path:
    return cache_dir() / "evaluate" / key[:2] / f"{key}.json"


def _cached(key: str, rows: int) -> list[str] | None:
    """The answers that are kept for a cell; None if there are none, or they are damaged."""
    try:
        value: Any = json.loads(_cache_file(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(value, list) and len(value) == rows
    return value if whole and all(isinstance(text, str) for text in value) else None
