"""Families over quantities with units, real and made up."""

import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import NONSENSE, PRODUCTS, two_labels
from training.synthetic.variant import Variant

PAIRED = (
    ("m", "cm", 100), ("km", "m", 1000), ("cm", "mm", 10), ("kg", "g", 1000), ("t", "kg", 1000),
    ("l", "ml", 1000), ("h", "min", 60), ("min", "s", 60), ("days", "h", 24), ("weeks", "days", 7),
    ("years", "months", 12), ("GB", "MB", 1000), ("ft", "in", 12), ("yd", "ft", 3),
    ("dozen", "pieces", 12), ("lb", "oz", 16),
)  # fmt: skip
SIGNS = ("$", "€", "£", "CHF ", "USD ", "EUR ", "¥")


def _relation(large: str, small: str, factor: int) -> str:
    return f"1 {large.removesuffix('s')} = {factor} {small}"


def convert_unit(rng: random.Random) -> Variant:
    """A quantity in the smaller or the larger unit."""
    large, small, factor = rng.choice(PAIRED)
    down, named = rng.random() < 0.5, rng.random() < 0.6
    source, target = (large, small) if down else (small, large)

    def row(r: random.Random) -> tuple[str, str]:
        n = r.randint(2, 40)
        x, y = (n, n * factor) if down else (n * factor, n)
        return f"{x} {source}", f"{y} {target}" if named else str(y)

    form = f'with "{target}" after the number' if named else "as a number without unit"
    do = f"convert it to {target} and write the result {form}"
    note = _relation(large, small, factor)
    phrases = Phrases(f"a quantity in {source}", do, f"{source} -> {target}, {form}; {note}",
                      (f"{note}.",))  # fmt: skip
    return build("convert_unit", (source, target, named), phrases, row)


def invented_unit(rng: random.Random) -> Variant:
    """Units made up in the description."""
    large, small = rng.sample(NONSENSE, 2)
    factor, down, named = rng.randint(2, 12), rng.random() < 0.5, rng.random() < 0.6
    source, target = (large, small) if down else (small, large)

    def row(r: random.Random) -> tuple[str, str]:
        n = r.randint(2, 20)
        x, y = (n, n * factor) if down else (n * factor, n)
        return f"{x} {source}", f"{y} {target}" if named else str(y)

    form = f'followed by "{target}"' if named else "without a unit"
    do = f"convert the amount from {source} to {target} and write it {form}"
    note = f"One {large} is {factor} {small}."
    terse = f"1 {large} = {factor} {small}. convert {source} to {target}, {form}"
    return build("invented_unit", (large, small, factor, down, named),
                 Phrases(f"an amount in {source}", do, terse, (note,)), row)  # fmt: skip


def compare_quantities(rng: random.Random) -> Variant:
    """The larger or smaller of two quantities in different units."""
    large, small, factor = rng.choice(PAIRED)
    most, glue = (
        rng.choice(("larger", "smaller")),
        rng.choice((" or ", " vs ", " / ", " and ", ", ")),
    )
    labels = two_labels(rng) if rng.random() < 0.5 else ()

    def row(r: random.Random) -> tuple[str, str]:
        n = r.randint(2, 20)
        m = n * factor + r.choice((-1, 1)) * r.randint(1, factor)
        sides = [(n * factor, f"{n} {large}"), (m, f"{m} {small}")]
        r.shuffle(sides)
        chosen = (max if most == "larger" else min)(sides)
        answer = labels[sides.index(chosen)] if labels else chosen[1]
        return glue.join(text for _, text in sides), answer

    do = f"repeat the {most} of the two quantities"
    if labels:
        do = f'answer "{labels[0]}" if the first quantity is the {most} one, else "{labels[1]}"'
    given = f'two quantities in {large} and {small} with "{glue.strip()}" between them'
    note = _relation(large, small, factor)
    terse = f'{large} and {small} around "{glue.strip()}": {do}; {note}'
    return build("compare_quantities", (large, small, most, glue, labels),
                 Phrases(given, do, terse, (f"{note}.",)), row, labels)  # fmt: skip


def money_format(rng: random.Random) -> Variant:
    """Cents as an amount, or an amount as cents."""
    sign, point = rng.choice(SIGNS), rng.choice((".", ",", "·"))
    after, to_cents = rng.random() < 0.5, rng.random() < 0.3
    written = (lambda t: f"{t} {sign.strip()}") if after else (lambda t: f"{sign}{t}")

    def row(r: random.Random) -> tuple[str, str]:
        cents = r.randint(105, 9999)
        text = written(f"{cents // 100}{point}{cents % 100:02}")
        return (text, str(cents)) if to_cents else (str(cents), text)

    sample = written(f"12{point}05")
    given = f"an amount written like {sample}" if to_cents else "a whole number of cents"
    do = "write the amount in cents, digits only" if to_cents else (
        f"write the amount in the form in which 1205 cents are {sample}")  # fmt: skip
    terse = (
        f"like {sample} -> cents, digits only" if to_cents else f"cents -> like {sample} for 1205"
    )
    return build("money_format", (sample, to_cents), Phrases(given, do, terse), row)


def split_unit(rng: random.Random) -> Variant:
    """A number of small units as large ones and a rest, or back."""
    large, small, factor = rng.choice([p for p in PAIRED if p[2] <= 60])
    glue, joined = rng.choice((" ", " and ", ", ", " + ")), rng.random() < 0.3
    order = rng.choice(("first", "last"))

    def row(r: random.Random) -> tuple[str, str]:
        total = r.randint(factor + 1, 9 * factor)
        parts = [f"{total // factor} {large}", f"{total % factor} {small}"]
        text = glue.join(parts if order == "first" else parts[::-1])
        return (text, f"{total} {small}") if joined else (f"{total} {small}", text)

    parts = [f"2 {large}", f"1 {small}"]
    sample = glue.join(parts if order == "first" else parts[::-1])
    whole = f"{2 * factor + 1} {small}"
    before, after = (sample, whole) if joined else (whole, sample)
    do = f'write the quantity in the form in which "{before}" becomes "{after}"'
    given = f"a quantity in {small}" + (f" and {large}" if joined else "")
    terse = f'{given}: "{before}" becomes "{after}", others likewise'
    return build("split_unit", (before, after), Phrases(given, do, terse), row)


def weight_limit(rng: random.Random) -> Variant:
    """Whether a thing is within a limit stated in the description."""
    large, small, factor = rng.choice([p for p in PAIRED if p[2] >= 100])
    limit, (over, within) = rng.randint(3, 30), two_labels(rng)
    thing = rng.choice(PRODUCTS)

    def row(r: random.Random) -> tuple[str, str]:
        heavy = r.random() < 0.5
        amount = r.randint(limit * factor + 1, 2 * limit * factor)
        amount = amount if heavy else r.randint(factor, limit * factor)
        amount = amount if factor < 1000 else amount // 10 * 10 + 10 * heavy
        return f"{thing}: {amount} {small}", over if heavy else within

    do = f'answer "{over}" if it is more than {limit} {large}, otherwise "{within}"'
    note = _relation(large, small, factor)
    terse = f"{thing} in {small}: > {limit} {large} -> {over}, else {within}; {note}"
    phrases = Phrases(f"the word {thing} and a quantity in {small}", do, terse,
                      (f"{note}.",))  # fmt: skip
    return build("weight_limit", (large, small, limit, over, within, thing), phrases, row,
                 (over, within))  # fmt: skip


def quantity_part(rng: random.Random) -> Variant:
    """The number, the unit or the thing of a quantity, in a drawn form."""
    part, glue = rng.choice(("number", "unit", "thing")), rng.choice((": ", " - ", " = ", " | "))
    first = rng.choice(("thing", "quantity"))
    left, right = rng.choice((("", ""), ("[", "]"), ("<", ">"), ('"', '"'), ("(", ")")))
    form = f" between {left} and {right}" if left else ""

    def row(r: random.Random) -> tuple[str, str]:
        number, unit, thing = str(r.randint(2, 900)), r.choice(PAIRED)[1], r.choice(PRODUCTS)
        text = [thing, f"{number} {unit}"]
        found = {"number": number, "unit": unit, "thing": thing}[part]
        return glue.join(text if first == "thing" else text[::-1]), f"{left}{found}{right}"

    order = "a thing and its quantity" if first == "thing" else "a quantity and its thing"
    given = f'{order} (number and unit), with "{glue.strip()}" between them'
    terse = f'{order} around "{glue.strip()}": only the {part}{form}'
    return build("quantity_part", (part, glue, first, left),
                 Phrases(given, f"write only the {part}{form}", terse), row)  # fmt: skip


def total_quantity(rng: random.Random) -> Variant:
    """Two quantities added up or subtracted in a drawn unit."""
    large, small, factor = rng.choice(PAIRED)
    plus, glue = rng.random() < 0.5, rng.choice((" & ", ", ", "; ", " | ", " ... "))
    named = rng.random() < 0.5
    act = "add the second quantity to the first" if plus else (
        "subtract the second quantity from the first")  # fmt: skip
    form = f'in {small}, followed by "{small}"' if named else f"in {small}, as a bare number"

    def row(r: random.Random) -> tuple[str, str]:
        n, m = r.randint(2, 9), r.randint(1, factor)
        total = n * factor + (m if plus else -m)
        return f"{n} {large}{glue}{m} {small}", f"{total} {small}" if named else str(total)

    given = f'a quantity in {large} and one in {small}, separated by "{glue}"'
    note = _relation(large, small, factor)
    terse = f"{large}{glue}{small}: {act}, {form}; {note}"
    return build(
        "total_quantity",
        (large, small, plus, glue, named),
        Phrases(given, f"{act} and write the result {form}", terse, (f"{note}.",)),
        row,
    )


UNIT_FAMILIES = (
    convert_unit, invented_unit, compare_quantities, money_format, split_unit, weight_limit,
    quantity_part, total_quantity,
)  # fmt: skip
