"""Properties of a text that a program can check, said in words."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

_COMMON = ("the", "to", "my", "is", "for", "and", "in", "on", "of", "a", "please", "not", "from")

_DIGIT = re.compile("[0-9]")


@dataclass(frozen=True)
class Property:
    """What can be true of a text.

    Attributes:
        says: what the text does, after "the message": "ends with a question mark".
        holds: whether it is true of a text.
    """

    says: str
    holds: Callable[[str], bool]


def drawn_property(rng: random.Random, texts: Sequence[str], seldom: float = 0.1) -> Property:
    """A property that is true of some texts, and false of some: each of at least a share of them.

    Args:
        texts: two or more.
        seldom: that share; where no property has it, the number of words decides.
    """
    for _ in range(20):
        drawn = rng.choice(_KINDS)(rng)
        share = sum(map(drawn.holds, texts)) / len(texts)
        if seldom <= share <= 1 - seldom:
            return drawn
    return _longer(median_low(len(text.split()) for text in texts))


def _longer(limit: int) -> Property:
    words = "word" if limit == 1 else "words"
    return Property(f"has more than {limit} {words}", lambda text: len(text.split()) > limit)


def _shorter(limit: int) -> Property:
    return Property(f"has fewer than {limit} words", lambda text: len(text.split()) < limit)


def _ending(rng: random.Random) -> Property:
    name, mark = rng.choice((("question mark", "?"), ("full stop", "."), ("question mark", "?")))
    return Property(f"ends with a {name}", lambda text: text.endswith(mark))


def _holding(rng: random.Random) -> Property:
    name, mark = rng.choice((("comma", ","), ("question mark", "?"), ("apostrophe", "'")))
    article = "an" if name[0] in "aeiou" else "a"
    return Property(f"contains {article} {name}", lambda text: mark in text)


def _word(rng: random.Random) -> Property:
    word = rng.choice(_COMMON)
    pattern = re.compile(rf"(?<!\w){word}(?!\w)", re.IGNORECASE)
    says = f'contains the word "{word}", in capital or small letters'
    return Property(says, lambda text: bool(pattern.search(text)))


def _capital(_: random.Random) -> Property:
    return Property("begins with a capital letter", lambda text: text[:1].isupper())


def _digit(_: random.Random) -> Property:
    return Property("contains a digit", lambda text: bool(_DIGIT.search(text)))


_KINDS: tuple[Callable[[random.Random], Property], ...] = (
    _ending,
    _holding,
    _word,
    _capital,
    _digit,
    lambda rng: _longer(rng.randint(5, 12)),
    lambda rng: _shorter(rng.randint(5, 12)),
)
