"""Second steps: what is to be done with the label that a text was given, or in its place."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.synthetic.pools import TopicPool
from training.synthetic.properties import drawn_property
from training.synthetic.sorting import Sorting

Answer = Callable[[int, str], str]  # of a topic's number in the pool and a text


@dataclass(frozen=True)
class Step:
    """A second step.

    Attributes:
        note: its rule.
        form: how the answer is to look.
        answer: of both steps.
        labels: all answers; none where they are too many to list.
    """

    note: str
    form: str
    answer: Answer
    labels: Sequence[str]


_PARTS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("the first word, with any punctuation", lambda text: text.split()[0]),
    ("the last word, with any punctuation", lambda text: text.split()[-1]),
    ("the first two words, with any punctuation", lambda text: " ".join(text.split()[:2])),
    ("the number of words", lambda text: str(len(text.split()))),
    ("a copy", str),
)
_MARKS = (
    ("yes", "no"), ("1", "0"), ("x", "o"), ("long", "short"), ("up", "down"), ("!", "."),
    ("now", "later"), ("hot", "cold"), ("left", "right"), ("A", "Z"), ("high", "low"),
)  # fmt: skip


def drawn_step(rng: random.Random, pool: TopicPool, sorting: Sorting) -> Step:
    """One of these steps, after a sorting."""
    return rng.choice((_copied, _marked, _cased, _counted))(rng, pool, sorting)


def _copied(rng: random.Random, pool: TopicPool, sorting: Sorting) -> Step:
    """A part of the text instead of one of the labels."""
    place = rng.randrange(len(sorting.words))
    word, members = sorting.words[place], sorting.groups[place].members
    says, part = rng.choice(_PARTS)
    note = f"where the answer would be {word}, write {says} of the {pool.thing} instead"
    form = "write that alone, or else just the label"
    return Step(
        note, form, lambda index, text: part(text) if index in members else sorting.word(index), ()
    )


def _marked(rng: random.Random, pool: TopicPool, sorting: Sorting) -> Step:
    """A mark after the label that depends on the text."""
    drawn, link = drawn_property(rng, pool.texts), rng.choice((" / ", ", ", " + ", ";", "-", " "))
    a, b = rng.choice(_MARKS)
    note = (
        f'put {json.dumps(link)} and then "{a}" after the label if the {pool.thing} {drawn.says}, '
        f'and {json.dumps(link)} and then "{b}" if not'
    )
    labels = [f"{word}{link}{mark}" for word in sorting.words for mark in (a, b)]
    form = f"answer in this form: {labels[-1]}"
    return Step(
        note,
        form,
        lambda index, text: f"{sorting.word(index)}{link}{a if drawn.holds(text) else b}",
        labels,
    )


def _cased(rng: random.Random, pool: TopicPool, sorting: Sorting) -> Step:
    """The label in capital or small letters; a mark instead where it has none of these."""
    if any(word.lower() == word.upper() for word in sorting.words):
        return _marked(rng, pool, sorting)
    drawn = drawn_property(rng, pool.texts)
    note = f"write the label in capitals if the {pool.thing} {drawn.says}, in small letters if not"
    labels = [case(word) for word in sorting.words for case in (str.upper, str.lower)]
    return Step(
        note,
        "write the label only",
        lambda i, text: (str.upper if drawn.holds(text) else str.lower)(sorting.word(i)),
        labels,
    )


def _counted(rng: random.Random, pool: TopicPool, sorting: Sorting) -> Step:
    """The label with the number of words."""
    style = rng.choice(("{} ({})", "{}: {}", "{} {}", "{}/{}", "{1} {0}", "{1}, {0}", "[{}] {}"))
    count = "counting what is separated by spaces"
    note = f"give the number of words of the {pool.thing} as well, {count}"
    form = f"answer in this form: {style.format(sorting.words[0], 7)}, where 7 is the number"
    return Step(note, form, lambda i, text: style.format(sorting.word(i), len(text.split())), ())
