"""Families that judge a text as it comes in by a rule about what it says."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.synthetic.families.dates import WEEKDAYS
from training.synthetic.families.phrasing import Phrases, build, listed
from training.synthetic.families.texts.documents import (
    FACTS,
    LEVELS,
    SERVICES,
    Fact,
    a_document,
    price_of,
)
from training.synthetic.families.texts.kinds import KINDS, Kind
from training.synthetic.families.words import (
    CITIES,
    DEPARTMENTS,
    PRODUCTS,
    some_labels,
    two_labels,
)
from training.synthetic.variant import Variant

RANGES = {
    "count": (2, 40), "people": (2, 90), "days": (1, 30), "stars": (1, 5), "ms": (20, 4000),
    "kilos": (1, 60), "price": (5, 2500),
}  # fmt: skip
POOLS: dict[str, tuple[str, ...]] = {
    "city": CITIES, "product": PRODUCTS, "department": DEPARTMENTS, "weekday": tuple(WEEKDAYS),
    "level": LEVELS, "service": SERVICES,
}  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """What a rule asks of one fact.

    Attributes:
        slot: the fact.
        says: a clause, such as "the quantity is over 12".
        fact: draws one for which the condition holds, or does not.
    """

    slot: str
    says: str
    fact: Callable[[random.Random, bool], Fact]


def _number(r: random.Random, slot: str, low: int, high: int) -> Fact:
    """A number from low to high; of money, a whole amount."""
    n = r.randint(low, high)
    return price_of(r, 100 * n) if slot == "price" else (str(n), n)


def _limited(rng: random.Random, kind: Kind, slot: str) -> Clause:
    """A number above or below a limit."""
    low, high = RANGES[slot]
    limit = rng.randint(low + 1, max(low + 1, (low + high) // 2))
    limit = limit // 10 * 10 if limit > 100 else limit
    words, split = rng.choice((
        ("over", limit + 1), ("more than", limit + 1), ("at least", limit), ("not under", limit),
    ))  # fmt: skip
    opposite = {"over": "at most", "more than": "not over", "at least": "under",
                "not under": "less than"}[words]  # fmt: skip
    above = rng.random() < 0.6

    def fact(r: random.Random, holds: bool) -> Fact:
        if holds == above:
            return _number(r, slot, split, max(split, min(high, 2 * split)))
        return _number(r, slot, min(low, split - 1), split - 1)

    money = " (in any currency)" if slot == "price" else ""
    says = f"the {kind.called[slot]} is {words if above else opposite} {limit}{money}"
    return Clause(slot, says, fact)


def _among(rng: random.Random, kind: Kind, slot: str) -> Clause:
    """One of a few words, or none of them."""
    pool = POOLS[slot]
    chosen = rng.sample(pool, rng.randint(1, 3))
    others, inside = [word for word in pool if word not in chosen], rng.random() < 0.7

    def fact(r: random.Random, holds: bool) -> Fact:
        word = r.choice(chosen if holds == inside else others)
        return word, word

    verb = "is" if inside else "is neither" if len(chosen) > 1 else "is not"
    joined = listed(chosen, "or" if inside else "nor")
    return Clause(slot, f"the {kind.called[slot]} {verb} {joined}", fact)


def _conditions(rng: random.Random, n: int) -> tuple[Kind, list[Clause]]:
    """Conditions on n different facts of one kind of text, at least one of them a number."""
    kinds = [k for k in KINDS.values() if len({*RANGES, *POOLS} & {*k.called}) > n - 1]
    kind = rng.choice([k for k in kinds if {*RANGES} & {*k.called}])
    numbers = [s for s in kind.called if s in RANGES]
    first = rng.choice(numbers)
    rest = [s for s in kind.called if s != first and s in {*RANGES, *POOLS}]
    slots = [first, *rng.sample(rest, n - 1)]
    rng.shuffle(slots)
    return kind, [(_limited if s in RANGES else _among)(rng, kind, s) for s in slots]


def threshold_in_text(rng: random.Random) -> Variant:
    """Whether a number of the text is on one side of a limit."""
    kind, (condition,) = _conditions(rng, 1)
    yes, no = two_labels(rng)

    def row(r: random.Random) -> tuple[str, str]:
        holds = r.random() < 0.5
        document = a_document(r, kind, **{condition.slot: condition.fact(r, holds)})
        return document.text, yes if holds else no

    do = f'answer "{yes}" if {condition.says}, and "{no}" otherwise'
    terse = f"{condition.says} -> {yes}, else {no}"
    return build("threshold_in_text", (kind.given, condition.says, yes, no),
                 Phrases(kind.given, do, terse), row, (yes, no))  # fmt: skip


def two_conditions_in_text(rng: random.Random) -> Variant:
    """Whether both of two conditions hold, or at least one."""
    kind, both = _conditions(rng, 2)
    (yes, no), join = two_labels(rng), rng.choice(("and", "or"))

    def row(r: random.Random) -> tuple[str, str]:
        holds = r.random() < 0.5
        pair = [holds, holds]
        if holds == (join == "or"):  # one of them may differ
            pair[r.randrange(2)] = r.random() < 0.5
        facts = {c.slot: c.fact(r, h) for c, h in zip(both, pair, strict=True)}
        return a_document(r, kind, **facts).text, yes if holds else no

    rule = f" {join} ".join(c.says for c in both)
    do = f'answer "{yes}" if {rule}; in all other cases answer "{no}"'
    terse = f"{rule} -> {yes}, else {no}"
    return build("two_conditions_in_text", (kind.given, rule, yes, no),
                 Phrases(kind.given, do, terse), row, (yes, no))  # fmt: skip


def bands_in_text(rng: random.Random) -> Variant:
    """A label by the band in which a number of the text lies."""
    kind = rng.choice([k for k in KINDS.values() if {*RANGES} & {*k.called}])
    slot = rng.choice([s for s in kind.called if s in RANGES])
    low, high = RANGES[slot]
    first = rng.randint(low + 1, (low + high) // 2)
    second = rng.randint(first + 1, high - 1)
    labels = some_labels(rng, 3)
    bands = ((low, first - 1), (first, second), (second + 1, high))

    def row(r: random.Random) -> tuple[str, str]:
        k = r.randrange(3)
        document = a_document(r, kind, **{slot: _number(r, slot, *bands[k])})
        return document.text, labels[k]

    a, b, c = labels
    called = kind.called[slot]
    notes = (f'Below {first}: "{a}".', f'From {first} to {second}: "{b}".',
             f'Above {second}: "{c}".')  # fmt: skip
    terse = f"{called} < {first}: {a}, {first}-{second}: {b}, > {second}: {c}"
    return build("bands_in_text", (kind.given, slot, first, second, *labels),
                 Phrases(kind.given, f"answer with the label for the {called}", terse, notes),
                 row, labels)  # fmt: skip


def priority_by_criteria(rng: random.Random) -> Variant:
    """The label of the first criterion that holds."""
    kind, criteria = _conditions(rng, 2)
    labels = rng.choice((["P1", "P2", "P3"], ["high", "medium", "low"], some_labels(rng, 3)))

    def row(r: random.Random) -> tuple[str, str]:
        k = r.randrange(3)
        holds = (k == 0, k == 1 if k else r.random() < 0.5)
        facts = {c.slot: c.fact(r, h) for c, h in zip(criteria, holds, strict=True)}
        return a_document(r, kind, **facts).text, labels[k]

    first, second = (c.says for c in criteria)
    a, b, c = labels
    notes = (f'If {first}: "{a}".', f'Else, if {second}: "{b}".', f'In all other cases: "{c}".')
    terse = f"{first} -> {a}; else {second} -> {b}; else {c}"
    return build("priority_by_criteria", (kind.given, first, second, *labels),
                 Phrases(kind.given, "answer with the priority by these rules", terse, notes),
                 row, labels)  # fmt: skip


def route_by_list(rng: random.Random) -> Variant:
    """The label whose list holds a word of the text, or another one."""
    found = [(k, s) for k in KINDS.values() for s in k.called if len(POOLS.get(s, ())) > 11]
    kind, slot = rng.choice(found)
    words = rng.sample(POOLS[slot], 9)
    *labels, other = some_labels(rng, 4)
    lists = {label: words[3 * i : 3 * i + 3] for i, label in enumerate(labels)}
    rest = [word for word in POOLS[slot] if word not in words]

    def row(r: random.Random) -> tuple[str, str]:
        label = r.choice((*labels, other))
        word = r.choice(lists.get(label, rest))
        return a_document(r, kind, **{slot: (word, word)}).text, label

    called = kind.called[slot]
    notes = (*(f'"{label}": {", ".join(some)}.' for label, some in lists.items()),
             f'Any other {called}: "{other}".')  # fmt: skip
    rules = "; ".join(f"{', '.join(some)} -> {label}" for label, some in lists.items())
    terse = f"route by {called}: {rules}; else {other}"
    return build("route_by_list", (kind.given, *words, *labels, other),
                 Phrases(kind.given, f"answer with the label for the {called}", terse, notes),
                 row, (*labels, other))  # fmt: skip


def missing_detail(rng: random.Random) -> Variant:
    """Which of the details that are needed is missing, or that none is."""
    called = {"phone": "phone number", "email": "e-mail address", "city": "city",
              "number": "order number", "date": "date"}  # fmt: skip
    needed = rng.sample(tuple(called), 3)
    labels, fine = some_labels(rng, 3), rng.choice(("complete", "ok", "nothing", "all there", "-"))
    topic = rng.choice(PRODUCTS)

    def row(r: random.Random) -> tuple[str, str]:
        gone = r.choice((None, *needed))
        there = [s for s in r.sample(needed, 3) if s != gone]
        parts = ", ".join(f"{called[s]} {FACTS[s](r)[0]}" for s in there)
        text = f"{FACTS['name'](r)[0]} asks about the {topic}, {parts}"
        return text, fine if gone is None else labels[needed.index(gone)]

    rules = [f'"{a}" if the {called[s]} is missing' for a, s in zip(labels, needed, strict=True)]
    do = f'answer {", ".join(rules)}, and "{fine}" if nothing is missing'
    terse = f'request about the {topic}: {", ".join(rules)}, else "{fine}"'
    return build("missing_detail", (*needed, *labels, fine, topic),
                 Phrases(f"a request about the {topic} with contact details", do, terse), row,
                 (*labels, fine))  # fmt: skip


JUDGING_FAMILIES = (
    threshold_in_text, two_conditions_in_text, bands_in_text, priority_by_criteria, route_by_list,
    missing_detail,
)  # fmt: skip
