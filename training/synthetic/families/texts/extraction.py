"""Families that read fields out of texts as they come in: one, several, as JSON, normalised."""

import json
import random
from collections.abc import Callable
from datetime import date

from training.synthetic.families.dates import FORMATS, written_date
from training.synthetic.families.formats import SPELLINGS
from training.synthetic.families.phrasing import Phrases, build, capitalised, listed
from training.synthetic.families.texts.documents import FACTS, a_document
from training.synthetic.families.texts.kinds import KINDS, Kind
from training.synthetic.families.words import NONSENSE, VISIBLE_SEPARATORS
from training.synthetic.variant import Variant

FRAMES = (
    ("[", "]"), ("<", ">"), ('"', '"'), ("= ", ""), ("value: ", ""),
    ("", ";"), ("-> ", ""), ("(", ")"), ("found: ", ""), ("{", "}"), ("**", "**"),
)  # fmt: skip
NUMBERS = ("count", "people", "days", "stars", "ms", "kilos")


def _kind_with(rng: random.Random, *slots: str) -> tuple[Kind, str]:
    """A kind of text that has one of these facts, and which."""
    found = [(kind, s) for kind in KINDS.values() for s in kind.called if s in slots]
    return rng.choice(found)


def framed(rng: random.Random) -> tuple[str, str, str]:
    """What stands before and after a value, and how this is said."""
    if rng.random() < 0.5:
        return "", "", ""
    left, right = rng.choice(FRAMES)
    return left, right, f", in the form `{left}VALUE{right}`"


def _keys(rng: random.Random, kind: Kind, slots: list[str]) -> list[str]:
    """A key for each fact: its name in one spelling, its slot, or a word that means nothing."""
    style = rng.choice(("snake_case", "camelCase", "kebab-case", "PascalCase", "", "nonsense"))
    if style == "nonsense":
        return rng.sample(NONSENSE, len(slots))
    if not style:
        return slots
    names = (kind.called[slot].replace("'s", "").replace("-", "").lower() for slot in slots)
    return [SPELLINGS[style](name.split()) for name in names]


def text_field(rng: random.Random) -> Variant:
    """One fact of a text, as it stands there."""
    kind = rng.choice(tuple(KINDS.values()))
    slot, (left, right, form) = rng.choice(tuple(kind.called)), framed(rng)
    upper = not form and rng.random() < 0.3
    case = " in capital letters" if upper else " as it stands in the text"

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        value = document.shown[slot]
        return document.text, left + (value.upper() if upper else value) + right

    do = f"extract the {kind.called[slot]}{form or case}"
    terse = f"{kind.called[slot]}{form or case}, nothing else"
    return build("text_field", (kind.given, slot, left, right, upper),
                 Phrases(kind.given, do, terse), row)  # fmt: skip


def fields_as_json(rng: random.Random) -> Variant:
    """Several facts as JSON under drawn keys; numbers as such or as strings."""
    kind = rng.choice(tuple(KINDS.values()))
    slots = rng.sample(tuple(kind.called), rng.randint(2, min(4, len(kind.called))))
    keys, typed = _keys(rng, kind, slots), rng.random() < 0.6

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        values = [
            document.values[s] if typed and s in NUMBERS else document.shown[s] for s in slots
        ]
        return document.text, json.dumps(dict(zip(keys, values, strict=True)), ensure_ascii=False)

    pairs = [(k, kind.called[s]) for k, s in zip(keys, slots, strict=True)]
    numbers = [k for k, s in zip(keys, slots, strict=True) if s in NUMBERS]
    told = bool(numbers) and (not typed or rng.random() < 0.4)  # untold, a number is one
    notes: tuple[str, ...] = ()
    if told:
        quoted = listed(f'"{key}"' for key in numbers)
        notes = (f"Write {quoted} without quotes." if typed else "Write all values as strings.",)
    do = "answer with JSON: " + ", ".join(f'"{key}" for the {name}' for key, name in pairs)
    shape = ", ".join(f'"{key}": <{name}>' for key, name in pairs)
    terse = ". ".join((f"to json {{{shape}}}", *notes))
    return build("fields_as_json", (kind.given, *slots, *keys, typed and bool(numbers), told),
                 Phrases(kind.given, do, terse, notes), row)  # fmt: skip


def fields_in_a_line(rng: random.Random) -> Variant:
    """Two or three facts in a drawn order and form."""
    kind, glue = rng.choice(tuple(KINDS.values())), rng.choice(VISIBLE_SEPARATORS)
    slots = rng.sample(tuple(kind.called), rng.randint(2, 3))
    named = rng.random() < 0.3

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        parts = (f"{s}={document.shown[s]}" if named else document.shown[s] for s in slots)
        return document.text, glue.join(parts)

    names = [f"the {kind.called[slot]}" for slot in slots]
    shown = glue.join(f"{s}=..." for s in slots)
    form = f"in the form {shown}" if named else f'in this order, separated by "{glue}"'
    return build("fields_in_a_line", (kind.given, *slots, glue, named),
                 Phrases(kind.given, f"write {listed(names)} {form}",
                         f"extract {listed(names)}, {form}"), row)  # fmt: skip


def optional_fields(rng: random.Random) -> Variant:
    """A record with facts that may be missing, as JSON."""
    slots = rng.sample(("phone", "email", "city", "department", "number"), rng.randint(2, 3))
    called = {"phone": "phone number", "email": "e-mail address", "city": "city",
              "department": "department", "number": "customer number"}  # fmt: skip
    absent = rng.choice((None, "", "none", "n/a", "unknown", "-", "missing", "?", 0, False))
    intro = rng.choice(("my name is", "this is", "I am", "hello from", "new customer:"))

    def row(r: random.Random) -> tuple[str, str]:
        there = [s for s in slots if r.random() < 0.6]
        facts = {s: FACTS[s](r)[0] for s in there}
        parts = [f"{called[s]} {facts[s]}" for s in r.sample(there, len(there))]
        text = f"{intro} {FACTS['name'](r)[0]}" + "".join(f", {part}" for part in parts)
        record = {s: facts.get(s, absent) for s in slots}
        return capitalised(text), json.dumps(record, ensure_ascii=False)

    fields = ", ".join(f'"{s}" for the {called[s]}' for s in slots)
    given = f'a message that begins with "{intro}", with contact details'
    note = f"Write {json.dumps(absent)} where something is missing."
    terse = f"{given} -> json with {', '.join(slots)}; {json.dumps(absent)} if missing"
    return build("optional_fields", (*slots, absent, intro),
                 Phrases(given, f"answer with JSON: {fields}", terse, (note,)), row)  # fmt: skip


def date_in_text(rng: random.Random) -> Variant:
    """The date of a text in a drawn format."""
    (kind, slot), target = _kind_with(rng, "date"), rng.choice(tuple(FORMATS))
    left, right, form = framed(rng)

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        day = document.values[slot]
        assert isinstance(day, date)
        return document.text, left + written_date(day, target) + right

    do = f"extract the {kind.called[slot]} as {target}{form}"
    return build("date_in_text", (kind.given, target, left, right),
                 Phrases(kind.given, do, do), row)  # fmt: skip


AMOUNTS: dict[str, Callable[[int], str]] = {
    "with two decimals, without currency or thousands separator": lambda c: f"{c / 100:.2f}",
    "with a decimal comma and two decimals, without currency or thousands separator":
        lambda c: f"{c / 100:.2f}".replace(".", ","),
    "in cents, digits only": str,
    "without currency and decimals, rounded down, digits only": lambda c: str(c // 100),
    'as euros and cents in the form "12 and 50"': lambda c: f"{c // 100} and {c % 100:02}",
}  # fmt: skip


def amount_in_text(rng: random.Random) -> Variant:
    """The amount of money in a text, normalised."""
    (kind, slot), how = _kind_with(rng, "price"), rng.choice(tuple(AMOUNTS))
    left, right, form = framed(rng)

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        cents = document.values[slot]
        assert isinstance(cents, int)
        return document.text, left + AMOUNTS[how](cents) + right

    do = f"extract the {kind.called[slot]} {how}{form}"
    return build("amount_in_text", (kind.given, how, left, right),
                 Phrases(kind.given, do, do), row)  # fmt: skip


def phone_in_text(rng: random.Random) -> Variant:
    """The phone number of a text: digits alone, in groups, or with a country code."""
    kind, slot = _kind_with(rng, "phone")
    size, glue, code = rng.randint(2, 5), rng.choice(" -./_"), rng.choice((31, 33, 41, 43, 49, 420))
    (way,) = rng.choices(("digits", "groups", "country"), (1, 4, 3))

    def style(digits: str) -> str:
        groups = glue.join(digits[i : i + size] for i in range(0, len(digits), size))
        return {"digits": digits, "groups": groups, "country": f"+{code}{digits[1:]}"}[way]

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        return document.text, style(str(document.values[slot]))

    form = {
        "digits": "digits only",
        "groups": f'in groups of {size} digits from the left, with "{glue}" between them',
        "country": f"digits only, with +{code} in the place of the first 0",
    }[way]
    do = f"extract the {kind.called[slot]}, {form}"
    return build("phone_in_text", (kind.given, way, form),
                 Phrases(kind.given, do, do), row)  # fmt: skip


def time_in_text(rng: random.Random) -> Variant:
    """The time of the day in a text, in one notation, or some minutes earlier."""
    (kind, slot), glue = _kind_with(rng, "time"), rng.choice((":", ".", "h", ""))
    before = rng.choice((0, 0, 0, 5, 10, 15, 30))
    left, right, form = framed(rng)

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        minutes = document.values[slot]
        assert isinstance(minutes, int)
        hour, minute = divmod(minutes - before, 60)
        return document.text, f"{left}{hour:02}{glue}{minute:02}{right}"

    early = f" minus {before} minutes" if before else ""
    do = f"extract the {kind.called[slot]}{early} as HH{glue}MM on the 24-hour clock{form}"
    return build("time_in_text", (kind.given, glue, before, left, right),
                 Phrases(kind.given, do, do), row)  # fmt: skip


MEASURES = (
    ("parcel", "kilos", "grams", 1000, "1 kg is 1000 grams."),
    ("log", "ms", "microseconds", 1000, "1 ms is 1000 microseconds."),
    ("ticket", "days", "hours", 24, "1 day is 24 hours."),
    ("invoice", "days", "hours", 24, "1 day is 24 hours."),
    ("review", "stars", "points", 20, "1 star is 20 points."),
    ("order", "count", "pieces", 12, "Each of them is a box of 12 pieces."),
)


def measure_in_text(rng: random.Random) -> Variant:
    """A number of a text in another unit."""
    name, slot, unit, factor, note = rng.choice(MEASURES)
    kind, more = KINDS[name], rng.choice((0, 0, 1, 2, 5, 10))
    left, right, form = framed(rng)

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        value = document.values[slot]
        assert isinstance(value, int)
        return document.text, f"{left}{(value + more) * factor}{right}"

    called = kind.called[slot]
    first = f"add {more} to the {called} and" if more else f"take the {called} and"
    do = f"{first} give it in {unit}, digits only{form}"
    return build("measure_in_text", (name, slot, more, left, right),
                 Phrases(kind.given, do, f"{do}. {note}", (note,)), row)  # fmt: skip


EXTRACTION_FAMILIES = (
    text_field, fields_as_json, fields_in_a_line, optional_fields, date_in_text, amount_in_text,
    phone_in_text, time_in_text, measure_in_text,
)  # fmt: skip
