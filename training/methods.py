"""What can be evaluated: the base, alone or with examples, a library's adapters, a generator.

A method turns tasks into adapters (or none). A generator's suffix after the colon swaps the
description, and with it tests whether the adapter listens to it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from generator.generate import GENERATORS, Generator
from index.encoder import InvalidDescription, normalise
from library.adapter import Adapter
from library.errors import TaskFileError, UnknownName, UsageError
from library.tasks import Task

GIBBERISH = (
    "dax wug blicket toma fep zib gorp",
    "qwzx plmk vbnt hjgf rtyu cdsx",
    "lamp seventeen yonder spoon glacier of if",
    "%% 0x7f :: ~~ [[]] // ;; @@",
    "nnnnnnnn oooooo kkkkkk aaaa zzzzzzzzz",
)
PLAIN = ("base", "in-context")
MULTI_TASK = "multi-task"
FROM_LIBRARY = (
    "oracle", "soup", "nearest", "top-k", "lego", "lora-rar", "lorahub:5", "lorahub:16",
)  # fmt: skip
SUFFIXES = ("", "wrong-description", "gibberish", "paraphrase")


@dataclass(frozen=True)
class Method:
    """A name as it was typed, and its parts. `head` is what makes the answers."""

    name: str
    head: str
    suffix: str = ""

    @property
    def generates(self) -> bool:
        return self.head in GENERATORS

    @property
    def from_library(self) -> bool:
        return self.head in FROM_LIBRARY


def parse_methods(text: str) -> list[Method]:
    """Parse `a,b:suffix`. Raises UnknownName, UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("no methods given")
    if len(set(names)) != len(names):
        raise UsageError("a method is named twice")
    return [_parse(name) for name in names]


def _parse(name: str) -> Method:
    if name in (*PLAIN, MULTI_TASK, *FROM_LIBRARY):
        return Method(name, name)
    head, _, suffix = name.partition(":")
    if head not in GENERATORS or suffix not in SUFFIXES or name.endswith(":"):
        swapped = (f"{GENERATORS[0]}:{s}" for s in SUFFIXES[1:])
        known = ", ".join([*PLAIN, MULTI_TASK, *FROM_LIBRARY, *GENERATORS, *swapped])
        raise UnknownName(f"unknown method '{name}'; known: {known}")
    return Method(name, head, suffix)


def descriptions(
    suffix: str, tasks: Sequence[Task], splits: Sequence[str], seed: int
) -> tuple[list[str | None], list[list[str]]]:
    """The description that each task goes by, and the (task, source) pairs of a swap.

    None where there is no such description: a task without paraphrases, or one that is alone in
    its split. `wrong-description` is a seeded derangement within each split, by text too: a task
    never gets another's definition that equals its own. Raises UsageError if all are None.
    """
    if suffix == "":
        return [task.definition for task in tasks], []
    if suffix == "gibberish":
        return [GIBBERISH[i % len(GIBBERISH)] for i in range(len(tasks))], []
    if suffix == "paraphrase":
        given = [_paraphrase(task, seed) for task in tasks]
        if not any(given):
            raise UsageError("no task has paraphrases (descriptions*.jsonl.gz beside the tasks)")
        return given, []
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


def generated(generator: Generator, texts: Sequence[str | None]) -> list[Adapter | None]:
    """An adapter for each description; None where there is none.

    Raises TaskFileError for a task's text that cannot be a description.
    """
    made: dict[str, Adapter] = {}
    for text in dict.fromkeys(text for text in texts if text is not None):
        try:
            made[text] = generator.adapters([normalise(text)])
        except InvalidDescription as error:
            raise TaskFileError(f"a task cannot be evaluated: {error}") from error
    return [made[text] if text is not None else None for text in texts]
