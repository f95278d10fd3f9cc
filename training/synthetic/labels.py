"""Words for answers: names, codes, letters, numbers, words that mean nothing by themselves."""

import random
import string
from collections.abc import Callable, Sequence

from training.synthetic.banks import plain

LONGEST = 3  # words of a label
_WORDS = (
    "amber", "cobalt", "crimson", "ivory", "olive", "teal", "violet", "ochre", "indigo",
    "scarlet", "maple", "birch", "cedar", "willow", "acorn", "fern", "thistle", "clover",
    "otter", "heron", "badger", "lynx", "falcon", "beaver", "raven", "salmon", "anchor",
    "lantern", "kettle", "ladder", "saddle", "drum", "fiddle", "button", "candle", "pebble",
    "canyon", "harbour", "meadow", "glacier", "comet", "orbit", "nova", "zenith", "alpha",
    "delta", "sigma", "omega", "north", "east", "tango", "echo", "zulu", "quartz", "copper",
    "flint", "velvet", "linen", "cactus", "mango", "pepper", "ginger", "walnut", "pretzel",
    "waffle", "domino", "rocket", "paddle", "tunnel",
)  # fmt: skip
_PHRASES = (
    "team {}", "desk {}", "queue {}", "send to {}", "group {}", "box {}", "line {}", "go {}",
    "level {}", "{} list", "{} team", "the {} one", "hand to {}", "shelf {}", "{} first",
)  # fmt: skip
_CASES: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper, str.title)
_NAME_CASES: tuple[Callable[[str], str], ...] = (
    *_CASES,
    str.lower,
    lambda name: name.lower().replace(" ", "_"),
    lambda name: name.lower().replace(" ", "-"),
    lambda name: name.upper().replace(" ", "_"),
    lambda name: name.title().replace(" ", ""),
    lambda name: "#" + name.lower().replace(" ", ""),
)
OTHERS = (
    "other", "none", "none of these", "something else", "n/a", "misc", "unknown", "OTHER", "rest",
    "not listed", "no match", "?", "-", "Other", "everything else",
)  # fmt: skip


def spoken(names: Sequence[str]) -> list[str]:
    """The names that are short enough for a label."""
    return [name for name in names if len(name.split()) <= LONGEST]


def names_as_labels(rng: random.Random, groups: Sequence[Sequence[str]]) -> list[str]:
    """One of each group's names, all in one case; empty where a group has none or two are alike."""
    choices = [spoken(names) for names in groups]
    if not all(choices):
        return []
    case = rng.choice(_NAME_CASES)
    words = [case(rng.choice(names)) for names in choices]
    return words if len({plain(word) for word in words}) == len(words) else []


def arbitrary_labels(rng: random.Random, n: int) -> list[str]:
    """n different labels that have to be explained; no two differ in case alone."""
    scheme = rng.choices((_codes, _letters, _numbers, _plain_words, _phrases), (4, 2, 2, 4, 3))[0]
    return scheme(rng, n)


def another_label(rng: random.Random, taken: Sequence[str]) -> str:
    """A label that has to be explained and is none of those taken, whatever the case."""
    known = {plain(word) for word in taken}
    drawn = iter(lambda: arbitrary_labels(rng, 1)[0], "")
    return next(word for word in drawn if plain(word) not in known)


def _codes(rng: random.Random, n: int) -> list[str]:
    width, prefix = rng.choice((1, 2, 3)), rng.choice(("", "", "#", "no. "))
    link = rng.choice(("", "-", "_", "."))
    letters = ["".join(rng.choices(string.ascii_uppercase, k=rng.choice((1, 2, 3))))] * n
    if rng.random() < 0.5:
        letters = ["".join(rng.choices(string.ascii_uppercase, k=2)) for _ in range(n)]
    numbers = rng.sample(range(1, 10**width), n)
    case = rng.choice((str, str, str.lower))
    return [
        case(f"{prefix}{a}{link}{number:0{width}d}")
        for a, number in zip(letters, numbers, strict=True)
    ]


def _letters(rng: random.Random, n: int) -> list[str]:
    letters = rng.choice((string.ascii_uppercase, string.ascii_lowercase))
    style = rng.choice(("{}", "{}", "({})", "{})"))
    chosen = letters[:n] if rng.random() < 0.5 else rng.sample(letters, n)
    return [style.format(letter) for letter in chosen]


def _numbers(rng: random.Random, n: int) -> list[str]:
    first = rng.choice((0, 1, 1))
    chosen = range(first, first + n) if rng.random() < 0.6 else rng.sample(range(1000), n)
    return [str(number) for number in chosen]


def _plain_words(rng: random.Random, n: int) -> list[str]:
    case = rng.choice(_CASES)
    return [case(word) for word in rng.sample(_WORDS, n)]


def _phrases(rng: random.Random, n: int) -> list[str]:
    """Two or three words: one phrase for all, or one for each."""
    case, same = rng.choice(_CASES), rng.choice(_PHRASES)
    phrases = [same] * n if rng.random() < 0.5 else rng.choices(_PHRASES, k=n)
    words = rng.choice((rng.sample(_WORDS, n), rng.sample(_WORDS, n), _letters(rng, n)))
    return [case(p.format(word)) for p, word in zip(phrases, words, strict=True)]
