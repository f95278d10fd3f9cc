"""Methods of an evaluation: the base, alone or with examples, a library's adapters, a generator.

A method turns tasks into adapters (or none). A generator's suffix after the colon swaps the
description, and with it tests whether the adapter listens to it; or it is a number, of train rows
that the adapter is trained on: `auto:5`, `text-to-lora:5`, or in full `refine:text-to-lora:5`. Of a
generator that draws, `icm-lora:ensemble:4` is four samples that answer together.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from generator.engine import DEFAULT_STRATEGY, Engine, strategy_names, takes_library
from generator.models.base import registered
from generator.refine.limits import MAX_EXAMPLES
from generator.request import Query, Request, UsageMode
from generator.samples import require_samples
from generator.strategies.base import Chosen, NothingNear, Proposal
from generator.strategies.fresh import Fresh
from generator.strategies.multi_task import MultiTask
from generator.strategies.refined import refined_proposals
from index.encoders.descriptions import InvalidDescription
from library.adapter import zeros
from library.base.models import BaseReference
from library.errors import TaskFileError, UnknownName, UsageError
from library.tasks.files import Example, Task

GIBBERISH = (
    "dax wug blicket toma fep zib gorp",
    "qwzx plmk vbnt hjgf rtyu cdsx",
    "lamp seventeen yonder spoon glacier of if",
    "%% 0x7f :: ~~ [[]] // ;; @@",
    "nnnnnnnn oooooo kkkkkk aaaa zzzzzzzzz",
)
IN_CONTEXT = "in-context"
WITHOUT_ADAPTERS = ("base", IN_CONTEXT)
REFINE = "refine:"
ENSEMBLE = "ensemble:"
FROM_LIBRARY = ("oracle", "soup", "top-k", "lego", "lora-rar", "lorahub:5", "lorahub:16")
ROUTED = ("per-request", "dlp")  # each row has an adapter, or a sum of some, of its own
SHOTS = 3  # examples in the prompt of in-context, where no number stands behind it
_WITHOUT_SUFFIX = (*WITHOUT_ADAPTERS, *FROM_LIBRARY, *ROUTED)
DESCRIPTION_SUFFIXES = ("", "wrong-description", "gibberish", "paraphrase")


@dataclass(frozen=True)
class Method:
    """A name as it was typed, and its parts. `head` is what makes the answers."""

    name: str
    head: str
    suffix: str = ""

    @property
    def generates(self) -> bool:
        return self.head in strategy_names()

    @property
    def is_generator(self) -> bool:
        """Whether it needs a generator's checkpoint."""
        return self.head in registered()

    @property
    def examples(self) -> int:
        """Number of a task's train rows that it is trained on, or shown in the prompt."""
        return int(self.suffix) if self.suffix.isdecimal() else 0

    @property
    def samples(self) -> int:
        """Number of adapters drawn for a task, whose logits are averaged."""
        count = self.suffix.removeprefix(ENSEMBLE)
        return int(count) if count != self.suffix else 1

    @property
    def from_library(self) -> bool:
        return self.head in FROM_LIBRARY

    @property
    def takes_adapters(self) -> bool:
        """Whether it takes anything from a library."""
        return self.from_library or self.routed or takes_library(self.head)

    @property
    def routed(self) -> bool:
        return self.head in ROUTED


def parse_methods(text: str) -> list[Method]:
    """Parse `a,b:suffix`. Raises UnknownName, UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("no methods given")
    if len(set(names)) != len(names):
        raise UsageError("a method is named twice")
    return [_parse(name) for name in names]


def _parse(name: str) -> Method:
    if name in _WITHOUT_SUFFIX:
        return Method(name, name)
    in_full, (head, _, suffix) = name.startswith(REFINE), name.removeprefix(REFINE).partition(":")
    counted = suffix.isdecimal() and 0 < int(suffix) <= MAX_EXAMPLES
    if counted and name.startswith(f"{IN_CONTEXT}:"):
        return Method(name, head, suffix)
    swaps = suffix in DESCRIPTION_SUFFIXES and not name.endswith(":")
    count = suffix.removeprefix(ENSEMBLE)
    if head in strategy_names() and not in_full and count != suffix and count.isdecimal():
        require_samples(head, int(count))
        return Method(name, head, suffix)
    first = in_full and suffix == "0"  # of a curve over numbers of rows: the start itself
    known = counted or (head != Fresh.name and (first if in_full else swaps))
    if head not in strategy_names() or not known:
        more = [f"{DEFAULT_STRATEGY}:{s}" for s in ("5", *DESCRIPTION_SUFFIXES[1:])]
        more += [f"{REFINE}{Fresh.name}:5", f"icm-lora:{ENSEMBLE}4"]
        names = ", ".join([*_WITHOUT_SUFFIX, *strategy_names(), *more])
        raise UnknownName(f"unknown method '{name}'; known: {names}")
    return Method(name, head, "" if first else suffix)


def descriptions(
    suffix: str, tasks: Sequence[Task], splits: Sequence[str], seed: int
) -> tuple[list[str | None], list[list[str]]]:
    """The description that each task goes by, and the (task, source) pairs of a swap.

    None where there is no such description: a task without paraphrases, or one that is alone in
    its split. `wrong-description` is a seeded derangement within each split, by text too: a task
    never gets another's definition that equals its own. Raises UsageError if all are None.
    """
    if suffix not in DESCRIPTION_SUFFIXES[1:]:
        return [task.definition for task in tasks], []
    if suffix == "gibberish":
        return [GIBBERISH[i % len(GIBBERISH)] for i in range(len(tasks))], []
    if suffix == "paraphrase":
        paraphrases = [_paraphrase(task, seed) for task in tasks]
        if not any(paraphrases):
            raise UsageError("no task has paraphrases (descriptions*.jsonl.gz beside the tasks)")
        return paraphrases, []
    source = list(range(len(tasks)))
    for split in sorted(set(splits)):
        members = [i for i, s in enumerate(splits) if s == split]
        for i, j in zip(members, _derangement([tasks[i] for i in members], seed), strict=True):
            source[i] = members[j]
    swapped = [(i, j) for i, j in enumerate(source) if i != j]
    if not swapped:
        raise UsageError("wrong-description needs two tasks with different definitions in a split")
    texts: list[str | None] = [None] * len(tasks)
    for i, j in swapped:
        texts[i] = tasks[j].definition
    return texts, [[tasks[i].name, tasks[j].name] for i, j in swapped]


def _paraphrase(task: Task, seed: int) -> str | None:
    if not task.paraphrases:
        return None
    return random.Random(f"{seed}/{task.name}").choice(task.paraphrases)


def _derangement(tasks: Sequence[Task], seed: int) -> list[int]:
    """An order in which no definition is in its place; the given order if there is none."""
    n = len(tasks)
    rng = random.Random(seed)
    for _ in range(1000):
        order = list(range(n))
        rng.shuffle(order)
        if all(tasks[i].definition != tasks[order[i]].definition for i in range(n)):
            return order
    return list(range(n))


@dataclass(frozen=True)
class Asked:
    """What a method is asked for.

    Attributes:
        texts: a description for each task; None: none, and no adapter.
        mode: the prompt that the adapters are for.
        seed: of draws, and of the train rows that serve as examples, where 0 takes the first.
    """

    method: Method
    texts: Sequence[str | None]
    mode: UsageMode = "best"
    seed: int = 0


def proposals(
    engine: Engine, asked: Asked, base: BaseReference, tasks: Sequence[Task]
) -> list[Proposal | None]:
    """A strategy's adapters for tasks, trained on train rows where the method says how many.

    A task's own adapter is not retrieved. None where there is no text, or no row to train on; a
    refused description gets an adapter that changes nothing, as its user would have none.
    Raises TaskFileError for a text that cannot be a description, else as `Engine.propose` does.
    """
    # 1. What each task starts from.
    queries: dict[int, Query] = {}
    for index, (task, text) in enumerate(zip(tasks, asked.texts, strict=True)):
        rows = _examples(task, asked.method.examples, asked.seed)
        if text is None or (asked.method.examples and not rows):
            continue
        queries[index] = Query(_request(asked, text, rows), base, engine.resources, task.name)
    proposed: dict[int, Proposal] = {
        index: _started(engine, asked.method.head, query) for index, query in queries.items()
    }
    # 2. Those of one layout are trained together.
    if asked.method.examples:
        for layout in dict.fromkeys(p.adapter.layout.digest for p in proposed.values()):
            group = [i for i, p in proposed.items() if p.adapter.layout.digest == layout]
            refined = refined_proposals([queries[i] for i in group], [proposed[i] for i in group])
            proposed |= zip(group, refined, strict=True)
    return [proposed.get(index) for index in range(len(tasks))]


def _started(engine: Engine, name: str, query: Query) -> Proposal:
    """What a strategy proposes before any training; nothing changed where it refuses."""
    try:
        return engine.start(name, query)
    except NothingNear as refusal:
        strategy = engine.strategy(name)
        offer = strategy.offer(query.base)
        if offer is None:
            raise
        chosen = Chosen(name, str(refusal), query.neighbours)
        return Proposal(zeros(offer.layout), chosen, strategy.usage(query.request))


def _examples(task: Task, count: int, seed: int) -> tuple[Example, ...]:
    """Train rows: the first for seed 0, a sample for any other. One answer to an input."""
    by_input: dict[str, Example] = {}
    for row in task.train:
        if row.output.strip():
            by_input.setdefault(row.input, row)
    rows = list(by_input.values())
    if seed:
        random.Random(f"{seed}/{task.name}/examples").shuffle(rows)
    return tuple(rows[:count])


def _request(asked: Asked, text: str, rows: tuple[Example, ...]) -> Request:
    mode = asked.mode
    if asked.method.head == MultiTask.name and not rows and mode == "bare":
        mode = "prompted"  # its weights are the same, and bare prompts show what they lack
    try:
        return Request(text, seed=asked.seed, examples=rows, mode=mode)
    except InvalidDescription as error:
        raise TaskFileError(f"a task cannot be evaluated: {error}") from error
