"""Second steps: what is to be done with the answer that a text was given, or in its place."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from training.synthetic.answer_forms import PARTS
from training.synthetic.banks import plain
from training.synthetic.labels import OTHERS, another_label
from training.synthetic.properties import drawn_property

Answer = Callable[[str, str], str]  # of a text and its first answer


@dataclass(frozen=True)
class FirstStep:
    """What a second step follows.

    Attributes:
        thing: what an input is called, such as "message".
        what: what an answer is called: "label" or "answer".
        texts: inputs, two or more.
        words: all answers, where they are labels.
    """

    thing: str
    what: str
    texts: Sequence[str]
    words: Sequence[str] = ()

    @property
    def long(self) -> bool:
        """Whether the texts are too long to be counted or copied."""
        return fmean(len(text.split()) for text in self.texts) > MAX_WORDS

    @property
    def shown(self) -> str:
        """An answer to be shown in a form."""
        return self.words[-1] if self.words else f"<{self.what}>"


@dataclass(frozen=True)
class Step:
    """A second step.

    Attributes:
        note: its rule, an imperative in lower case without a full stop.
        form: how the answer is to look, written as the note is.
        answer: of both steps.
        labels: all answers; none where they are too many to list.
    """

    note: str
    form: str
    answer: Answer
    labels: Sequence[str] = ()


MAX_WORDS = 25  # of a text that is counted or copied, on average
_MARKS = (
    ("yes", "no"), ("1", "0"), ("x", "o"), ("long", "short"), ("up", "down"), ("!", "."),
    ("now", "later"), ("hot", "cold"), ("left", "right"), ("A", "Z"), ("high", "low"),
)  # fmt: skip
_ALONE = ("write nothing else", "no explanation", "nothing beyond that", "add nothing to it")
_SIGNS = ("#", "!", "*", ">> ", "[x] ", "!!! ", "~", "@", "CHECK ", "flag: ", "? ", "+ ", "1) ")


def drawn_step(rng: random.Random, first: FirstStep) -> Step:
    """One of these steps; what needs labels or short texts, only where there are some."""
    kinds = [_marked, _replaced, _signed]
    kinds += [] if first.long else [_counted]
    kinds += [_copied, _cased, _renamed] if first.words else []
    return rng.choice(kinds)(rng, first)


def _copied(rng: random.Random, first: FirstStep) -> Step:
    """A part of the text instead of one of the labels."""
    parts = PARTS[:-1] if first.long else (*PARTS, ("a copy", str))
    word, (says, part) = rng.choice(first.words), rng.choice(parts)
    note = f"where the answer would be {word}, write {says} of the {first.thing} instead"
    form = f"write that alone, or else just the {first.what}"
    return Step(note, form, lambda text, label: part(text) if label == word else label)


def _marked(rng: random.Random, first: FirstStep) -> Step:
    """A mark after the label that depends on the text."""
    drawn, link = drawn_property(rng, first.texts), rng.choice((" / ", ", ", " + ", ";", "-", " "))
    a, b = rng.choice(_MARKS)
    note = (
        f'put {json.dumps(link)} and then "{a}" after the {first.what} if the {first.thing} '
        f'{drawn.says}, and {json.dumps(link)} and then "{b}" if not'
    )
    labels = [f"{word}{link}{mark}" for word in first.words for mark in (a, b)]
    form = f"answer in this form: {first.shown}{link}{b}"
    return Step(
        note, form, lambda text, label: f"{label}{link}{a if drawn.holds(text) else b}", labels
    )


def _cased(rng: random.Random, first: FirstStep) -> Step:
    """The label in capital or small letters; a mark instead where it has none of these."""
    if any(word.lower() == word.upper() for word in first.words):
        return _marked(rng, first)
    drawn = drawn_property(rng, first.texts)
    note = (
        f"write the {first.what} in capitals if the {first.thing} {drawn.says}, "
        "in small letters if not"
    )
    labels = [case(word) for word in first.words for case in (str.upper, str.lower)]
    return Step(
        note,
        f"write the {first.what} only",
        lambda text, label: label.upper() if drawn.holds(text) else label.lower(),
        labels,
    )


def _counted(rng: random.Random, first: FirstStep) -> Step:
    """The label with the number of words."""
    style = rng.choice(("{} ({})", "{}: {}", "{} {}", "{}/{}", "{1} {0}", "{1}, {0}", "[{}] {}"))
    note = (
        f"give the number of words of the {first.thing} as well, counting what is separated by "
        "spaces"
    )
    form = f"answer in this form: {style.format(first.shown, 7)}, where 7 is the number"
    return Step(note, form, lambda text, label: style.format(label, len(text.split())))


def _replaced(rng: random.Random, first: FirstStep) -> Step:
    """Another word instead of any answer where the text has a property."""
    drawn, taken = drawn_property(rng, first.texts), {plain(word) for word in first.words}
    usual = [word for word in OTHERS if plain(word) not in taken]
    word = rng.choice(usual) if rng.random() < 0.5 else another_label(rng, first.words)
    says = (
        f'if the {first.thing} {drawn.says}, answer "{word}" instead',
        f'say "{word}" whenever the {first.thing} {drawn.says}, whatever else holds',
        f'when the {first.thing} {drawn.says}, do not give the {first.what} but "{word}"',
        f'answer "{word}" and nothing else if the {first.thing} {drawn.says}',
    )
    labels = (*first.words, word) if first.words else ()
    return Step(
        rng.choice(says),
        rng.choice(_ALONE),
        lambda text, label: word if drawn.holds(text) else label,
        labels,
    )


def _signed(rng: random.Random, first: FirstStep) -> Step:
    """A sign before the answer where the text has a property."""
    drawn, sign = drawn_property(rng, first.texts), rng.choice(_SIGNS)
    says = (
        f'if the {first.thing} {drawn.says}, put {json.dumps(sign)} before the {first.what}',
        f'begin the reply with {json.dumps(sign)} when the {first.thing} {drawn.says}, '
        f"otherwise with the {first.what} itself",
        f'the {first.what} gets {json.dumps(sign)} in front of it where the {first.thing} '
        f"{drawn.says}",
    )  # fmt: skip
    labels = [front + word for word in first.words for front in ("", sign)]
    return Step(
        rng.choice(says),
        rng.choice(_ALONE),
        lambda text, label: sign + label if drawn.holds(text) else label,
        labels,
    )


def _renamed(rng: random.Random, first: FirstStep) -> Step:
    """Another word for one of the labels."""
    old, new = rng.choice(first.words), another_label(rng, first.words)
    says = (
        f'where the answer would be {old}, write "{new}" instead',
        f'we call it "{new}" now, not {old}, so answer with the new word',
        f'use "{new}" in place of {old}',
    )
    labels = [new if word == old else word for word in first.words]
    return Step(
        rng.choice(says),
        rng.choice(_ALONE),
        lambda _, label: new if label == old else label,
        labels,
    )
