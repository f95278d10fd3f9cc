"""Families over words and phrases as strings of characters."""

import random

from training.synthetic.families.phrasing import Phrases, build, listed
from training.synthetic.families.words import (
    LONG_WORDS,
    VISIBLE_SEPARATORS,
    WORDS,
    a_sentence,
    position,
)
from training.synthetic.variant import Variant

LETTERING = {"lower case": str.lower, "capital letters": str.upper}
ENDS = ("start", "end")
VOWELS = "aeiou"
GLUES = ("-", "_", ".", "*", "/", "+", "~", ":", "=", "|")


def end_letters(rng: random.Random) -> Variant:
    """The first or last n letters of a word."""
    n, end = rng.randint(1, 4), rng.choice(("first", "last"))
    case, glue = rng.choice(tuple(LETTERING)), rng.choice(("", "", *GLUES[:5]))
    what = f"{end} letter" if n == 1 else f"{end} {n} letters"
    note = (f'Put "{glue}" between the letters.',) if glue and n > 1 else ()
    glue = glue if note else ""
    also = f', joined with "{glue}"' if glue else ""

    def row(r: random.Random) -> tuple[str, str]:
        word = r.choice(LONG_WORDS)
        return word, LETTERING[case](glue.join(word[:n] if end == "first" else word[-n:]))

    do = f"write the {what} of the word in {case}"
    phrases = Phrases("a single word", do, f"{what} of the word, {case}{also}", note)
    return build("end_letters", (n, end, case, glue), phrases, row)


def capitalise_some(rng: random.Random) -> Variant:
    """Capital letters for some words of a phrase: the n-th from an end, or all but it."""
    n, end, kept = rng.randint(1, 3), rng.choice(ENDS), rng.random() < 0.5
    style = rng.choice(("with a capital first letter", "in capital letters"))
    change = str.upper if "letters" in style else str.capitalize
    where, glue = position(n, end), rng.choice((" ", *VISIBLE_SEPARATORS))
    which = f"every word but the {where}" if kept else f"only the {where} word"

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(WORDS, r.randint(3, 5))
        chosen = n - 1 if end == "start" else len(words) - n
        return " ".join(words), glue.join(
            change(w) if (i == chosen) != kept else w for i, w in enumerate(words)
        )

    do = f'repeat the words, but write {which} {style}, and join them with "{glue}"'
    terse = f'{which} {style}, rest unchanged, joined with "{glue}"'
    return build("capitalise_some", (n, end, kept, style, glue),
                 Phrases("a few words in lower case", do, terse), row)  # fmt: skip


def reverse_text(rng: random.Random) -> Variant:
    """Turn around letters or words, joined in another way."""
    what = rng.choice(("words", "letters of each word", "letters of the first word only",
                       "letters of the last word only"))  # fmt: skip
    glue = rng.choice((" ", *VISIBLE_SEPARATORS, *GLUES))

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(WORDS, r.randint(2, 4))
        turned = {"words": words[::-1], "letters of each word": [w[::-1] for w in words]}
        first = [words[0][::-1], *words[1:]]
        other = first if "first" in what else [*words[:-1], words[-1][::-1]]
        return " ".join(words), glue.join(turned.get(what, other))

    do = f'reverse the order of the {what} and join the words with "{glue}"'
    phrases = Phrases("two to four words", do, f'reverse {what}, join words with "{glue}"')
    return build("reverse_text", (what, glue), phrases, row)


def swap_characters(rng: random.Random) -> Variant:
    """Every occurrence of some letters replaced by a sign."""
    sign = rng.choice((*GLUES, "#", "@", "?", "0", "X"))
    letters = "".join(sorted(rng.sample("aeorstnli", rng.randint(1, 3))))
    kept = rng.random() < 0.4
    named = listed((f'"{c}"' for c in letters), "or")
    which = f"every letter except {named}" if kept else f"every letter {named}"

    def row(r: random.Random) -> tuple[str, str]:
        word = r.choice(LONG_WORDS)
        return word, "".join(sign if (c in letters) != kept else c for c in word)

    do = f'replace {which} in the word by "{sign}"'
    phrases = Phrases("a word in lower case", do, f'word: {which} -> "{sign}"')
    return build("swap_characters", (sign, letters, kept), phrases, row)


def filter_characters(rng: random.Random) -> Variant:
    """Characters of one kind kept or removed in a code."""
    kinds = {"digits": str.isdigit, "letters": str.isalpha, "vowels": lambda c: c.lower() in VOWELS,
             "capital letters": str.isupper, "lower-case letters": str.islower}  # fmt: skip
    kind, keep = rng.choice(tuple(kinds)), rng.random() < 0.5
    glue = rng.choice(("", *GLUES))
    note = (f'Put "{glue}" between the characters that are left.',) if glue else ()
    act = "keep only" if keep else "remove all"

    def row(r: random.Random) -> tuple[str, str]:
        signs = [*r.sample("bcdfghkmnpr", 2), *r.sample("BCDFGHKM", 2), *r.sample("aeiou", 2)]
        text = [*signs, *r.sample("AEU", 1), *r.sample("123456789", 3)]
        r.shuffle(text)
        return "".join(text), glue.join(c for c in text if kinds[kind](c) == keep)

    terse = f"{act} {kind}" + (f', "{glue}" between what is left' if glue else "")
    phrases = Phrases("a code of letters and digits", f"{act} {kind} of the code", terse, note)
    return build("filter_characters", (kind, keep, glue), phrases, row)


def text_around(rng: random.Random) -> Variant:
    """What stands before or after the first or last separator."""
    glue = rng.choice(("@", "::", "->", "/", "#", "=", "--", "~", "%", "_"))
    side, which = rng.choice(("before", "after")), rng.choice(("first", "last"))
    case = rng.choice(tuple(LETTERING))

    def row(r: random.Random) -> tuple[str, str]:
        parts = r.sample(WORDS, r.randint(2, 4))
        at = 1 if which == "first" else len(parts) - 1
        left = parts[:at] if side == "before" else parts[at:]
        return glue.join(parts), LETTERING[case](glue.join(left))

    what = f'everything {side} the {which} "{glue}"'
    phrases = Phrases(f'a text in which "{glue}" occurs', f"write {what} in {case}",
                      f"{what}, {case}")  # fmt: skip
    return build("text_around", (glue, side, which, case), phrases, row)


def initials_of(rng: random.Random) -> Variant:
    """First or last letters of the words of a phrase."""
    end, glue = rng.choice(("first", "last")), rng.choice(("", ".", "-", " ", "/", "+"))
    case, order = rng.choice(tuple(LETTERING)), rng.choice(("given", "reverse"))
    joined = f'joined with "{glue}"' if glue else "without anything between them"

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(WORDS, r.randint(3, 5))
        letters = [
            w[0] if end == "first" else w[-1] for w in words[:: 1 if order == "given" else -1]
        ]
        return " ".join(words), LETTERING[case](glue.join(letters))

    do = f"take the {end} letter of every word and write them in {order} order in {case}, {joined}"
    terse = f"{end} letters of the words, {order} order, {case}, {joined}"
    phrases = Phrases("a phrase", do, terse)
    return build("initials_of", (end, glue, case, order), phrases, row)


def extreme_word(rng: random.Random) -> Variant:
    """The longest or shortest word; of several, the first or the last."""
    most, tie = rng.choice(("longest", "shortest")), rng.choice(("first", "last"))
    case, mark = rng.choice(tuple(LETTERING)), rng.choice(("", "!", "?", ".", " <", "*"))

    def row(r: random.Random) -> tuple[str, str]:
        words = a_sentence(r).split()
        length = (max if most == "longest" else min)(map(len, words))
        found = [w for w in words if len(w) == length]
        return " ".join(words), LETTERING[case](found[0 if tie == "first" else -1]) + mark

    note = f"If several words are equally long, take the {tie} of them."
    ending = f' followed by "{mark}"' if mark else ""
    do = f"give the {most} word of the sentence in {case}{ending}"
    terse = f"{most} word ({tie} one if tied), {case}{ending}"
    phrases = Phrases("a sentence without punctuation", do, terse, (note,))
    return build("extreme_word", (most, tie, case, mark), phrases, row)


def nth_word(rng: random.Random) -> Variant:
    """One word of a sentence, or the sentence without it."""
    n, end, keep = rng.randint(1, 4), rng.choice(ENDS), rng.random() < 0.6
    case, glue = rng.choice(tuple(LETTERING)), rng.choice((" ", *GLUES[:5]))
    where = position(n, end)

    def row(r: random.Random) -> tuple[str, str]:
        words = a_sentence(r).split()
        at = n - 1 if end == "start" else len(words) - n
        left = words[at : at + 1] if keep else words[:at] + words[at + 1 :]
        return " ".join(words), LETTERING[case](glue.join(left))

    ending = "" if keep else f', the words joined with "{glue}"'
    act = f"the {where} word of the sentence" if keep else f"the sentence without its {where} word"
    phrases = Phrases("a sentence", f"write {act} in {case}{ending}",
                      f"{act}, {case}{ending}")  # fmt: skip
    return build("nth_word", (n, end, keep, case, "" if keep else glue), phrases, row)


def repeat_text(rng: random.Random) -> Variant:
    """A word repeated n times between marks."""
    n, glue = rng.randint(2, 4), rng.choice((" ", ", ", *GLUES))
    left, right = rng.choice((("", ""), ("<", ">"), ("[", "]"), ("(", ")"), ("{", "}"), ("*", "*")))
    case = rng.choice(tuple(LETTERING))
    around = f' and put "{left}" before and "{right}" after the whole' if left else ""

    def row(r: random.Random) -> tuple[str, str]:
        word = r.choice(WORDS)
        return word, left + LETTERING[case](glue.join([word] * n)) + right

    do = f'write the word {n} times in {case}, separated by "{glue}"{around}'
    terse = f'word x{n}, {case}, separator "{glue}"' + (f", inside {left}{right}" if left else "")
    return build("repeat_text", (n, glue, left, case), Phrases("one word", do, terse), row)


STRING_FAMILIES = (
    end_letters, capitalise_some, reverse_text, swap_characters, filter_characters, text_around,
    initials_of, extreme_word, nth_word, repeat_text,
)  # fmt: skip
