"""Variants of real tasks: the same rows under other rules, so that a description has to be read.

A variant adds a condition, a form of the answer or a step after it, or turns the task around. Its
description says so beside what the task is; its answers follow from the row's.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from library.tasks.files import Example, Task
from training.data.relabel import labels_of
from training.synthetic.answer_forms import drawn_form, drawn_making
from training.synthetic.second_steps import FirstStep, drawn_step
from training.synthetic.templates import CHANGED
from training.synthetic.wordings import changed, turned_round

TURNED_SHARE = 0.25  # of the variants of a task that can be turned around
FORM_SHARE = 0.25  # of the others, with another form of the answer alone
MAKING_SHARE = 0.3  # of the rest, with something made of the answer; then come second steps
SECOND_SHARE = 0.25  # of those without a form, with one as well
MAX_WORDS = 25  # of an input that is to be found from its answer, on average
MIN_COVERED = 0.9  # share of its letters that the answer holds; or both are names or numbers
NAME_WORDS = 3
LOOKED_AT = 50  # rows that say whether a rule makes a difference
SHOWN = 40  # characters of an answer that a description shows


@dataclass(frozen=True)
class TaskVariant:
    """How a task is changed; by itself, not at all.

    Attributes:
        notes: further rules, imperatives in lower case without a full stop.
        answer: of an input and its first answer.
        turned: the answer is the input, and the input what is to be said.
    """

    notes: tuple[str, ...] = ()
    answer: Callable[[str, str], str] = lambda _, answer: answer
    turned: bool = False

    def described(self, text: str, rng: random.Random) -> str:
        """A complete description, from one of the task itself."""
        text = turned_round(text, rng) if self.turned else text
        return changed(rng.choice(CHANGED), text, self.notes) if self.notes else text

    def row(self, row: Example) -> Example:
        """A row of the task as one of the variant, with one answer."""
        given, said = (row.output, row.input) if self.turned else (row.input, row.output)
        return Example(row.id, given, (self.answer(given, said),))


class Variants:
    """Draws variants of a task; what they depend on is looked at once.

    Args:
        task: with train rows.
    """

    def __init__(self, task: Task) -> None:
        self.rows, labels = task.train, labels_of(task)
        self.labelled = bool(labels) and max(map(len, labels)) <= SHOWN

    def drawn(self, rng: random.Random, rows: Sequence[Example], turns: bool = True) -> TaskVariant:
        """A variant.

        Args:
            rng: of all that is drawn.
            rows: the task's train rows as they are worded, that is, with their labels swapped.
            turns: whether it may be turned around.
        """
        if turns and self.invertible and rng.random() < TURNED_SHARE:
            variant = TaskVariant(turned=True)
        elif rng.random() < FORM_SHARE:
            return _in_a_form(rng, TaskVariant(), rows)
        else:
            variant = self._longer(rng, rows)
        return _in_a_form(rng, variant, rows) if rng.random() < SECOND_SHARE else variant

    def _longer(self, rng: random.Random, rows: Sequence[Example]) -> TaskVariant:
        """With something to do after the task."""
        made = rng.random() < MAKING_SHARE
        making = drawn_making(rng, [row.output for row in rows[:LOOKED_AT]]) if made else None
        if making:
            return TaskVariant((making.says,), lambda _, answer: making.style(answer))
        words = tuple(dict.fromkeys(row.output for row in rows)) if self.labelled else ()
        texts = [row.input for row in rows[:LOOKED_AT]]
        step = drawn_step(rng, FirstStep("input", "label" if words else "answer", texts, words))
        return TaskVariant((step.note, step.form), step.answer)

    @cached_property
    def invertible(self) -> bool:
        """Whether an input can be told from its answer: both are all different, and say the same.

        That is, the answers hold nearly all letters of the inputs, or both are short and none is
        a part of the other, as with countries and their capitals.
        """
        inputs, outputs = [r.input for r in self.rows], [r.output for r in self.rows]
        if min(len({*inputs}), len({*outputs})) < len(self.rows) or _words(inputs) > MAX_WORDS:
            return False
        if max(_words(inputs), _words(outputs)) <= NAME_WORDS:
            return not any(b in a for a, b in zip(inputs, outputs, strict=True))
        frame = set.intersection(*({*text.split()} for text in inputs))  # such as "Sentence:"
        covered = [
            _covered(" ".join(w for w in a.split() if w not in frame), b)
            for a, b in zip(inputs, outputs, strict=True)
        ]
        return fmean(covered) >= MIN_COVERED


def _in_a_form(rng: random.Random, variant: TaskVariant, rows: Sequence[Example]) -> TaskVariant:
    """The variant with its answers in a form, which comes last."""
    answers = (variant.row(row).output for row in rows[:20])
    form = drawn_form(rng, _shown(answers))
    note = f"finally, {form.says}" if variant.notes else form.says
    return replace(
        variant,
        notes=(*variant.notes, note),
        answer=lambda given, said: form.style(variant.answer(given, said)),
    )


def _shown(answers: Iterable[str]) -> list[str]:
    """Those that a description may show, or a word in their place."""
    return [answer for answer in answers if 0 < len(answer) <= SHOWN] or ["<answer>"]


def _words(texts: Sequence[str]) -> float:
    return fmean(len(text.split()) for text in texts)


def _covered(text: str, by: str) -> float:
    """Share of a text's letters and digits that another holds, as often."""
    signs, others = (Counter(re.findall(r"\w", each.casefold())) for each in (text, by))
    return (signs & others).total() / max(1, signs.total())
