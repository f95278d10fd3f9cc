"""Families that judge a word by rules about its letters."""

import random
from collections.abc import Callable

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import balanced_word, two_labels
from training.synthetic.variant import Variant

Test = Callable[[str], bool]


def _rules(rng: random.Random) -> tuple[tuple[str, Test], tuple[str, Test]]:
    """Two rules about a word that each hold for about half of all words."""
    letter, other = rng.sample("aeiorstnl", 2)
    n, half = rng.randint(6, 7), rng.choice("jklmnop")
    rules: list[tuple[str, Test]] = [
        (f'contains the letter "{letter}"', lambda w: letter in w),
        (f'does not contain the letter "{other}"', lambda w: other not in w),
        (f"has more than {n} letters", lambda w: len(w) > n),
        (f"has fewer than {n} letters", lambda w: len(w) < n),
        (f'begins with a letter before "{half}" in the alphabet', lambda w: w[0] < half),
        (f'begins with a letter after "{half}" in the alphabet', lambda w: w[0] > half),
        ("ends with a, e, i, o or u", lambda w: w[-1] in "aeiou"),
        ("does not end with a, e, i, o or u", lambda w: w[-1] not in "aeiou"),
    ]
    first, second = rng.sample(range(4), 2)
    return rules[2 * first + rng.randrange(2)], rules[2 * second + rng.randrange(2)]


def word_rule(rng: random.Random) -> Variant:
    """Whether one rule holds for a word."""
    (rule, test), _ = _rules(rng)
    yes, no = two_labels(rng)

    def row(r: random.Random) -> tuple[str, str]:
        word = balanced_word(r, test)
        return word, yes if test(word) else no

    do = f'answer "{yes}" if the word {rule}, and "{no}" otherwise'
    phrases = Phrases("a word in lower case", do, f"{yes} if the word {rule}, else {no}")
    return build("word_rule", (rule, yes, no), phrases, row, (yes, no))


def two_rules(rng: random.Random) -> Variant:
    """Whether both, one, just one or none of two rules hold for a word."""
    (rule, test), (other, check) = _rules(rng)
    joins: dict[str, Callable[[int], bool]] = {
        "both statements are": lambda n: n == 2, "at least one statement is": lambda n: n > 0,
        "exactly one statement is": lambda n: n == 1, "neither statement is": lambda n: n == 0,
    }  # fmt: skip
    join, (yes, no) = rng.choice(tuple(joins)), two_labels(rng)

    def holds(word: str) -> bool:
        return joins[join](test(word) + check(word))

    def row(r: random.Random) -> tuple[str, str]:
        word = balanced_word(r, holds)
        return word, yes if holds(word) else no

    do = f'answer "{yes}" if {join} true of the word, and "{no}" otherwise'
    notes = (f"Statement 1: it {rule}.", f"Statement 2: it {other}.")
    terse = f"(1) word {rule} (2) word {other}. {join} true -> {yes}, else {no}"
    return build("two_rules", (rule, other, join, yes, no),
                 Phrases("a word in lower case", do, terse, notes), row, (yes, no))  # fmt: skip


def branching_rule(rng: random.Random) -> Variant:
    """A word changed in one way where a rule holds, in another where it does not."""
    (rule, test), _ = _rules(rng)
    mark = rng.choice(("!", "?", "*", "#", "+", "x"))
    ways: dict[str, Callable[[str], str]] = {
        "write the word in capital letters": str.upper,
        "write the word backwards": lambda w: w[::-1],
        f'put "{mark}" before the word': lambda w: mark + w,
        f'put "{mark}" after the word': lambda w: w + mark,
        "write the word twice with a space between": lambda w: f"{w} {w}",
        "write only its first letter": lambda w: w[0],
        "write only its last letter": lambda w: w[-1],
        "repeat the word as it is": str,
    }
    then, other = rng.sample(tuple(ways), 2)

    def row(r: random.Random) -> tuple[str, str]:
        word = balanced_word(r, test)
        return word, ways[then if test(word) else other](word)

    phrases = Phrases("a word in lower case", f"{then} if the word {rule}; otherwise {other}",
                      f"{rule}? {then}. if not: {other}")  # fmt: skip
    return build("branching_rule", (rule, then, other), phrases, row)


WORD_RULE_FAMILIES = (word_rule, two_rules, branching_rule)
