"""Families that look something up in a table or a text that stands in the description."""

import random

from training.synthetic.families.phrasing import Phrases, build, listed
from training.synthetic.families.words import (
    ADJECTIVES,
    CITIES,
    DEPARTMENTS,
    NAMES,
    NONSENSE,
    PRODUCTS,
    THEMES,
    VERBS,
    some_codes,
    some_labels,
)
from training.synthetic.variant import Variant

MESSAGES = ("the {} is late", "order one {}", "I saw the {} again", "who has my {}", "lost: {}")
POOLS = (*THEMES.values(), PRODUCTS, CITIES, NAMES, DEPARTMENTS)


def _table(pairs: dict[str, str], arrow: str) -> str:
    return ", ".join(f"{key}{arrow}{value}" for key, value in pairs.items())


def code_table(rng: random.Random) -> Variant:
    """A code for a word, or the word for a code."""
    table = dict(zip(rng.sample(rng.choice(POOLS), n := rng.randint(4, 6)), some_codes(rng, n),
                     strict=True))  # fmt: skip
    back, arrow = rng.random() < 0.4, rng.choice((" = ", ": ", " -> ", " "))
    asked = {value: key for key, value in table.items()} if back else table

    def row(r: random.Random) -> tuple[str, str]:
        key = r.choice(tuple(asked))
        return key, asked[key]

    given, do = ("a code", "give the word that the code stands for") if back else (
        "a word of the table", "give its code")  # fmt: skip
    text = _table(table, arrow)
    return build("code_table", (text, back),
                 Phrases(given, do, f"{given} -> {'word' if back else 'code'}. {text}",
                         (f"Table: {text}.",)), row, asked.values())  # fmt: skip


def price_table(rng: random.Random) -> Variant:
    """The price of one product or of several, or the cheaper or dearer of two."""
    sign = rng.choice(("$", "€", "£", ""))
    prices = dict(zip(rng.sample(PRODUCTS, 4), rng.sample(range(2, 40), 4), strict=True))
    task = rng.choice(("cheaper", "dearer", "total", "difference"))

    def row(r: random.Random) -> tuple[str, str]:
        a, b = r.sample(tuple(prices), 2)
        low, high = sorted((a, b), key=prices.__getitem__)
        worth = prices[high] + prices[low] * (1 if task == "total" else -1)
        return f"{a}, {b}", {"cheaper": low, "dearer": high}.get(task, f"{sign}{worth}")

    text = _table({k: f"{sign}{v}" for k, v in prices.items()}, " ")
    form = f' with "{sign}" in front' if sign else ""
    do = f"name the {task} one" if task[0] == "c" or task == "dearer" else (
        f"give the {task} of their prices{form}")  # fmt: skip
    return build("price_table", (text, task), Phrases("two products", do,
                 f"two products: {do}. prices: {text}", (f"Prices: {text}.",)), row)  # fmt: skip


def group_label(rng: random.Random) -> Variant:
    """The label of the group to which the word in a sentence belongs."""
    themes = rng.sample(tuple(THEMES), 3)
    labels = some_labels(rng, 3)

    def row(r: random.Random) -> tuple[str, str]:
        k = r.randrange(3)
        others = {w for theme in themes if theme != themes[k] for w in THEMES[theme]}
        word = r.choice([w for w in THEMES[themes[k]] if w not in others])
        return r.choice(MESSAGES).format(word), labels[k]

    pairs = dict(zip(themes, labels, strict=True))
    rules = listed(f'"{label}" for {theme}' for theme, label in pairs.items())
    terse = "what is it about: " + ", ".join(f"{t} -> {v}" for t, v in pairs.items())
    phrases = Phrases("a short message about one thing", f"answer by its kind: {rules}", terse)
    return build("group_label", (*pairs.items(),), phrases, row, labels)


def keyword_route(rng: random.Random) -> Variant:
    """A label by the word that a sentence holds, and another one where it holds none."""
    adjectives, labels = rng.sample(ADJECTIVES, 3), some_labels(rng, 4)
    *named, other = labels

    def row(r: random.Random) -> tuple[str, str]:
        k = r.randrange(4)
        word = adjectives[k] if k < 3 else r.choice([a for a in ADJECTIVES if a not in adjectives])
        thing, verb = r.choice(THEMES["animals"]), r.choice(VERBS)
        return f"the {word} {thing} {verb} a {r.choice(THEMES['tools'])}", labels[k]

    rules = [f'"{w}" means {a}' for w, a in zip(adjectives, named, strict=True)]
    notes = (f"{listed(rules)}.", f"If none of these words occurs, answer {other}.")
    terse = f"by keyword: {', '.join(f'{w} {a}' for w, a in zip(adjectives, named, strict=True))}"
    return build("keyword_route", (*adjectives, *labels),
                 Phrases("a sentence", "answer with the label of the word that occurs in it",
                         f"{terse}, else {other}", notes), row, labels)  # fmt: skip


def keyword_priority(rng: random.Random) -> Variant:
    """Of two keywords in a line, the label of the one that has priority."""
    words, labels = rng.sample(DEPARTMENTS, 3), some_labels(rng, 3)
    top = rng.choice(("first", "last"))

    def row(r: random.Random) -> tuple[str, str]:
        i, j = r.sample(range(3), 2)
        k = min(i, j) if top == "first" else max(i, j)
        text = f"{r.choice(NAMES)} asks {words[i]} and {words[j]} about the {r.choice(PRODUCTS)}"
        return text, labels[k]

    order = ", ".join(words)
    codes = ", ".join(f"{w} = {a}" for w, a in zip(words, labels, strict=True))
    do = f"answer with the label of that department in the text which comes {top} in this order"
    notes = (f"Order: {order}.", f"Labels: {codes}.")
    terse = f"two departments occur; take the one {top} in the list and give its label: {codes}"
    return build(
        "keyword_priority",
        (*words, *labels, top),
        Phrases("a sentence that names two departments", do, terse, notes),
        row,
        labels,
    )


def ranked_choice(rng: random.Random) -> Variant:
    """Which of two things stands higher or lower in a list of the description."""
    ranked = rng.sample(rng.choice(POOLS), rng.randint(5, 6))
    top, glue = rng.random() < 0.5, rng.choice((" or ", " vs ", " / ", ", ", " and "))
    side = "earlier" if top else "later"

    def row(r: random.Random) -> tuple[str, str]:
        pair = r.sample(ranked, 2)
        return glue.join(pair), (min if top else max)(pair, key=ranked.index)

    order = ", ".join(ranked)
    do = f"answer with the one that comes {side} in the list"
    return build("ranked_choice", (*ranked, side, glue),
                 Phrases(f'two of the words, with "{glue.strip()}" between them', do,
                         f'words around "{glue.strip()}": the one {side} in {order}',
                         (f"List: {order}.",)), row)  # fmt: skip


def made_up_words(rng: random.Random) -> Variant:
    """Words translated with a made-up dictionary, in a drawn order."""
    known = rng.sample(THEMES["animals"], 2) + rng.sample(ADJECTIVES, 2)
    table = dict(zip(known, rng.sample(NONSENSE, 4), strict=True))
    back, turned = rng.random() < 0.4, rng.random() < 0.5
    order = "in reverse order" if turned else "in the same order"
    direction = "into English" if back else "from English"

    def row(r: random.Random) -> tuple[str, str]:
        english = [*r.sample(known, r.randint(2, 3))]
        foreign = [table[w] for w in english]
        source, target = (foreign, english) if back else (english, foreign)
        return " ".join(source), " ".join(target[::-1] if turned else target)

    text = _table(table, " = ")
    return build(
        "made_up_words",
        (text, back, turned),
        Phrases(
            "some words of the dictionary",
            f"translate them {direction}, {order}",
            f"translate {direction} {order}: {text}",
            (f"Dictionary: {text}.",),
        ),
        row,
    )


def default_table(rng: random.Random) -> Variant:
    """Exceptions that the description names, and one answer for all others."""
    pool = rng.choice((CITIES, NAMES, PRODUCTS))
    special, labels = rng.sample(pool, 3), some_labels(rng, 3)
    first, second, other = labels

    def row(r: random.Random) -> tuple[str, str]:
        if r.random() < 0.35:
            return r.choice([w for w in pool if w not in special]), other
        word = r.choice(special)
        return word, second if word == special[2] else first

    a, b, c = special
    kind = {CITIES: "city", NAMES: "name", PRODUCTS: "product"}[pool]
    do = f'answer "{first}" for {a} and {b}, "{second}" for {c}, and "{other}" for any other {kind}'
    terse = f"{a}, {b}: {first}; {c}: {second}; any other {kind}: {other}"
    return build("default_table", (*special, *labels), Phrases(f"a {kind}", do, terse), row, labels)


def next_stop(rng: random.Random) -> Variant:
    """The stop some places after or before one, on a line that the description lists."""
    stops = rng.sample(rng.choice((CITIES, NAMES)), rng.randint(5, 7))
    n, onward = rng.randint(1, 2), rng.random() < 0.5
    side = "after" if onward else "before"
    count = "one stop" if n == 1 else "two stops"

    def row(r: random.Random) -> tuple[str, str]:
        i = r.randrange(len(stops))
        return stops[i], stops[(i + (n if onward else -n)) % len(stops)]

    line = ", ".join(stops)
    do = f"name the stop that is {count} {side} it on the ring line"
    start = f"The line is a ring: {stops[-1]} is followed by {stops[0]}."
    terse = f"ring line {line}, then {stops[0]} again: which is {count} {side} the given one"
    return build("next_stop", (*stops, n, side),
                 Phrases("a stop", do, terse, (f"Line: {line}.", start)), row)  # fmt: skip


LOOKUP_FAMILIES = (
    code_table, price_table, group_label, keyword_route, keyword_priority, ranked_choice,
    made_up_words, default_table, next_stop,
)  # fmt: skip
