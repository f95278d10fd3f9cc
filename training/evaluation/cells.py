"""Cells of an evaluation: their prompts, their decoding, and the cache of finished ones."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.base.decode import MAX_NEW_TOKENS, greedy
from library.base.models import BaseModel
from library.base.prompts import Mode, shots_ids, user_turn
from library.canonical import json_digest
from library.files import cache_dir, write_file
from library.tasks.files import Example, Task
from library.tasks.metrics import exact_match, rouge_l
from training.evaluation.methods import Method
from training.evaluation.pool import Pool

SHOTS = 3
Mix = list[tuple[int, float]]  # places in the pool and weights


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
    mixes: list[Mix] | None = None  # of a routed method, for each row
    predictions: list[str] | None = None

    def scores(self) -> tuple[float, float]:
        """Mean ROUGE-L and exact match over the task's test rows, in [0, 1]."""
        answers = self.predictions or []
        pairs = list(zip(answers, self.task.test, strict=True))
        rouge = sum(rouge_l(answer, row.outputs) for answer, row in pairs)
        exact = sum(exact_match(answer, row.outputs) for answer, row in pairs)
        return rouge / len(pairs), exact / len(pairs)


class Prompts:
    """Prompts of the tasks' test rows: each task is tokenised once a mode, not once a method."""

    def __init__(self, base: BaseModel, seed: int) -> None:
        self.base, self.seed = base, seed
        self._known: dict[tuple[str, Mode, bool], list[list[int]]] = {}

    def of(self, task: Task, mode: Mode, *, shots: bool) -> list[list[int]]:
        key = (task.name, mode, shots)
        if key not in self._known:
            self._known[key] = self._made(task, mode, self._shots(task) if shots else [])
        return self._known[key]

    def _made(self, task: Task, mode: Mode, shots: Sequence[Example]) -> list[list[int]]:
        """Prompted, the definition stands at the top, once."""
        modes: list[Mode] = [mode, *("bare" for _ in shots)]
        examples = [
            (user_turn(m, task.definition, s.input), s.outputs[0])
            for m, s in zip(modes, shots, strict=False)
        ]
        turns = [user_turn(modes[-1], task.definition, row.input) for row in task.test]
        return [shots_ids(self.base.tokenizer, examples, turn) for turn in turns]

    def _shots(self, task: Task) -> list[Example]:
        rng = random.Random(f"{self.seed}/{task.name}/shots")
        return rng.sample(task.train, min(SHOTS, len(task.train)))


def decode_all(
    cells: Sequence[Cell],
    base: BaseModel,
    pool: Pool,
    size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Answer every cell that the cache has no answers of."""
    for cell in cells:
        cell.predictions = _cached(cell.key, len(cell.task.test))
    todo = [cell for cell in cells if cell.predictions is None]
    chunk = max(1, 8 * size // 40)
    done = len(cells) - len(todo)
    if progress:
        progress(done, len(cells))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        _decode(part, base, pool, size)
        done += len(part)
        if progress:
            progress(done, len(cells))


def _decode(cells: Sequence[Cell], base: BaseModel, pool: Pool, size: int) -> None:
    """Answer the cells' test rows, many adapters to a batch, and keep the answers."""
    kinds = [
        (None if c.adapter is None else pool.layout_digest(c.adapter), c.mixes is not None)
        for c in cells
    ]
    for kind in dict.fromkeys(kinds):
        part = [cell for cell, found in zip(cells, kinds, strict=True) if found == kind]
        prompts = [ids for cell in part for ids in cell.prompts]
        stacked, rows = _adapters(part, pool, base) if kind[0] is not None else (None, None)
        answers = greedy(base, prompts, stacked, rows, batch_size=size)
        for cell in part:
            count = len(cell.task.test)
            cell.predictions, answers = answers[:count], answers[count:]
            write_file(_cache_file(cell.key), json.dumps(cell.predictions).encode())


def _adapters(
    cells: Sequence[Cell], pool: Pool, base: BaseModel
) -> tuple[Adapter, list[int] | list[list[float]]]:
    """The adapters of cells of one kind, and for each prompt which one, or the weights of all."""
    mixes = [
        mix
        for cell in cells
        for mix in (cell.mixes or [[(cell.adapter or 0, 1.0)]] * len(cell.prompts))
    ]
    places = sorted({place for mix in mixes for place, _ in mix})
    stacked = pool.stacked(places, base.device)
    if cells[0].mixes is None:
        return stacked, [places.index(mix[0][0]) for mix in mixes]
    return stacked, [[dict(mix).get(place, 0.0) for place in places] for mix in mixes]


def cell_key(base: BaseModel, prompts: list[list[int]], adapter: str | None) -> str:
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
