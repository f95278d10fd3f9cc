"""Families that count."""

import random
from collections import Counter

from training.synthetic.families.numbers import spelt
from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import (
    LONG_WORDS,
    PRODUCTS,
    SEPARATORS,
    THEMES,
    VISIBLE_SEPARATORS,
    WORDS,
    a_sentence,
    balanced_word,
    two_labels,
)
from training.synthetic.variant import Variant

FORMS = {
    "as a digit": str,
    "as a word in lower case": spelt,
    "as a word in capital letters": lambda n: spelt(n).upper(),
    'in the form "N times"': lambda n: f"{n} times",
    'in the form "count: N"': lambda n: f"count: {n}",
    'in the form "xN"': lambda n: f"x{n}",
    'in the form "(N)"': lambda n: f"({n})",
    'in the form "N in all"': lambda n: f"{n} in all",
    'as tally marks "|", one for each, or as 0': lambda n: "|" * n or "0",
}


def count_letters(rng: random.Random) -> Variant:
    """How often some letters occur in a word, or how many others."""
    letters = "".join(sorted(rng.sample("aeiorstnl", rng.randint(1, 2))))
    others, form = rng.random() < 0.3, rng.choice(tuple(FORMS))
    named = " or ".join(f'"{c}"' for c in letters)
    what = f"letters that are not {named}" if others else f"letters {named}"

    def row(r: random.Random) -> tuple[str, str]:
        word = r.choice(LONG_WORDS)
        return word, FORMS[form](sum((c in letters) != others for c in word))

    phrases = Phrases("a word", f"count the {what} in it and write the count {form}",
                      f"number of {what}, {form}")  # fmt: skip
    return build("count_letters", (letters, others, form), phrases, row)


def count_words(rng: random.Random) -> Variant:
    """The number of words, or of long or short ones."""
    n, form = rng.randint(3, 6), rng.choice(tuple(FORMS))
    tests = {
        "words": lambda w: True,
        f"words with more than {n} letters": lambda w: len(w) > n,
        f"words with {n} letters or fewer": lambda w: len(w) <= n,
        'words that contain "e"': lambda w: "e" in w,
        'words without an "e"': lambda w: "e" not in w,
        'words that end with "s" or "e"': lambda w: w[-1] in "se",
        'words that begin with a vowel (a, e, i, o, u)': lambda w: w[0] in "aeiou",
    }  # fmt: skip
    rule = rng.choice(tuple(tests))

    def row(r: random.Random) -> tuple[str, str]:
        text = " ".join(a_sentence(r).split()[: r.randint(5, 12)])
        return text, FORMS[form](sum(map(tests[rule], text.split())))

    phrases = Phrases("a sentence", f"count the {rule} and write the count {form}",
                      f"number of {rule}, {form}")  # fmt: skip
    return build("count_words", (rule, form), phrases, row)


def count_item(rng: random.Random) -> Variant:
    """How often an item that the description names occurs in a list, or all others."""
    theme, glue = rng.choice(tuple(THEMES)), rng.choice(SEPARATORS)
    item, form = rng.choice(THEMES[theme]), rng.choice(tuple(FORMS))
    equal = rng.random() < 0.6
    what = f'are "{item}"' if equal else f'are not "{item}"'

    def row(r: random.Random) -> tuple[str, str]:
        text = r.choices((item, *r.sample(THEMES[theme], 2)), k=r.randint(4, 8))
        return glue.join(text), FORMS[form](sum((w == item) == equal for w in text))

    phrases = Phrases(f'a list of {theme} separated by "{glue}"',
                      f"count the items that {what} and write the count {form}",
                      f'{theme} split at "{glue}": how many {what}, {form}')  # fmt: skip
    return build("count_item", (glue, theme, item, form, equal), phrases, row)


def count_in_range(rng: random.Random) -> Variant:
    """How many numbers lie above, below, or on neither side."""
    glue, limit, form = rng.choice(SEPARATORS), rng.randint(20, 80), rng.choice(tuple(FORMS))
    tests = {
        f"greater than {limit}": lambda x: x > limit,
        f"less than {limit}": lambda x: x < limit,
        f"{limit} or more": lambda x: x >= limit,
        f"{limit} or less": lambda x: x <= limit,
    }
    rule = rng.choice(tuple(tests))

    def row(r: random.Random) -> tuple[str, str]:
        numbers = r.sample(range(1, 100), r.randint(4, 7))
        return glue.join(map(str, numbers)), FORMS[form](sum(map(tests[rule], numbers)))

    phrases = Phrases(f'numbers separated by "{glue}"',
                      f"count the numbers that are {rule} and write the count {form}",
                      f'split at "{glue}", how many numbers are {rule}, {form}')  # fmt: skip
    return build("count_in_range", (glue, rule, form), phrases, row)


def most_frequent(rng: random.Random) -> Variant:
    """The item that occurs most or least often, with its count or without."""
    theme, glue = rng.choice(tuple(THEMES)), rng.choice(VISIBLE_SEPARATORS)
    most, form = rng.choice(("most", "least")), rng.choice(("{}", "{} ({n})", "{n}", "{n} {}",
                                                             "{}={n}"))  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(THEMES[theme], 3)
        text = [w for w, n in zip(words, (3, 2, 1), strict=True) for _ in range(n)]
        r.shuffle(text)
        ranked = Counter(text).most_common()
        word, n = ranked[0 if most == "most" else -1]
        return glue.join(text), form.format(word, n=n)

    shown = form.format("ITEM", n="COUNT")
    phrases = Phrases(f'a list of {theme} separated by "{glue}"',
                      f'find the item that occurs {most} often and answer in the form "{shown}"',
                      f'{theme} split at "{glue}": {most} frequent one as "{shown}"')  # fmt: skip
    return build("most_frequent", (theme, glue, most, form), phrases, row)


def length_label(rng: random.Random) -> Variant:
    """One of two labels, by the number of words or letters."""
    by_letters, n = rng.random() < 0.5, rng.randint(4, 7)
    over, under = two_labels(rng)
    longer = rng.random() < 0.5
    thing, unit = ("a word", "letters") if by_letters else ("a few words", "words")
    rule = f"more than {n} {unit}" if longer else f"fewer than {n} {unit}"

    def holds(text: str) -> bool:
        size = len(text) if by_letters else len(text.split())
        return size > n if longer else size < n

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(WORDS, r.randint(n - 3, n + 3))
        text = balanced_word(r, holds) if by_letters else " ".join(words)
        return text, over if holds(text) else under

    do = f'answer "{over}" if the input has {rule}, and "{under}" if not'
    phrases = Phrases(thing, do, f"{rule} -> {over}, else {under}")
    return build("length_label", (rule, over, under), phrases, row, (over, under))


def count_kind(rng: random.Random) -> Variant:
    """How many items of a mixed list are of one kind."""
    kind, other = rng.sample(tuple(THEMES), 2)
    glue, form = rng.choice(SEPARATORS), rng.choice(tuple(FORMS))

    def row(r: random.Random) -> tuple[str, str]:
        n, m = r.randint(0, 4), r.randint(1, 3)
        only = [w for w in THEMES[kind] if w not in THEMES[other]]
        rest = [w for w in THEMES[other] if w not in THEMES[kind]]
        text = r.sample(only, n) + r.sample(rest, m)
        r.shuffle(text)
        return glue.join(text), FORMS[form](n)

    phrases = Phrases(f'{kind} and {other} mixed, separated by "{glue}"',
                      f"count only the {kind} and write the count {form}",
                      f'split at "{glue}": how many {kind}, not {other}; {form}')  # fmt: skip
    return build("count_kind", (kind, other, glue, form), phrases, row)


def count_around(rng: random.Random) -> Variant:
    """How many words stand before or after a mark."""
    mark = rng.choice(("STOP", "###", "->", "HERE", "==", "@@", "MID", "+++"))
    side, form = rng.choice(("before", "after")), rng.choice(tuple(FORMS))

    def row(r: random.Random) -> tuple[str, str]:
        n, m = r.sample(range(1, 7), 2)
        words = r.sample(PRODUCTS, n + m)
        answer = FORMS[form](n if side == "before" else m)
        return " ".join((*words[:n], mark, *words[n:])), answer

    phrases = Phrases(f"words with {mark} among them",
                      f"count the words {side} {mark} and write the count {form}",
                      f"number of words {side} {mark}, {form}")  # fmt: skip
    return build("count_around", (mark, side, form), phrases, row)


COUNTING_FAMILIES = (
    count_letters, count_words, count_item, count_in_range, most_frequent, length_label,
    count_kind, count_around,
)  # fmt: skip
