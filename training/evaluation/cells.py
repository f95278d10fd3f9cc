"""Cells of an evaluation: their adapters and prompts, their decoding, and the cache of answers."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from generator.request import UsageMode
from library.adapter import Adapter, stack_padded
from library.base.decode import MAX_NEW_TOKENS, greedy, greedy_ensemble
from library.base.models import BaseModel
from library.base.prompts import Mode, shots_ids
from library.base.usage import BARE, Usage
from library.canonical import digest, json_digest
from library.files import cache_dir, write_file
from library.progress import Progress
from library.tasks.files import Example, Task
from training.evaluation.methods import Method
from training.evaluation.scores import scores_of

Mix = list[tuple[int, float]]  # indices into the pool and weights
Ensemble = tuple[int, ...]  # indices into the pool of adapters whose logits are averaged
Source = int | Ensemble | list[Mix] | None  # one adapter, several, a mix a row, or the base alone


class Pool:
    """The adapters of an evaluation, each kept once and as it is stored. Layouts may differ."""

    def __init__(self) -> None:
        self._adapters: list[Adapter] = []
        self._indices: dict[str, int] = {}  # by digest, in the order of the adapters

    def add(self, adapter: Adapter) -> int:
        """Keep one adapter (n = 1) as bfloat16; return its index."""
        stored = adapter.to("cpu", torch.bfloat16)
        factors = (f.contiguous().view(torch.int16).numpy().tobytes() for f in stored.factors())
        key = digest(b"".join(factors) + stored.layout.digest.encode())
        if key not in self._indices:
            self._indices[key] = len(self._adapters)
            self._adapters.append(stored)
        return self._indices[key]

    def is_zero(self, index: int) -> bool:
        return self._adapters[index].is_zero()

    def digest(self, source: Source) -> str | None:
        """Digest of a source: its adapters and their weights."""
        digests = list(self._indices)
        if isinstance(source, tuple):
            return json_digest({"mean logits of": sorted(digests[i] for i in source)})
        if isinstance(source, list):
            return json_digest([[[digests[i], weight] for i, weight in mix] for mix in source])
        return None if source is None else digests[source]

    def layout_digest(self, source: Source) -> str | None:
        first: Any = source
        while isinstance(first, tuple | list):  # any of its adapters, as all have one layout
            first = first[0]
        return None if first is None else self._adapters[first].layout.digest

    def ensemble(self, adapters: Sequence[Adapter]) -> Source:
        """Keep adapters that answer together; equal ones answer as one of them alone."""
        members = tuple(self.add(adapter) for adapter in adapters)
        return members if len(set(members)) > 1 else members[0]

    def stacked(self, indices: Sequence[int], device: torch.device) -> Adapter:
        """Adapters, in float32 on a device."""
        return stack_padded([self._adapters[i] for i in indices]).to(device, torch.float32)


@dataclass
class Cell:
    """One task under one method and mode, and its answers once there are any."""

    task: Task
    split: str
    method: Method
    mode: UsageMode  # as it was asked for
    usage: Mode  # of the prompts
    source: Source
    prompts: list[list[int]]  # of the test rows
    key: str
    predictions: list[str] | None = None
    refined: dict[str, Any] | None = None  # what training on train rows gave

    def scores(self) -> dict[str, float | None]:
        """Means over the task's test rows, by metric."""
        return scores_of(self.task, self.predictions or [])


class Prompts:
    """Prompts of the tasks' test rows: each task is tokenised once a usage, not once a method."""

    def __init__(self, base: BaseModel, seed: int) -> None:
        self.base, self.seed = base, seed
        self._prompts: dict[tuple[str, Usage, int], list[list[int]]] = {}

    def of(self, task: Task, usage: Usage, shots: int) -> list[list[int]]:
        """Prompts of a task's test rows, with so many train rows shown before each."""
        key = (task.name, usage, shots)
        if key not in self._prompts:
            self._prompts[key] = self._tokenised(task, usage, self._shots(task, shots))
        return self._prompts[key]

    def _tokenised(self, task: Task, usage: Usage, shots: Sequence[Example]) -> list[list[int]]:
        """The instruction, if there is one, stands at the top, once."""
        messages = [usage.message(shots[0].input), *(s.input for s in shots[1:])] if shots else []
        examples = [(m, s.outputs[0]) for m, s in zip(messages, shots, strict=True)]
        last = BARE if shots else usage
        turns = [last.message(row.input) for row in task.test]
        return [shots_ids(self.base.tokenizer, examples, turn) for turn in turns]

    def _shots(self, task: Task, count: int) -> list[Example]:
        rng = random.Random(f"{self.seed}/{task.name}/shots")
        return rng.sample(task.train, min(count, len(task.train)))


def decode_all(
    cells: Sequence[Cell],
    base: BaseModel,
    pool: Pool,
    size: int,
    progress: Progress,
) -> None:
    """Answer every cell that the cache has no answers of."""
    for cell in cells:
        cell.predictions = _cached(cell.key, len(cell.task.test))
    todo = [cell for cell in cells if cell.predictions is None]
    chunk = max(1, 8 * size // 40)
    done = len(cells) - len(todo)
    progress(done, len(cells))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        _decode(part, base, pool, size)
        done += len(part)
        progress(done, len(cells))


def _decode(cells: Sequence[Cell], base: BaseModel, pool: Pool, size: int) -> None:
    """Answer the cells' test rows, many adapters to a batch, and keep the answers."""
    kinds = [(pool.layout_digest(c.source), type(c.source)) for c in cells]
    for kind in dict.fromkeys(kinds):
        group = [cell for cell, other in zip(cells, kinds, strict=True) if other == kind]
        prompts = [ids for cell in group for ids in cell.prompts]
        if kind[1] is tuple:
            adapter, members = _ensembles(group, pool, base)
            answers = greedy_ensemble(base, prompts, adapter, members, batch_size=size)
        else:
            adapter, rows = _adapters(group, pool, base)
            answers = greedy(base, prompts, adapter, rows, batch_size=size)
        for cell in group:
            count = len(cell.task.test)
            cell.predictions, answers = answers[:count], answers[count:]
            write_file(_cache_file(cell.key), json.dumps(cell.predictions).encode())


def _adapters(
    cells: Sequence[Cell], pool: Pool, base: BaseModel
) -> tuple[Adapter | None, list[int] | list[list[float]] | None]:
    """The adapters of cells of one kind, and for each prompt which one, or the weights of all."""
    single, mixes = [], []
    for cell in cells:
        if isinstance(cell.source, list):
            mixes += cell.source
        elif isinstance(cell.source, int):
            single += [cell.source] * len(cell.prompts)
    indices = sorted({*single, *(i for mix in mixes for i, _ in mix)})
    if not indices:
        return None, None
    rows = [indices.index(i) for i in single]
    weights = [[dict(mix).get(i, 0.0) for i in indices] for mix in mixes]
    return pool.stacked(indices, base.device), weights or rows


def _ensembles(
    cells: Sequence[Cell], pool: Pool, base: BaseModel
) -> tuple[Adapter, list[list[int]]]:
    """The adapters of cells of ensembles, and for each prompt those that answer it together."""
    groups = [(cell.source, cell.prompts) for cell in cells if isinstance(cell.source, tuple)]
    indices = sorted({i for members, _ in groups for i in members})
    places = [([indices.index(i) for i in members], prompts) for members, prompts in groups]
    return pool.stacked(indices, base.device), [own for own, prompts in places for _ in prompts]


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
    """Cached answers of a cell; None if there are none or they are damaged."""
    try:
        value: Any = json.loads(_cache_file(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(value, list) and len(value) == rows
    return value if complete and all(isinstance(text, str) for text in value) else None
