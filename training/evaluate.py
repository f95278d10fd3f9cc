"""`lorasmith evaluate`: every method on every task, decoded greedily, scored, reported.

A cell is one (task, method, mode). Cells are decoded together, many adapters to a batch; each
finished cell is kept in the cache under the digest of all that its answers depend on, so a run
that was stopped goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from generator.generate import Generator
from library.adapter import Adapter
from library.base import BaseModel
from library.canonical import digest, json_digest
from library.decode import MAX_NEW_TOKENS, greedy
from library.files import cache_dir, write_file
from library.metrics import exact_match, rouge_l
from library.prompts import Mode, prompt_ids, user_turn
from library.tasks import Task
from training.methods import Method, adapters_for, descriptions


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
    adapter: int | None  # index into the stacked adapters
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
    """All cells, the pairs of swapped descriptions, and how often a zero adapter came out."""

    cells: list[Cell]
    pairs: dict[str, list[list[str]]]
    abstentions: dict[str, int]


def evaluate(
    plan: Plan,
    base: BaseModel,
    generator: Generator | None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Decode and score a plan.

    Args:
        plan: tasks, methods, modes.
        base: the loaded base.
        generator: needed by every method but `base`.
        progress: called with (cells finished, cells in all).
    """
    cells, adapters, pairs, abstentions = _cells(plan, base, generator)
    for cell in cells:
        cell.predictions = _cached(cell.key, len(cell.task.test))
    todo = [cell for cell in cells if cell.predictions is None]
    chunk = max(1, 8 * plan.batch_size // 40)
    done = len(cells) - len(todo)
    if progress:
        progress(done, len(cells))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        _decode(part, base, adapters, plan.batch_size)
        done += len(part)
        if progress:
            progress(done, len(cells))
    return Outcome(cells, pairs, abstentions)


def _cells(
    plan: Plan, base: BaseModel, generator: Generator | None
) -> tuple[list[Cell], Adapter | None, dict[str, list[list[str]]], dict[str, int]]:
    cells: list[Cell] = []
    texts: dict[str, int] = {}  # description to its place among the adapters
    pairs: dict[str, list[list[str]]] = {}
    chosen: list[tuple[Method, list[str | None]]] = []
    for method in plan.methods:
        if method.generator is None:
            chosen.append((method, [None] * len(plan.tasks)))
            continue
        given, swapped = descriptions(method.suffix, plan.tasks, plan.splits, plan.seed)
        if swapped:
            pairs[method.name] = swapped
        chosen.append((method, given))
        for text in given:
            if text is not None:
                texts.setdefault(text, len(texts))
    adapters = adapters_for(generator, list(texts)) if generator and texts else None
    digests = _digests(adapters)
    prompts = {(t.name, mode): _prompts(base, t, mode) for t in plan.tasks for mode in plan.modes}
    for method, given in chosen:
        for task, split, text in zip(plan.tasks, plan.splits, given, strict=True):
            if method.generator is not None and text is None:
                continue  # no paraphrase
            place = texts[text] if text is not None else None
            for mode in plan.modes:
                asked = prompts[task.name, mode]
                key = _key(base, asked, digests[place] if place is not None else None)
                cells.append(Cell(task, split, method, mode, place, asked, key))
    return cells, adapters, pairs, _abstentions(chosen, texts, adapters)


def _abstentions(
    chosen: Sequence[tuple[Method, list[str | None]]],
    texts: dict[str, int],
    adapters: Adapter | None,
) -> dict[str, int]:
    if adapters is None:
        return {}
    zero = {text: adapters[[place]].is_zero() for text, place in texts.items()}
    return {
        method.name: sum(zero[text] for text in given if text is not None)
        for method, given in chosen
        if method.generator is not None
    }


def _decode(cells: Sequence[Cell], base: BaseModel, adapters: Adapter | None, size: int) -> None:
    """Answer the cells' test rows, many adapters to a batch, and keep the answers."""
    for with_adapter in (False, True):
        part = [cell for cell in cells if (cell.adapter is not None) == with_adapter]
        if not part:
            continue
        prompts = [ids for cell in part for ids in cell.prompts]
        stacked, rows = None, None
        if with_adapter and adapters is not None:
            places = sorted({cell.adapter for cell in part if cell.adapter is not None})
            stacked = adapters[places].to(base.device, torch.float32)
            rows = [places.index(cell.adapter or 0) for cell in part for _ in cell.task.test]
        answers = greedy(base, prompts, stacked, rows, batch_size=size)
        for cell in part:
            count = len(cell.task.test)
            cell.predictions, answers = answers[:count], answers[count:]
            write_file(_cache_file(cell.key), json.dumps(cell.predictions).encode())


def _prompts(base: BaseModel, task: Task, mode: Mode) -> list[list[int]]:
    turns = [user_turn(mode, task.definition, row.input) for row in task.test]
    return [prompt_ids(base.tokenizer, turn) for turn in turns]


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


def _digests(adapters: Adapter | None) -> list[str]:
    if adapters is None:
        return []
    keys = sorted(adapters.A)
    return [
        digest(
            b"".join(
                factors[key][i].contiguous().view(torch.int16).numpy().tobytes()
                for key in keys
                for factors in (adapters.A, adapters.B)
            )
        )
        for i in range(len(adapters))
    ]


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
