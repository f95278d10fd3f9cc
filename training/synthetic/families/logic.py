"""Families that judge an input by a stated rule."""

import random
from collections.abc import Callable

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import (
    CITIES,
    DEPARTMENTS,
    NAMES,
    NONSENSE,
    PRODUCTS,
    SEPARATORS,
    THEMES,
    VERBS,
    VISIBLE_SEPARATORS,
    WORDS,
    a_sentence,
    some_labels,
    two_labels,
)
from training.synthetic.variant import Variant


def mentions_word(rng: random.Random) -> Variant:
    """Whether a sentence holds one of two words that the description names."""
    words, (yes, no) = rng.sample(VERBS, 2), two_labels(rng)
    absent = rng.random() < 0.5
    first, second = words
    rule = f'neither "{first}" nor "{second}"' if absent else f'"{first}" or "{second}"'

    def row(r: random.Random) -> tuple[str, str]:
        text = a_sentence(r)
        verb = next(w for w in text.split() if w in VERBS)
        if r.random() < 0.5:
            text = text.replace(verb, r.choice(words), 1)
        found = not {*words}.isdisjoint(text.split())
        return text, yes if found != absent else no

    do = f'answer "{yes}" if the sentence contains {rule}, and "{no}" otherwise'
    phrases = Phrases("a sentence", do, f"contains {rule} -> {yes}, else {no}")
    return build("mentions_word", (*words, absent, yes, no), phrases, row, (yes, no))


def amount_rule(rng: random.Random) -> Variant:
    """A limit on an amount with an exception for some people."""
    limit, free = rng.randrange(50, 500, 10), rng.sample(NAMES, 2)
    yes, no = two_labels(rng)
    always = rng.random() < 0.5
    why = f"for {free[0]} and {free[1]} it is {'always' if always else 'never'}"
    thing = rng.choice(PRODUCTS)

    def row(r: random.Random) -> tuple[str, str]:
        name = r.choice(free) if r.random() < 0.4 else r.choice([n for n in NAMES if n not in free])
        amount = r.randrange(10, 2 * limit, 5)
        holds = always if name in free else amount > limit
        return f"{name} orders a {thing} for {amount}", yes if holds else no

    do = f'answer "{yes}" if the amount is over {limit}, otherwise "{no}"'
    note = f'The amount does not matter for some: {why} "{yes}".'
    terse = f"over {limit} -> {yes}, else {no}, but {why} {yes}"
    return build(
        "amount_rule",
        (limit, *free, yes, no, always, thing),
        Phrases("an order with name and amount", do, terse, (note,)),
        row,
        (yes, no),
    )


def ordered_label(rng: random.Random) -> Variant:
    """Whether the numbers of a list go up or down, or the words of one do."""
    glue, up = rng.choice(SEPARATORS), rng.random() < 0.5
    yes, no = two_labels(rng)
    words = rng.random() < 0.5
    order = ("alphabetical order" if up else "reverse alphabetical order") if words else (
        "rising order" if up else "falling order")  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        pool = sorted(WORDS) if words else range(1, 100)
        items = sorted(r.sample(pool, r.randint(3, 5)), reverse=not up)
        wanted = r.random() < 0.5
        if not wanted:
            i = r.randrange(len(items) - 1)
            items = items[::-1] if r.random() < 0.4 else [
                *items[:i], items[i + 1], items[i], *items[i + 2 :]]  # fmt: skip
        return glue.join(map(str, items)), yes if wanted else no

    given = f'{"words" if words else "numbers"} separated by "{glue}"'
    do = f'answer "{yes}" if they are in {order}, and "{no}" otherwise'
    return build(
        "ordered_label",
        (glue, order, yes, no),
        Phrases(given, do, f"{given}: {order} -> {yes}, else {no}"),
        row,
        (yes, no),
    )


def same_feature(rng: random.Random) -> Variant:
    """Whether two words share a feature."""
    features: dict[str, Callable[[str], object]] = {
        "begin with the same letter": lambda w: w[0],
        "end with the same letter": lambda w: w[-1],
        "have the same number of letters": len,
    }
    feature, glue = rng.choice(tuple(features)), rng.choice(VISIBLE_SEPARATORS)
    yes, no = two_labels(rng)

    def row(r: random.Random) -> tuple[str, str]:
        word, key = r.choice(WORDS), features[feature]
        pool = [w for w in WORDS if w != word]
        same = [w for w in pool if key(w) == key(word)]
        other = r.choice(same) if same and r.random() < 0.5 else r.choice(pool)
        return f"{word}{glue}{other}", yes if key(word) == key(other) else no

    do = f'answer "{yes}" if both words {feature}, and "{no}" if they do not'
    given = f'two words separated by "{glue}"'
    return build(
        "same_feature",
        (feature, glue, yes, no),
        Phrases(given, do, f"{given}: they {feature} -> {yes}, else {no}"),
        row,
        (yes, no),
    )


def vote_result(rng: random.Random) -> Variant:
    """The winner, the loser or the margin of a vote."""
    first, second = rng.sample(NONSENSE, 2)
    glue, ask = rng.choice(SEPARATORS), rng.choice(("more", "fewer"))
    a, b = some_labels(rng, 2)

    def row(r: random.Random) -> tuple[str, str]:
        votes = r.choices((first, second), k=r.choice((3, 5, 7)))
        ahead = votes.count(first) > votes.count(second)
        return glue.join(votes), a if ahead == (ask == "more") else b

    do = f'answer "{a}" if there are {ask} votes for {first} than for {second}, otherwise "{b}"'
    given = f'votes for {first} or {second}, separated by "{glue}"'
    return build(
        "vote_result",
        (first, second, glue, ask, a, b),
        Phrases(given, do, f"{given}: {ask} {first} -> {a}, else {b}"),
        row,
        (a, b),
    )


def two_way_table(rng: random.Random) -> Variant:
    """A label by two features at once."""
    teams, cities = rng.sample(DEPARTMENTS, 2), rng.sample(CITIES, 2)
    labels = some_labels(rng, 4)

    def row(r: random.Random) -> tuple[str, str]:
        i, j = r.randrange(2), r.randrange(2)
        text = f"{r.choice(NAMES)} of {teams[i]} in {cities[j]} needs a {r.choice(PRODUCTS)}"
        return text, labels[2 * i + j]

    cells = [(t, c) for t in teams for c in cities]
    rules = ", ".join(f"{t} in {c}: {a}" for (t, c), a in zip(cells, labels, strict=True))
    return build("two_way_table", (rules,),
                 Phrases("a request that names a department and a city",
                         "answer with the label for this department and city",
                         f"label by department and city. {rules}", (f"Labels are {rules}.",)),
                 row, labels)  # fmt: skip


def odd_one_out(rng: random.Random) -> Variant:
    """The one item of a list that does, or does not, belong to a kind."""
    kind, other = rng.sample(tuple(THEMES), 2)
    glue, place = rng.choice(VISIBLE_SEPARATORS), rng.random() < 0.4
    member = rng.random() < 0.5

    def row(r: random.Random) -> tuple[str, str]:
        many, one = (other, kind) if member else (kind, other)
        odd = r.choice([w for w in THEMES[one] if w not in THEMES[many]])
        items = r.sample([w for w in THEMES[many] if w not in THEMES[one]], r.randint(3, 4))
        items.insert(at := r.randint(0, len(items)), odd)
        return glue.join(items), str(at + 1) if place else odd

    which = (
        f"the one that belongs to the {kind}" if member else f"the one that is not of the {kind}"
    )
    do = f"give the number of the place (from 1) of {which}" if place else f"name {which}"
    given = f'a list with words for {kind} and for {other}, separated by "{glue}"'
    return build("odd_one_out", (kind, other, glue, place, member),
                 Phrases(given, do, f"{given}: {do}"), row)  # fmt: skip


LOGIC_FAMILIES = (
    mentions_word, amount_rule, ordered_label, same_feature,
    vote_result, two_way_table, odd_one_out,
)  # fmt: skip
