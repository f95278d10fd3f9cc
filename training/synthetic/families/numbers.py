"""Families over numbers."""

import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import SEPARATORS, some_labels, two_labels
from training.synthetic.variant import Variant

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
UNITS = ("", "", " EUR", " kg", " points", " m", " units", " pieces")


def spelt(n: int, hyphen: str = "-") -> str:
    """A number from 0 to 99 in words."""
    if n < 20:
        return (DIGITS + TEENS)[n]
    return TENS[n // 10 - 2] + (hyphen + DIGITS[n % 10] if n % 10 else "")


def _numbers(r: random.Random, low: int = 1, high: int = 99) -> list[int]:
    return r.sample(range(low, high + 1), r.randint(4, 6))


def change_number(rng: random.Random) -> Variant:
    """A constant added, subtracted, multiplied, in a drawn frame."""
    n, unit = rng.randint(2, 12), rng.choice(UNITS)
    verb, solve = rng.choice((
        (f"add {n} to it", lambda x: x + n), (f"subtract {n} from it", lambda x: x - n),
        (f"subtract it from {n * 10}", lambda x: n * 10 - x),
        (f"add {n} to it, double the sum", lambda x: 2 * (x + n)),
        (f"double it, add {n} to that", lambda x: 2 * x + n),
    ))  # fmt: skip
    ending = f' followed by "{unit}"' if unit else ""

    def row(r: random.Random) -> tuple[str, str]:
        x = r.randint(1, 60)
        return str(x), f"{solve(x)}{unit}"

    phrases = Phrases("a whole number", f"{verb} and write the result{ending}",
                      f"number: {verb}, write the result{ending}")  # fmt: skip
    return build("change_number", (verb, unit), phrases, row)


def round_number(rng: random.Random) -> Variant:
    """A number rounded up or down to a multiple."""
    step, up = rng.choice((2, 5, 10, 20, 25, 50, 100)), rng.random() < 0.5
    unit = rng.choice(UNITS)
    way = "up" if up else "down"
    ending = f' followed by "{unit}"' if unit else ""

    def row(r: random.Random) -> tuple[str, str]:
        x = r.randint(step, 12 * step)
        return str(x), f"{(-(-x // step) if up else x // step) * step}{unit}"

    do = f"round the number {way} to a multiple of {step} and write it{ending}"
    note = f"A multiple of {step} stays as it is."
    phrases = Phrases("a whole number", do, f"round {way} to a multiple of {step}{ending}", (note,))
    return build("round_number", (step, up, unit), phrases, row)


def extreme_number(rng: random.Random) -> Variant:
    """The n-th largest or smallest number of a list."""
    glue, n = rng.choice(SEPARATORS), rng.randint(1, 3)
    most = rng.choice(("largest", "smallest"))
    rank = ("", "second ", "third ")[n - 1] + most
    left, right = rng.choice((("", ""), ("<", ">"), ("= ", ""), ("(", ")"), ("", "!")))
    form = f' in the form "{left}N{right}"' if left or right else ""

    def row(r: random.Random) -> tuple[str, str]:
        numbers = _numbers(r)
        found = sorted(numbers, reverse=most == "largest")[n - 1]
        return glue.join(map(str, numbers)), f"{left}{found}{right}"

    phrases = Phrases(f'some numbers separated by "{glue}"', f"give the {rank} number{form}",
                      f'numbers split at "{glue}": the {rank} one{form}')  # fmt: skip
    return build("extreme_number", (glue, n, most, left, right), phrases, row)


def summarise_numbers(rng: random.Random) -> Variant:
    """Sum, range, or the sum of the ends of a list of numbers."""
    glue, unit = rng.choice(SEPARATORS), rng.choice(UNITS)
    ways = {
        "the sum of all numbers": sum,
        "the largest number minus the smallest": lambda v: max(v) - min(v),
        "the largest number plus the smallest": lambda v: max(v) + min(v),
        "the first number plus the last": lambda v: v[0] + v[-1],
        "the first two numbers added up": lambda v: v[0] + v[1],
        "the last two numbers added up": lambda v: v[-2] + v[-1],
    }
    what = rng.choice(tuple(ways))
    ending = f' followed by "{unit}"' if unit else ""

    def row(r: random.Random) -> tuple[str, str]:
        numbers = r.sample(range(1, 31), r.randint(3, 4))
        return glue.join(map(str, numbers)), f"{ways[what](numbers)}{unit}"

    do = f"calculate {what} and write it{ending}"
    phrases = Phrases(f'whole numbers separated by "{glue}"', do,
                      f'numbers split at "{glue}": {what}{ending}')  # fmt: skip
    return build("summarise_numbers", (glue, unit, what), phrases, row)


def threshold_label(rng: random.Random) -> Variant:
    """One of two words, by a limit."""
    limit, inside = rng.randint(20, 80), rng.random() < 0.5
    above, below = two_labels(rng)
    thing = rng.choice(("a temperature", "a score", "an age", "a price", "a speed", "a quantity"))
    edge = "at or above" if inside else "above"

    def row(r: random.Random) -> tuple[str, str]:
        high = r.random() < 0.5
        edge_value = limit + (not inside)
        x = r.randint(edge_value, 100) if high else r.randint(0, edge_value - 1)
        return str(x), above if high else below

    do = f'answer "{above}" if the number is {edge} {limit} and "{below}" otherwise'
    phrases = Phrases(f"{thing}, a whole number", do,
                      f"{thing}: {edge} {limit} -> {above}, else {below}")  # fmt: skip
    return build("threshold_label", (limit, inside, above, below, thing), phrases, row,
                 (above, below))  # fmt: skip


def parity_label(rng: random.Random) -> Variant:
    """One of two words, by the parity of a digit or of the number."""
    yes, no = two_labels(rng)
    part = rng.choice(("the number", "its first digit", "its last digit", "its second digit"))
    kind = rng.choice(("even", "odd"))
    place = {"its first digit": 0, "its second digit": 1}.get(part, -1)

    def row(r: random.Random) -> tuple[str, str]:
        x = str(r.randint(100, 999))
        return x, yes if (int(x[place]) % 2 == 0) == (kind == "even") else no

    do = f'answer "{yes}" if {part} is {kind}, and "{no}" if not'
    phrases = Phrases("a number of three digits", do, f"{yes} if {part} is {kind} else {no}")
    return build("parity_label", (yes, no, part, kind), phrases, row, (yes, no))


def spell_number(rng: random.Random) -> Variant:
    """A number in words, shifted or as it is, or words as a number."""
    to_words, shift = rng.random() < 0.6, rng.choice((0, 0, 1, 2, 3, -1, -2, 10, -10))
    hyphen = rng.choice(("-", " ", "")) if to_words else "-"
    upper = to_words and rng.random() < 0.4
    change = f"add {shift} to it, then " if shift > 0 else f"subtract {-shift} from it, then "
    change = change if shift else ""
    sample = spelt(42, hyphen).upper() if upper else spelt(42, hyphen)

    def row(r: random.Random) -> tuple[str, str]:
        x = r.randint(10, 89)
        words = spelt(x + shift, hyphen)
        return (str(x), words.upper() if upper else words) if to_words else (
            spelt(x), str(x + shift))  # fmt: skip

    given = "a number in digits" if to_words else "a number in words"
    do = change + (f'spell the number in words, in the way in which 42 is "{sample}"' if to_words
                   else "write the number in digits")  # fmt: skip
    terse = f"{given}: {do}"
    return build("spell_number", (to_words, shift, hyphen, upper), Phrases(given, do, terse), row)


def filter_numbers(rng: random.Random) -> Variant:
    """Numbers kept or removed by a limit or by parity."""
    glue, limit = rng.choice(SEPARATORS), rng.randint(20, 80)
    out, keep = rng.choice(SEPARATORS), rng.random() < 0.5
    tests = {f"above {limit}": lambda x: x > limit, f"below {limit}": lambda x: x < limit,
             "even": lambda x: x % 2 == 0, "odd": lambda x: x % 2 == 1}  # fmt: skip
    rule, nothing = rng.choice(tuple(tests)), rng.choice(("none", "0", "-", "nothing left"))
    act = "keep only" if keep else "remove"

    def row(r: random.Random) -> tuple[str, str]:
        numbers = _numbers(r)
        left = [str(x) for x in numbers if tests[rule](x) == keep]
        return glue.join(map(str, numbers)), out.join(left) or nothing

    do = f'{act} the numbers that are {rule} and separate the others by "{out}"'
    do = do.replace("the others", "them") if keep else do
    terse = f'split at "{glue}", {act} numbers {rule}, join with "{out}", "{nothing}" if none'
    phrases = Phrases(f'numbers separated by "{glue}"', do, terse,
                      (f'If none is left, answer "{nothing}".',))  # fmt: skip
    return build("filter_numbers", (glue, out, keep, rule, nothing), phrases, row)


def price_change(rng: random.Random) -> Variant:
    """A price after a fixed or relative discount or surcharge."""
    percent, up = rng.choice((5, 10, 20, 25, 50)), rng.random() < 0.5
    only, sign = rng.random() < 0.4, rng.choice(("$", "€", "£", "CHF ", ""))
    what = "surcharge" if up else "discount"
    wanted = f"the amount of the {what}" if only else f"the price after the {what}"

    def row(r: random.Random) -> tuple[str, str]:
        price = 20 * r.randint(1, 20)
        part = price * percent // 100
        return str(price), f"{sign}{part if only else price + part if up else price - part}"

    form = f' with "{sign}" in front' if sign else ""
    do = f"apply a {what} of {percent}% and write {wanted}{form}"
    terse = f"{percent}% {what}; give {wanted}{form}"
    return build("price_change", (percent, up, only, sign),
                 Phrases("a price without currency", do, terse), row)  # fmt: skip


def number_band(rng: random.Random) -> Variant:
    """One of three labels, by two limits."""
    low, high = rng.randint(15, 40), rng.randint(55, 85)
    a, b, c = labels = some_labels(rng, 3)
    thing = rng.choice(("score", "wind speed", "risk value", "order size", "fill level", "age"))
    one = f"an {thing}" if thing[0] in "ao" else f"a {thing}"

    def row(r: random.Random) -> tuple[str, str]:
        k = r.randrange(3)
        bounds = ((0, low - 1), (low, high), (high + 1, 100))[k]
        return f"{thing} {r.randint(*bounds)}", labels[k]

    do = f"give the label for the {thing}"
    notes = (f'Below {low}: "{a}".', f'From {low} to {high}: "{b}".', f'Above {high}: "{c}".')
    terse = f"{thing} < {low} {a}, {low}-{high} {b}, > {high} {c}"
    return build("number_band", (low, high, a, b, c, thing),
                 Phrases(f"{one} from 0 to 100", do, terse, notes), row, labels)  # fmt: skip


NUMBER_FAMILIES = (
    change_number, round_number, extreme_number, summarise_numbers, threshold_label, parity_label,
    spell_number, filter_numbers, price_change, number_band,
)  # fmt: skip
