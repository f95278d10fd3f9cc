"""What can be evaluated: the base alone, or a generator given one of four kinds of description.

A method turns tasks into adapters (or none). The suffix after the colon swaps the description, and
with it tests whether the adapter listens to it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from generator.generate import GENERATORS, Generator
from index.encoder import InvalidDescription, normalise
from library.adapter import Adapter, stack
from library.errors import TaskFileError, UnknownName, UsageError
from library.tasks import Task

GIBBERISH = (
    "dax wug blicket toma fep zib gorp",
    "qwzx plmk vbnt hjgf rtyu cdsx",
    "lamp seventeen yonder spoon glacier of if",
    "%% 0x7f :: ~~ [[]] // ;; @@",
    "nnnnnnnn oooooo kkkkkk aaaa zzzzzzzzz",
)
SUFFIXES = ("", "wrong-description", "gibberish", "paraphrase")


@dataclass(frozen=True)
class Method:
    """A name as it was typed, and its parts."""

    name: str
    generator: str | None
    suffix: str


def parse_methods(text: str) -> list[Method]:
    """Parse `a,b:suffix`. Raises UnknownName, UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("no methods given")
    if len(set(names)) != len(names):
        raise UsageError("a method is named twice")
    return [_parse(name) for name in names]


def _parse(name: str) -> Method:
    head, _, suffix = name.partition(":")
    if head == "base" and not suffix and ":" not in name:
        return Method(name, None, "")
    if head not in GENERATORS or suffix not in SUFFIXES or name.endswith(":"):
        known = ", ".join(["base", *GENERATORS, *(f"{GENERATORS[0]}:{s}" for s in SUFFIXES[1:])])
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


def adapters_for(generator: Generator, texts: Sequence[str]) -> Adapter:
    """Adapters as they would leave the system: generated in float64, stored as bfloat16.

    Raises TaskFileError for a task's text that cannot be a description.
    """
    try:
        given = [normalise(text) for text in texts]
    except InvalidDescription as error:
        raise TaskFileError(f"a task cannot be evaluated: {error}") from error
    return stack([generator.adapters([text]).to("cpu", torch.bfloat16) for text in given])
