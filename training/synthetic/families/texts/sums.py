"""Families that compute something from the numbers of a text, or compare two of them."""

import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.texts.extraction import framed
from training.synthetic.families.words import CITIES, NAMES, PRODUCTS, two_labels
from training.synthetic.variant import Variant

ORDERS = (
    "{n} x {a} at {p} each, for {name}", "Please send {name} {n} pieces of {a}, unit price {p}.",
    "{name} in {city} wants {a}: {n} pieces, {p} apiece", "{a} | {p} per piece | {n} pieces",
    "I'd like to order {a}. {n} of them at {p} each. Thanks, {name}",
)  # fmt: skip
OFFERS = (
    "{a} from {x} for {p}, {b} from {y} for {q}", "{x} sells {a} at {p}; {y} sells {b} at {q}.",
    "Offer 1: {a}, {x}, {p}. Offer 2: {b}, {y}, {q}.", "{a} ({x}) {p} / {b} ({y}) {q}",
)  # fmt: skip
STOCKS = (
    "We had {n} pieces of {a} and sold {m}.", "{a}: {n} in stock, {m} went out to {city}",
    "Of {n} {a} boxes {m} were sent to {name}.", "stock {a} {n}, taken {m} ({city})",
    "{name} took {m} of the {n} pieces of {a}.",
)  # fmt: skip
SPANS = (
    "The meeting with {name} is from {x} to {y}.", "{name}: {x} - {y}, {city}",
    "Open from {x} until {y} in {city}", "started {x}, ended {y}, {name}",
    "We begin at {x} and stop at {y}, says {name}.",
)  # fmt: skip
SHAPES = ("{m} min", "{m}", "{h}h{r:02}", "{h}:{r:02}", "{m} minutes", "{h} h {r} min")


def total_in_text(rng: random.Random) -> Variant:
    """The price of an order, with or without shipping."""
    shipping, (left, right, form) = rng.choice((0, 0, 2, 4, 5, 10, 20)), framed(rng)
    less = rng.choice((0, 0, 0, 1, 3))
    sign = rng.choice(("€", "$", "£", "EUR ", "USD ", ""))

    def row(r: random.Random) -> tuple[str, str]:
        n, price = r.randint(2, 12), r.choice((2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 50))
        text = r.choice(ORDERS).format(n=n, p=f"{sign}{price}", a=r.choice(PRODUCTS),
                                       name=r.choice(NAMES), city=r.choice(CITIES))  # fmt: skip
        return text, f"{left}{n * price + shipping - less}{right}"

    plus = f" plus {shipping} for shipping" if shipping else ""
    minus = f", minus {less} for the voucher" if less else ""
    money = f"an order with prices in {sign.strip()}" if sign else "an order"
    do = f"give the total price of all pieces{plus}{minus}, digits only{form}"
    return build("total_in_text", (shipping, less, left, right, sign),
                 Phrases(money, do, f"{money}: {do.removeprefix('give the ')}"), row)  # fmt: skip


def better_offer(rng: random.Random) -> Variant:
    """What one of two offers says, the one with the lower or the higher price."""
    most, ask = rng.choice(("lower", "higher")), rng.choice(("product", "city", "price", "both"))
    left, right, form = framed(rng)
    sign = rng.choice(("€", "$", "£"))

    def row(r: random.Random) -> tuple[str, str]:
        (a, b), (x, y) = r.sample(PRODUCTS, 2), r.sample(CITIES, 2)
        p, q = r.sample(range(5, 300), 2)
        text = r.choice(OFFERS).format(a=a, b=b, x=x, y=y, p=f"{sign}{p}", q=f"{sign}{q}")
        product, city, price = (a, x, p) if (p < q) == (most == "lower") else (b, y, q)
        answer = {"product": product, "city": city, "price": f"{sign}{price}",
                  "both": f"{product}, {city}"}[ask]  # fmt: skip
        return text, left + answer + right

    what = {"both": "product and the city, separated by a comma and a space,",
            "price": "price with its currency sign"}.get(ask, ask)  # fmt: skip
    do = f"give the {what} of the offer with the {most} price{form}"
    given = f"a pair of offers with prices in {sign}"
    return build("better_offer", (most, ask, left, right, sign),
                 Phrases(given, do, f"{given}: {do.removeprefix('give the ')}"), row)  # fmt: skip


def stock_left(rng: random.Random) -> Variant:
    """How much is left of a stock, as a number or as a label."""
    (left, right, form), label = framed(rng), rng.random() < 0.5
    limit, labels = rng.randint(5, 40) if label else 20, two_labels(rng)
    few, many = labels

    def row(r: random.Random) -> tuple[str, str]:
        low = r.random() < 0.5
        rest = r.randint(1, limit - 1) if low else r.randint(limit, 2 * limit)
        m = r.randint(1, 50)
        text = r.choice(STOCKS).format(n=rest + m, m=m, a=r.choice(PRODUCTS), city=r.choice(CITIES),
                                       name=r.choice(NAMES))  # fmt: skip
        return text, (few if low else many) if label else f"{left}{rest}{right}"

    given = "a note on a stock and what was taken from it"
    if label:
        do = f'answer "{few}" if fewer than {limit} are left, and "{many}" otherwise'
        terse = f"stock note: under {limit} left -> {few}, else {many}"
        parameters: tuple[object, ...] = (limit, few, many)
        return build("stock_left", parameters, Phrases(given, do, terse), row, labels)
    unit = rng.choice(("pieces", "units", "items"))
    do = f"say how many {unit} are left, digits only{form}"
    return build("stock_left", (left, right, unit),
                 Phrases(given, do, f"stock note -> {unit} left, digits only{form}"),
                 row)  # fmt: skip


def time_span(rng: random.Random) -> Variant:
    """How long something lasts, less a break."""
    away, glue = rng.choice((0, 0, 10, 15, 30, 45)), rng.choice((":", ".", "h"))
    shape = rng.choice(SHAPES)
    (left, right, _), spans = framed(rng), range(60, 300, 5)

    def row(r: random.Random) -> tuple[str, str]:
        start, span = r.randrange(7 * 12, 17 * 12) * 5, r.choice(spans)
        x, y = (f"{t // 60:02}{glue}{t % 60:02}" for t in (start, start + span))
        text = r.choice(SPANS).format(x=x, y=y, name=r.choice(NAMES), city=r.choice(CITIES))
        hours, rest = divmod(span - away, 60)
        return text, left + shape.format(m=span - away, h=hours, r=rest) + right

    shown = left + shape.format(m=125, h=2, r=5) + right
    less = f", less a break of {away} minutes" if away else ""
    do = f"give the time from start to end{less}, as `{shown}` for 2 hours and 5 minutes"
    given = f"a text with two times like 09{glue}30"
    return build("time_span", (away, glue, shape, left, right),
                 Phrases(given, do, f"{given}: {do.removeprefix('give the ')}"), row)  # fmt: skip


SUM_FAMILIES = (total_in_text, better_offer, stock_left, time_span)
