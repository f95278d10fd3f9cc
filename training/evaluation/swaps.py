"""Swapped descriptions and examples, which test whether an adapter listens to them."""

import random
from collections.abc import Sequence

from library.errors import UsageError
from library.tasks.files import Task

GIBBERISH = (
    "dax wug blicket toma fep zib gorp",
    "qwzx plmk vbnt hjgf rtyu cdsx",
    "lamp seventeen yonder spoon glacier of if",
    "%% 0x7f :: ~~ [[]] // ;; @@",
    "nnnnnnnn oooooo kkkkkk aaaa zzzzzzzzz",
)
NO_DESCRIPTION, WRONG_EXAMPLES = "no-description", "wrong-examples"
DESCRIPTION_SWAPS = ("wrong-description", "gibberish", "paraphrase")
EXAMPLES_SWAPS = (NO_DESCRIPTION, WRONG_EXAMPLES)  # where there are examples


def descriptions(
    suffix: str, tasks: Sequence[Task], splits: Sequence[str], seed: int
) -> tuple[list[str | None], list[list[str]]]:
    """The description that each task goes by, and the (task, source) pairs of a swap.

    None where there is no such description: a task without paraphrases, one that is alone in its
    split, or each where there shall be none. Raises UsageError if there is nothing to swap or no
    paraphrase.
    """
    if suffix in ("", WRONG_EXAMPLES):
        return [task.definition for task in tasks], []
    if suffix == NO_DESCRIPTION:
        return [None] * len(tasks), []
    if suffix == "gibberish":
        return [GIBBERISH[i % len(GIBBERISH)] for i in range(len(tasks))], []
    if suffix == "paraphrase":
        paraphrases = [_paraphrase(task, seed) for task in tasks]
        if not any(paraphrases):
            raise UsageError("no task has paraphrases (descriptions*.jsonl.gz beside the tasks)")
        return paraphrases, []
    others = other_tasks(suffix, tasks, splits, seed)
    texts = [None if j is None else tasks[j].definition for j in others]
    return texts, swapped_names(tasks, others)


def other_tasks(
    suffix: str, tasks: Sequence[Task], splits: Sequence[str], seed: int
) -> list[int | None]:
    """The index of the task that each one takes something from; None if it is alone in its split.

    A seeded derangement within each split, by text too: nothing comes from a task whose definition
    is the same. Raises UsageError if all are alone.
    """
    source = list(range(len(tasks)))
    for split in sorted(set(splits)):
        members = [i for i, s in enumerate(splits) if s == split]
        for i, j in zip(members, _derangement([tasks[i] for i in members], seed), strict=True):
            source[i] = members[j]
    others = [None if i == j else j for i, j in enumerate(source)]
    if not any(j is not None for j in others):
        raise UsageError(f"{suffix} needs two tasks with different definitions in a split")
    return others


def swapped_names(tasks: Sequence[Task], others: Sequence[int | None]) -> list[list[str]]:
    """(task, source) of a swap."""
    return [[t.name, tasks[j].name] for t, j in zip(tasks, others, strict=True) if j is not None]


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
