"""Relabelling: a classification task under other label words, so that a generator has to read them.

Where the labels stand in the definition, they are swapped for others in definition and answers
alike ("Answer 'Yes' or 'No'" becomes "Answer 'maple' or 'drum'"). With the instruction missing from
the prompt, the description is then the only place to learn the words from; a few hundred tasks with
few different labels do not teach that on their own.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from library.tasks.files import Task

MAX_LABELS = 20
MIN_TASKS = 6  # a word has to occur in the rows of as many tasks to serve as a label
MAX_IN_INPUTS = 0.3  # above this share of inputs that hold a label, the labels are the input's
_OPEN, _CLOSE = "'\"`“‘([", "'\"`”’)]"
_ARTICLES = {"a", "A", "I"}  # words of the language, too: swapped only where they are quoted


@dataclass(frozen=True)
class Relabelling:
    """A definition with other labels, and what each answer becomes."""

    definition: str
    labels: Mapping[str, str]


def relabellings(tasks: Sequence[Task], count: int, seed: int) -> list[list[Relabelling]]:
    """`count` relabellings of each task; none of a task whose labels cannot be swapped.

    New labels are another task's, or words from the tasks' inputs. A task's relabellings are a
    function of the tasks and the seed. Authored tasks have none, and lend neither labels nor words.
    """
    lenders = [task for task in tasks if not task.authored]
    sets = dict.fromkeys(labels for labels in map(labels_of, lenders) if _short(labels))
    words = _words(lenders)
    results = []
    for task in tasks:
        rng, pattern = random.Random(f"{seed}/relabel/{task.name}"), _swappable(task)
        old = labels_of(task)
        lent = [new for new in (_free(labels, old) for labels in sets) if len(new) >= len(old)]
        fresh = _free(words, old)
        variants = []
        if pattern is not None and len(fresh) >= len(old):
            drawn = [_draw(rng, len(old), lent, fresh) for _ in range(count)]
            variants = [_swap(task, pattern, dict(zip(old, new, strict=True))) for new in drawn]
        results.append(variants)
    return results


def labels_of(task: Task) -> tuple[str, ...]:
    """The task's different answers, sorted; none if there are over 20 or fewer than two."""
    labels = tuple(sorted({row.outputs[0] for row in task.train}))
    return labels if 2 <= len(labels) <= MAX_LABELS and all(labels) else ()


def _swappable(task: Task) -> re.Pattern[str] | None:
    """The pattern of the labels in the definition; None unless every label stands there."""
    labels = labels_of(task)
    if not labels or task.authored:
        return None
    plain = _pattern(labels, r"(?<!\w)", r"(?!\w)")
    in_inputs = sum(bool(plain.search(row.input)) for row in task.train)
    if in_inputs > MAX_IN_INPUTS * len(task.train):
        return None
    quoted = _pattern(labels, f"(?<=[{re.escape(_OPEN)}])", rf"(?=[.,]?[{re.escape(_CLOSE)}])")
    if set(quoted.findall(task.definition)) == set(labels):
        return quoted
    if set(plain.findall(task.definition)) == set(labels) and not _ARTICLES & set(labels):
        return plain
    return None


def _pattern(labels: Sequence[str], before: str, after: str) -> re.Pattern[str]:
    longest_first = sorted(labels, key=lambda label: (-len(label), label))
    return re.compile(f"{before}(?:{'|'.join(map(re.escape, longest_first))}){after}")


def _free(labels: Sequence[str], old: Sequence[str]) -> list[str]:
    """The labels that are none of the old ones, whatever their case."""
    avoid = {label.casefold() for label in old}
    return [label for label in labels if label.casefold() not in avoid]


def _draw(
    rng: random.Random, n: int, lent: Sequence[Sequence[str]], words: Sequence[str]
) -> list[str]:
    """n new labels: of another task or, half of the time, words.

    Words are in lower case: many encoders do not see case, so a generator could not follow it.
    """
    source = rng.choice(lent) if lent and rng.random() < 0.5 else words
    return rng.sample(source, n)


def _swap(task: Task, pattern: re.Pattern[str], labels: Mapping[str, str]) -> Relabelling:
    return Relabelling(pattern.sub(lambda match: labels[match.group()], task.definition), labels)


def _short(labels: Sequence[str]) -> bool:
    return bool(labels) and max(map(len, labels)) <= 24


def _words(tasks: Sequence[Task]) -> list[str]:
    """Lower-case words of 3 to 10 letters that the inputs of several tasks hold, sorted."""
    holders: Counter[str] = Counter()
    for task in tasks:
        text = " ".join(row.input for row in task.train)
        holders.update(set(re.findall(r"\b[a-z]{3,10}\b", text)))
    return sorted(word for word, count in holders.items() if count >= MIN_TASKS)
