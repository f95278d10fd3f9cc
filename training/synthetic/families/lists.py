"""Families over lists of items on one line."""

import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import (
    ORDINALS,
    SEPARATORS,
    THEMES,
    VISIBLE_SEPARATORS,
    position,
)
from training.synthetic.variant import Variant

KINDS = tuple(THEMES)


def _some(r: random.Random, theme: str, low: int = 4, high: int = 6) -> list[str]:
    return r.sample(THEMES[theme], r.randint(low, high))


def _given(theme: str, glue: str) -> str:
    return f'a list of {theme} separated by "{glue}"'


def sort_items(rng: random.Random) -> Variant:
    """Items in alphabetical order, or by length, up or down."""
    theme, glue, out = rng.choice(KINDS), rng.choice(SEPARATORS), rng.choice(VISIBLE_SEPARATORS)
    order = rng.choice(("alphabetical", "reverse alphabetical"))
    by_end = rng.random() < 0.25
    note = ("Compare the items by their last letters only; keep the given order where those are "
            "equal.",) if by_end else ()  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme)
        down = order != "alphabetical"
        done = sorted(items, key=lambda w: w[-1] if by_end else w, reverse=down)
        return glue.join(items), out.join(done)

    do = f'sort the {theme} in {order} order and join them with "{out}"'
    terse = f'sort {theme} (split at "{glue}") in {order} order' + (
        " by last letter (stable)" if by_end else "") + f', join with "{out}"'  # fmt: skip
    phrases = Phrases(_given(theme, glue), do, terse, note)
    return build("sort_items", (theme, glue, out, order, by_end), phrases, row)


def pick_item(rng: random.Random) -> Variant:
    """The n-th item from an end."""
    theme, glue = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS)
    n, end = rng.randint(1, 4), rng.choice(("start", "end"))
    upper = rng.random() < 0.3
    form = " in capital letters" if upper else ""

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme)
        item = items[n - 1 if end == "start" else -n]
        return glue.join(items), item.upper() if upper else item

    do = f"answer with the {position(n, end)} item of the list{form}"
    terse = f'{position(n, end)} of the {theme} (list split at "{glue}"){form}'
    return build("pick_item", (theme, glue, n, end, upper),
                 Phrases(_given(theme, glue), do, terse), row)  # fmt: skip


def trim_list(rng: random.Random) -> Variant:
    """The first or last n items kept or dropped."""
    theme, glue, out = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS), rng.choice(SEPARATORS)
    n, end, act = rng.randint(1, 3), rng.choice(("first", "last")), rng.choice(("keep", "remove"))
    what = f"the {end} item" if n == 1 else f"the {end} {n} items"
    do = f"{act} only {what}" if act == "keep" else f"remove {what}"

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme, 4, 6)
        at = n if end == "first" else len(items) - n
        kept = items[:at] if (end == "first") == (act == "keep") else items[at:]
        return glue.join(items), out.join(kept)

    note = f'Separate what is left by "{out}".'
    terse = f'{theme} split at "{glue}": {do}, join with "{out}"'
    phrases = Phrases(_given(theme, glue), do, terse, (note,))
    return build("trim_list", (theme, glue, out, n, end, act), phrases, row)


def filter_by_letters(rng: random.Random) -> Variant:
    """Items kept or removed by a letter that they hold, begin or end with, or by their length."""
    theme, glue = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS)
    keep, nothing = rng.random() < 0.5, rng.choice(("none", "-", "nothing", "empty"))
    letter, n = rng.choice("aelorst"), rng.randint(5, 7)
    tests = {
        f'contain the letter "{letter}"': lambda w: letter in w,
        f'end with the letter "{letter}"': lambda w: w.endswith(letter),
        f"have more than {n} letters": lambda w: len(w) > n,
        f"have fewer than {n} letters": lambda w: len(w) < n,
    }
    rule = rng.choice(tuple(tests))
    act = "keep only" if keep else "remove"

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme)
        return glue.join(items), glue.join(w for w in items if tests[rule](w) == keep) or nothing

    do = f"{act} the items that {rule}, in the given order and with the same separator"
    what = f'{theme} split at "{glue}": {act} those that {rule}, same separator'
    terse = f'{what}; "{nothing}" if none left'
    note = f'If nothing is left, answer "{nothing}".'
    phrases = Phrases(_given(theme, glue), do, terse, (note,))
    return build("filter_by_letters", (theme, glue, keep, nothing, rule), phrases, row)


def rejoin_items(rng: random.Random) -> Variant:
    """Another separator, a word before the last item."""
    theme = rng.choice(KINDS)
    glue, out = rng.sample(VISIBLE_SEPARATORS, 2)
    last = rng.choice(("and", "or", "and also", "but not", "plus", "as well as", "then"))
    turned = rng.random() < 0.4

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme, 3, 5)
        done = items[::-1] if turned else items
        return glue.join(items), f"{out.join(done[:-1])} {last} {done[-1]}"

    order = "in reverse order" if turned else "in the same order"
    do = f'write the items {order} with "{out}" between them, but "{last}" before the last one'
    terse = f'{theme} split at "{glue}", {order}, joined with "{out}", "{last}" before the last'
    return build("rejoin_items", (theme, glue, out, last, turned),
                 Phrases(_given(theme, glue), do, terse), row)  # fmt: skip


def repeated_items(rng: random.Random) -> Variant:
    """Duplicates dropped, or only they kept, or only what occurs once."""
    theme, glue, out = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS), rng.choice(SEPARATORS)
    what = rng.choice(("every item once, where it first occurs", "only the items that occur twice",
                       "only the items that occur once"))  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme, 4, 5)
        twice = r.sample(items, 2)
        full = items + twice
        r.shuffle(full)
        order = list(dict.fromkeys(full))
        kept = {"twice": [w for w in order if w in twice], "once": [w for w in order
                if w not in twice]}.get(what.split()[-1], order)  # fmt: skip
        return glue.join(full), out.join(kept)

    do = f'list {what}, in the order of the input, separated by "{out}"'
    terse = f'{theme} split at "{glue}": {what}, input order, join with "{out}"'
    return build("repeated_items", (theme, glue, out, what),
                 Phrases(_given(theme, glue), do, terse), row)  # fmt: skip


def neighbour_item(rng: random.Random) -> Variant:
    """The item k places before or after a named one."""
    theme, glue = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS)
    mark, side = rng.choice((" ? ", " : ", " # ", " => ")), rng.choice(("before", "after"))
    k = rng.randint(1, 2)
    away = "directly" if k == 1 else "two places"

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme, 5, 6)
        at = r.randrange(k, len(items) - k)
        return glue.join(items) + mark + items[at], items[at + (k if side == "after" else -k)]

    given = f'a list of {theme} separated by "{glue}", then "{mark.strip()}" and one of the items'
    do = f"name the item that stands {away} {side} the item named last"
    terse = (
        f'{theme} split at "{glue}", then "{mark.strip()}" and one: which one is {away} {side} it'
    )
    return build("neighbour_item", (theme, glue, mark, side, k), Phrases(given, do, terse), row)


def alphabetical_extreme(rng: random.Random) -> Variant:
    """The item that comes first, second, last ... in the alphabet."""
    theme, glue = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS)
    n, end = rng.randint(1, 2), rng.choice(("start", "end"))
    where = position(n, end)

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme)
        return glue.join(items), sorted(items)[n - 1 if end == "start" else -n]

    do = f"name the item that would be {where} in alphabetical order"
    terse = f'{theme} split at "{glue}": the alphabetically {where} one'
    return build("alphabetical_extreme", (theme, glue, n, end),
                 Phrases(_given(theme, glue), do, terse), row)  # fmt: skip


def number_items(rng: random.Random) -> Variant:
    """Items numbered or lettered in a drawn style."""
    theme, glue, out = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS), rng.choice(SEPARATORS)
    style, start = rng.choice(("{}) ", "{}. ", "{}:", "[{}] ", "#{} ", "{}=")), rng.randint(0, 5)
    down = rng.random() < 0.4

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme, 3, 4)
        numbers = [start + i for i in range(len(items))][:: -1 if down else 1]
        pairs = zip(numbers, items, strict=True)
        return glue.join(items), out.join(style.format(n) + w for n, w in pairs)

    shown = style.format("N") + "item"
    order = f"down so that the last item gets {start}" if down else f"up from {start}"
    do = f'number the items {order}, each in the form "{shown}", separated by "{out}"'
    terse = f'{theme} split at "{glue}": number {order}, form "{shown}", join with "{out}"'
    return build("number_items", (theme, glue, out, style, start, down),
                 Phrases(_given(theme, glue), do, terse), row)  # fmt: skip


def rearrange_items(rng: random.Random) -> Variant:
    """Two places swapped, or items moved from one end to the other."""
    theme, glue, k = rng.choice(KINDS), rng.choice(VISIBLE_SEPARATORS), rng.randint(1, 2)
    i, j = sorted(rng.sample(range(4), 2))
    some = "item" if k == 1 else f"{k} items"
    do = rng.choice((
        f"swap the {ORDINALS[i]} and the {ORDINALS[j]} item",
        f"move the first {some} to the end",
        f"move the last {some} to the front",
    ))  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        items = _some(r, theme)
        done = items[k:] + items[:k] if "first" in do else items[-k:] + items[:-k]
        if do.startswith("swap"):
            done = list(items)
            done[i], done[j] = items[j], items[i]
        return glue.join(items), glue.join(done)

    note = "Keep the separator and the order of the others."
    phrases = Phrases(
        _given(theme, glue), do, f'{theme} split at "{glue}": {do}, rest as is', (note,)
    )
    return build("rearrange_items", (theme, glue, do), phrases, row)


LIST_FAMILIES = (
    sort_items, pick_item, trim_list, filter_by_letters, rejoin_items, repeated_items,
    neighbour_item, alphabetical_extreme, number_items, rearrange_items,
)  # fmt: skip
