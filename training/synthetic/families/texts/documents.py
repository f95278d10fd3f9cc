"""Short texts as they come in at an office: orders, bookings, logs, reviews, with their facts.

Written for the families that read something out of a text, or judge it.
"""

import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from training.synthetic.families.dates import WEEKDAYS, written_date
from training.synthetic.families.texts.kinds import Kind
from training.synthetic.families.words import CITIES, DEPARTMENTS, NAMES, PRODUCTS, SURNAMES

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SERVICES = (
    "checkout", "auth-api", "mailer", "search", "billing-db", "gateway", "report-job", "cache",
    "uploads", "scheduler", "frontend", "sync-worker",
)  # fmt: skip
CURRENCIES = ("€", "$", "£", "EUR", "USD", "CHF")
DATES = ("YYYY-MM-DD", "DD.MM.YYYY", "Month D, YYYY", "D Month YYYY", "YYYY/MM/DD")  # none doubtful
Fact = tuple[str, object]  # as it is written, and what it means


def _name(r: random.Random) -> Fact:
    name = f"{r.choice(NAMES)} {r.choice(SURNAMES)}"
    return name, name


def _email(r: random.Random) -> Fact:
    domain = r.choice(("example.com", "mail.example", "post.test", "acme.test"))
    text = f"{r.choice(NAMES)}{r.choice('._-')}{r.choice(SURNAMES)}@{domain}".lower()
    return text, text


def _phone(r: random.Random) -> Fact:
    """Its value is its digits."""
    digits = "0" + "".join(r.choices("123456789", k=r.randint(8, 9)))
    parts = r.choice(((0, 3, 6), (0, 4, 7), (0, 3, 5, 7)))
    groups = [digits[a:b] for a, b in zip(parts, (*parts[1:], None), strict=True)]
    glue, (first, *rest) = r.choice((" ", "-", "/", ".")), groups
    return r.choice((glue.join(groups), f"({first}) {glue.join(rest)}", digits)), digits


def _price(r: random.Random) -> Fact:
    return price_of(r, r.choice((r.randint(5, 400) * 100, r.randint(500, 250_000))))


def price_of(r: random.Random, cents: int) -> Fact:
    """An amount in some currency; its value is in cents."""
    sign = r.choice(CURRENCIES)
    number = f"{cents // 100:,}.{cents % 100:02}" if cents % 100 else f"{cents // 100:,}"
    if sign in "€$£":
        return r.choice((f"{sign}{number}", f"{number} {sign}")), cents
    return r.choice((f"{sign} {number}", f"{number} {sign}")), cents


def _date(r: random.Random) -> Fact:
    day = date(2019, 1, 1) + timedelta(days=r.randrange(3600))
    return written_date(day, r.choice(DATES)), day


def _time(r: random.Random) -> Fact:
    """Its value is in minutes after midnight."""
    minutes = r.randrange(7 * 12, 22 * 12) * 5
    hour, minute = divmod(minutes, 60)
    half = "am" if hour < 12 else "pm"
    twelve = f"{(hour - 1) % 12 + 1}:{minute:02} {half}"
    return r.choice((f"{hour:02}:{minute:02}", twelve)), minutes


def _among(pool: Collection[str]) -> Callable[[random.Random], Fact]:
    def drawn(r: random.Random) -> Fact:
        word = r.choice(tuple(pool))
        return word, word

    return drawn


def _between(low: int, high: int) -> Callable[[random.Random], Fact]:
    def drawn(r: random.Random) -> Fact:
        number = r.randint(low, high)
        return str(number), number

    return drawn


def _code(r: random.Random) -> Fact:
    code = r.choice(("{a}{b}-{n}", "{n}", "{a}{n}", "#{n}", "{a}-{n}"))
    a, b = r.choices("ABCDEFGHKLMNPQRSTUVWXYZ", k=2)
    text = code.format(a=a, b=b, n=r.randint(1000, 99999))
    return text, text


FACTS: dict[str, Callable[[random.Random], Fact]] = {
    "name": _name,
    "email": _email,
    "phone": _phone,
    "price": _price,
    "date": _date,
    "time": _time,
    "number": _code,
    "city": _among(CITIES),
    "product": _among(PRODUCTS),
    "department": _among(DEPARTMENTS),
    "weekday": _among(WEEKDAYS),
    "level": _among(LEVELS),
    "service": _among(SERVICES),
    "count": _between(2, 40),
    "people": _between(2, 90),
    "days": _between(1, 30),
    "stars": _between(1, 5),
    "ms": _between(20, 4000),
    "kilos": _between(1, 60),
}


@dataclass(frozen=True)
class Document:
    """A text; its facts as they stand there, and what they mean."""

    text: str
    shown: Mapping[str, str]
    values: Mapping[str, object]


def a_document(rng: random.Random, kind: Kind, **given: Fact) -> Document:
    """A text of a kind, with these facts in the place of drawn ones."""
    pattern = rng.choice(kind.patterns)
    slots = re.findall(r"\{(\w+)\}", pattern)
    facts = {slot: given.get(slot) or FACTS[slot](rng) for slot in slots}
    shown = {slot: text for slot, (text, _) in facts.items()}
    return Document(pattern.format(**shown), shown, {slot: v for slot, (_, v) in facts.items()})
