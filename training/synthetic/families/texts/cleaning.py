"""Families that clean a text up: markup, short forms, filler words."""

import random
import re

from training.synthetic.families.phrasing import Phrases, build, listed
from training.synthetic.families.words import office_words
from training.synthetic.variant import Variant

NOTES = (
    "the {b} {a} for {name} is still in {city}", "{name} from {department} wants the {b} {a} back",
    "we must bring the {a} to {city} and call {name}", "we sent {name} the {b} {a} from {city}",
    "{department} has no {a} left in {city}", "the {city} office asks {name} for a new {a}",
)  # fmt: skip
MARKUP = {
    "HTML": (("<b>", "</b>"), ("<i>", "</i>"), ("<u>", "</u>"), ("<em>", "</em>")),
    "Markdown": (("**", "**"), ("_", "_"), ("`", "`"), ("~~", "~~")),
    "wiki": (("[[", "]]"), ("''", "''"), ("==", "=="), ("{{", "}}")),
}
ACTS = {
    "remove the {kind} markup": lambda word: word,
    "turn the marked words into capitals and remove the {kind} markup": str.upper,
    "put quotation marks around what is marked, in the place of the {kind} markup":
        lambda word: f'"{word}"',
    "replace what is marked, and the {kind} markup, with ___": lambda word: "___",
    "put square brackets in the place of the {kind} markup": lambda word: f"[{word}]",
}  # fmt: skip
SHORT = {
    "asap": "as soon as possible", "pls": "please", "tmr": "tomorrow", "qty": "quantity",
    "dept": "department", "approx": "approximately", "addr": "address", "mtg": "meeting",
    "appt": "appointment", "msg": "message", "acct": "account", "info": "information",
    "ref": "reference", "wk": "week", "eta": "arrival time", "etc": "and so on",
    "tbd": "to be decided", "mgr": "manager", "w/o": "without", "incl": "including",
}  # fmt: skip
FILLERS = (
    "um", "like", "basically", "actually", "you know", "sort of", "really", "just", "well",
    "I mean", "to be honest", "so", "kind of", "er", "literally",
)  # fmt: skip


def _note(r: random.Random) -> str:
    return r.choice(NOTES).format(**office_words(r))


def strip_markup(rng: random.Random) -> Variant:
    """A text whose marked words lose their marks, or are treated by them."""
    kind, act = rng.choice(tuple(MARKUP)), rng.choice(tuple(ACTS))
    end = rng.choice(("", "", ".", " (plain)", " #clean", "!"))

    def row(r: random.Random) -> tuple[str, str]:
        words = _note(r).split()
        places = r.sample(range(len(words)), r.randint(1, 2))
        marked, plain = list(words), list(words)
        for i in places:
            left, right = r.choice(MARKUP[kind])
            marked[i], plain[i] = f"{left}{words[i]}{right}", ACTS[act](words[i])
        return " ".join(marked), " ".join(plain) + end

    more = f', and add "{end}" at the end' if end else ""
    do = act.format(kind=kind) + more
    given = f"a line with {kind} markup"
    return build("strip_markup", (kind, act, end), Phrases(given, do, do), row)


def short_forms(rng: random.Random) -> Variant:
    """Short forms written out by a table, or the other way round."""
    chosen = dict(rng.sample(tuple(SHORT.items()), 3))
    shorten, upper = rng.random() < 0.4, rng.random() < 0.2

    def row(r: random.Random) -> tuple[str, str]:
        words = _note(r).split()
        for short in r.sample(tuple(chosen), r.randint(1, 2)):
            words.insert(r.randint(1, len(words)), short)
        before, after = " ".join(words), " ".join(chosen.get(word, word) for word in words)
        text, answer = (after, before) if shorten else (before, after)
        return text, answer.upper() if upper else answer

    pairs = [f'"{a}" with "{b}"' if shorten else f'"{b}" with "{a}"' for b, a in chosen.items()]
    case = ", and put everything in capitals" if upper else ""
    do = f"replace {listed(pairs)}{case}"
    return build("short_forms", (*chosen, shorten, upper),
                 Phrases("a short note", do, f"short note: {do}", ("Change nothing else.",)),
                 row)  # fmt: skip


def drop_words(rng: random.Random) -> Variant:
    """A spoken text without some of its filler words."""
    chosen = rng.sample(FILLERS, rng.randint(2, 4))
    others = [filler for filler in FILLERS if filler not in chosen]
    sign = rng.choice(("", "", "", "...", "*", "[-]"))

    def row(r: random.Random) -> tuple[str, str]:
        words = _note(r).split()
        said = [*r.sample(chosen, r.randint(1, 2)), *r.sample(others, r.randint(0, 1))]
        text = list(words)
        for filler in said:
            text.insert(r.randint(1, len(text) - 1), f"<{filler}>")
        dropped = {f"<{filler}>" for filler in chosen}
        answer = [sign if word in dropped else word for word in text]
        clean = " ".join(word for word in answer if word)
        return re.sub("[<>]", "", " ".join(text)), re.sub("[<>]", "", clean)

    quoted = [f'"{filler}"' for filler in chosen]
    do = f"remove {listed(quoted)}"
    if sign:
        do = f'replace {listed(quoted)} with "{sign}" each'
    return build("drop_words", (*chosen, sign),
                 Phrases("what somebody said", do, f"{do}, rest as is"), row)  # fmt: skip


CLEANING_FAMILIES = (strip_markup, short_forms, drop_words)
