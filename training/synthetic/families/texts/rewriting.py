"""Families that rewrite a text by a rule."""

import random
import re
from collections.abc import Callable

from training.synthetic.families.phrasing import Phrases, build, capitalised
from training.synthetic.families.texts.documents import FACTS, a_document
from training.synthetic.families.texts.kinds import KINDS
from training.synthetic.families.words import (
    ADJECTIVES,
    CITIES,
    DEPARTMENTS,
    NAMES,
    ORDINALS,
    PRODUCTS,
    THEMES,
)
from training.synthetic.variant import Variant

VERBS = {
    "checks": "checked", "cleans": "cleaned", "opens": "opened", "orders": "ordered",
    "repairs": "repaired", "packs": "packed", "paints": "painted", "labels": "labelled",
    "moves": "moved", "counts": "counted", "tests": "tested", "visits": "visited",
    "washes": "washed", "delivers": "delivered", "inspects": "inspected", "locks": "locked",
    "measures": "measured", "replaces": "replaced", "returns": "returned", "stores": "stored",
}  # fmt: skip
TENSES = {
    "past": (
        "in the past tense",
        ("yesterday", "last week", "two days ago", "in May", "this morning", "last year"),
    ),
    "future": (
        'in the future tense with "will"',
        ("tomorrow", "next month", "soon", "on Friday", "after lunch", "in two weeks"),
    ),
    "negative": (
        'in the negative with "does not"',
        ("these days", "any more", "at night", "alone", "in winter", "without help"),
    ),
    "question": (
        'as a question that begins with "Does"',
        ("these days", "at night", "alone", "in winter", "by hand", "too"),
    ),
}
OFTEN = ("every day", "on Mondays", "in the morning", "once a week", "each month", "at noon")
COMMANDS = (
    "Send the {a} to {name}.", "Call {name} about the {a}.", "Book a room in {city}.",
    "Bring the {a} to the {city} office.", "Ask {department} for the invoice.",
    "Forward this mail to {name} in {department}.", "Move the meeting with {name} to Friday.",
    "Print {n} copies for {department}.", "Return the {a} to {city}.", "Remind {name} of the {a}.",
)  # fmt: skip
OPENERS = (
    "Could you please {}?", "Please {}.", "Would you kindly {}?", "May I ask you to {}?",
    "It would be great if you could {}.", "I'd be grateful if you could {}.", "Kindly {}.",
    "Would it be possible for you to {}?", "We would like you to {}.", "Can you {} for me?",
)  # fmt: skip
CLOSERS = ("", "", " Thank you.", " Many thanks!", " Thanks in advance.", " Best regards")
SMALL = ("the", "of", "for", "in", "and", "to", "a")
SUBJECTS = (
    "delivery of the {b} {a} for the {city} office", "question about a {b} {a} in {city}",
    "new {a} for {department} and {other}", "return of the {a} to {city}",
    "the {b} {a} of the {department} team", "invoice for a {a} in {city} and a {c}",
)  # fmt: skip
HIDDEN = ("name", "phone", "email", "price", "number", "city", "department")
SIGNS = (
    "[REDACTED]", "***", "XXX", "<hidden>", "(removed)", "_____", "[...]", "n/a", "[PII]", "█",
)  # fmt: skip
MARKS = ("- ", "* ", "• ", "+ ", "1) ", "[ ] ", "> ", "– ", "1. ", "(1) ")


def _words(r: random.Random) -> dict[str, object]:
    """Something for every slot of the patterns here."""
    a, c = r.sample(PRODUCTS, 2)
    department, other = r.sample(DEPARTMENTS, 2)
    return {"a": a, "b": r.choice(ADJECTIVES), "c": c, "name": r.choice(NAMES),
            "city": r.choice(CITIES), "department": department, "other": other,
            "n": r.randint(2, 30)}  # fmt: skip


def stem(verb: str) -> str:
    """The stem of a verb of VERBS."""
    return "wash" if verb == "washes" else verb[:-1]


def polite_request(rng: random.Random) -> Variant:
    """A command as a polite request with a drawn beginning and end."""
    opener, closer = rng.choice(OPENERS), rng.choice(CLOSERS)

    def row(r: random.Random) -> tuple[str, str]:
        command = r.choice(COMMANDS).format(**_words(r))
        return command, opener.format(command[0].lower() + command[1:-1]) + closer

    form = (opener + closer).format("<command>")
    do = f'turn the command into a polite request of the form "{form}"'
    note = "The command keeps its words, but for a small first letter and its full stop."
    phrases = Phrases("a command", do, f'command -> "{form}". {note}', (note,))
    return build("polite_request", (opener, closer), phrases, row)


def other_tense(rng: random.Random) -> Variant:
    """A sentence in another tense, with or without another time."""
    tense = rng.choice(tuple(TENSES))
    says, times = TENSES[tense]
    when = rng.choice(("", *times))

    def row(r: random.Random) -> tuple[str, str]:
        words, verb, often = _words(r), r.choice(tuple(VERBS)), r.choice(OFTEN)
        name, end = words["name"], f"the {words['b']} {words['a']} {when or often}"
        sentence = f"{name} {verb} the {words['b']} {words['a']} {often}."
        return sentence, {"past": f"{name} {VERBS[verb]} {end}.",
                          "future": f"{name} will {stem(verb)} {end}.",
                          "negative": f"{name} does not {stem(verb)} {end}.",
                          "question": f"Does {name} {stem(verb)} {end}?"}[tense]  # fmt: skip

    time = f' and end it with "{when}" in the place of the words about time' if when else ""
    do, given = f"rewrite the sentence {says}{time}", "a sentence about what somebody does"
    phrases = Phrases(given, do, f"{tense}, {says}{time}")
    return build("other_tense", (tense, when), phrases, row)


def redact_text(rng: random.Random) -> Variant:
    """One kind of detail, or every digit, hidden by a sign; the rest unchanged."""
    kind = rng.choice(tuple(KINDS.values()))
    hidden = rng.choice([slot for slot in kind.called if slot in HIDDEN])
    digits = rng.random() < 0.2
    sign = rng.choice(tuple("#*X_?0-") if digits else SIGNS)

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        if digits:
            return document.text, re.sub("[0-9]", sign, document.text)
        return document.text, document.text.replace(document.shown[hidden], sign)

    what = "every digit" if digits else f"the {kind.called[hidden]}"
    do = f'replace {what} with "{sign}" and repeat the rest unchanged'
    return build("redact_text", (kind.given, what, sign),
                 Phrases(kind.given, do, f'{what} -> "{sign}", rest as is'),
                 row)  # fmt: skip


def title_line(rng: random.Random) -> Variant:
    """A subject with capital letters by a rule."""
    small = sorted(rng.sample(SMALL, rng.randint(2, 5)))
    ways: dict[str, Callable[[list[str]], list[str]]] = {
        "every word": lambda w: [x.capitalize() for x in w],
        f"every word except {', '.join(small)}":
            lambda w: [x if x in small else x.capitalize() for x in w],
        "the first and the last word": lambda w: [w[0].capitalize(), *w[1:-1], w[-1].capitalize()],
        "words of more than four letters":
            lambda w: [x.capitalize() if len(x) > 4 else x for x in w],
    }  # fmt: skip
    which = rng.choice(tuple(ways))
    before = rng.choice(("", "", "Re: ", "Fwd: ", "[Info] ", "Subject: ", "AW: ", "Note - "))

    def row(r: random.Random) -> tuple[str, str]:
        text = r.choice(SUBJECTS).format(**_words(r)).lower()
        return text, before + " ".join(ways[which](text.split()))

    front = f', and put "{before}" in front' if before else ""
    do = f"write {which} with a capital first letter{front}"
    return build("title_line", (which, before),
                 Phrases("the subject of an e-mail in small letters", do,
                         f"e-mail subject: capital first letter for {which}{front}",
                         ("All other letters stay as they are.",)), row)  # fmt: skip


def bullet_points(rng: random.Random) -> Variant:
    """The things that a sentence lists, one a line."""
    mark, capital = rng.choice(MARKS), rng.random() < 0.5
    order = rng.choice(("in the order of the text", "in alphabetical order", "in reverse order"))

    def row(r: random.Random) -> tuple[str, str]:
        things = r.sample((*PRODUCTS, *THEMES["tools"]), r.randint(3, 4))
        frame = r.choice(("We need {} for the {} office.", "Please order {} for {}.",
                          "Still missing: {} ({}).", "{} have to go to {} by Friday."))  # fmt: skip
        text = frame.format(f"{', '.join(things[:-1])} and {things[-1]}", r.choice(CITIES))
        if "alphabetical" in order:
            things.sort()
        items = things[::-1] if "reverse" in order else things
        lines = (mark.replace("1", str(i)) + (x.capitalize() if capital else x)
                 for i, x in enumerate(items, 1))  # fmt: skip
        return capitalised(text), "\n".join(lines)

    numbered = ", counting up" if "1" in mark else ""
    case = "with a capital first letter" if capital else "in small letters"
    do = f'list the things one a line, {order}, {case}, with "{mark}" before each{numbered}'
    return build("bullet_points", (mark, capital, order),
                 Phrases("a sentence that lists things", do,
                         f'things as lines "{mark}...", {order}, {case}{numbered}'),
                 row)  # fmt: skip


def fill_reply(rng: random.Random) -> Variant:
    """A reply from a template with facts of the text."""
    kind = rng.choice([k for k in KINDS.values() if "name" in k.called])
    slot, other = rng.sample([s for s in kind.called if s != "name"], 2)
    hello = rng.choice(("Dear", "Hello", "Hi", "Good morning", "Thank you,", "To"))
    body = rng.choice((
        "we have noted {} and {}.", "is {} right, and {}?", "we got your mail ({}, {}).",
        "{} is fine, {} is not.", "please confirm {} and {}.", "about {}: we will check {}.",
        "{} / {} - done.", "sorry, {} and {} are unknown to us.",
    ))  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        name, facts = document.shown["name"], (document.shown[s] for s in (slot, other))
        return document.text, f"{hello} {name}, {body.format(*facts)}"

    shown = f"{hello} NAME, {body.format(slot.upper(), other.upper())}"
    note = f"{kind.legend(('name', slot, other))}, as they stand in the text."
    do = f'write the reply "{shown}" with the words in capitals filled in'
    return build("fill_reply", (kind.given, slot, other, hello, body),
                 Phrases(kind.given, do, f'"{shown}" filled in; {note}', (note,)),
                 row)  # fmt: skip


def pick_note(rng: random.Random) -> Variant:
    """One of three notes: by its place, or by a word that it holds."""
    word, by_place = rng.choice(DEPARTMENTS), rng.random() < 0.2
    place, left = rng.randrange(3), rng.random() < 0.4
    glue = rng.choice((" ", " / ", "\n", " | ", " -- ", "; "))
    others = [d for d in DEPARTMENTS if d != word]

    def row(r: random.Random) -> tuple[str, str]:
        chosen = r.sample(others, 3)
        at = place if by_place else r.randrange(3)
        if not by_place:
            chosen[at] = word
        notes = [f"{FACTS['name'](r)[0]} of {d} is in {r.choice(CITIES)}." for d in chosen]
        kept = [n for i, n in enumerate(notes) if (i == at) != left]
        return glue.join(notes), glue.join(kept)

    which = f"the {ORDINALS[place]} note" if by_place else f'the note that mentions "{word}"'
    do = (
        f"repeat both notes except {which}, joined as they were" if left else f"repeat only {which}"
    )
    sign = glue.replace("\n", "line break").strip() or "space"
    given = f'three notes joined by "{sign}"'
    return build("pick_note", (which, left, glue), Phrases(given, do, f"{given}: {do}"), row)


REWRITING_FAMILIES = (
    polite_request, other_tense, redact_text, title_line, bullet_points, fill_reply, pick_note,
)  # fmt: skip
