"""Families over dates, weekdays and times of the day."""

import random
from datetime import date, timedelta

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import some_labels, two_labels
from training.synthetic.variant import Variant

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
FORMATS = {
    "YYYY-MM-DD": "{0.year}-{0.month:02}-{0.day:02}",
    "DD.MM.YYYY": "{0.day:02}.{0.month:02}.{0.year}",
    "MM/DD/YYYY": "{0.month:02}/{0.day:02}/{0.year}",
    "DD/MM/YYYY": "{0.day:02}/{0.month:02}/{0.year}",
    "YYYY/MM/DD": "{0.year}/{0.month:02}/{0.day:02}",
    "YYYYMMDD": "{0.year}{0.month:02}{0.day:02}",
    "DD-MM-YYYY": "{0.day:02}-{0.month:02}-{0.year}",
    "Month D, YYYY": "{1} {0.day}, {0.year}",
    "D Month YYYY": "{0.day} {1} {0.year}",
}
NUMERIC = tuple(FORMATS)[:5]


def written_date(day: date, form: str) -> str:
    """A day in one of FORMATS."""
    return FORMATS[form].format(day, MONTHS[day.month - 1])


def _a_day(r: random.Random) -> date:
    return date(r.randint(1990, 2035), r.randint(1, 12), r.randint(1, 28))


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def reformat_date(rng: random.Random) -> Variant:
    """A date in another format."""
    source, target = rng.sample(tuple(FORMATS), 2)

    def row(r: random.Random) -> tuple[str, str]:
        day = _a_day(r)
        return written_date(day, source), written_date(day, target)

    phrases = Phrases(f"a date in the format {source}", f"rewrite the date in the format {target}",
                      f"date {source} -> {target}")  # fmt: skip
    return build("reformat_date", (source, target), phrases, row)


def shift_date(rng: random.Random) -> Variant:
    """The date some days, months or years before or after."""
    form, unit = rng.choice(tuple(FORMATS)), rng.choice(("days", "years", "weeks"))
    n, later = rng.randint(1, 9), rng.random() < 0.5
    side = "after" if later else "before"
    amount = f"{n} {unit if n > 1 else unit[:-1]}"

    def row(r: random.Random) -> tuple[str, str]:
        day, k = _a_day(r), n if later else -n
        moved = day.replace(year=day.year + k) if unit == "years" else (
            day + timedelta(days=k * (7 if unit == "weeks" else 1)))  # fmt: skip
        return written_date(day, form), written_date(moved, form)

    do = f"write the date {amount} {side} it in the same format"
    phrases = Phrases(f"a date in the format {form}", do, f"{form}: {amount} {side}, same format")
    return build("shift_date", (form, amount, side), phrases, row)


def shift_name(rng: random.Random) -> Variant:
    """The weekday or month some steps before or after, written short or long."""
    cycle, kind = rng.choice(((WEEKDAYS, "weekday"), (MONTHS, "month")))
    n, later, size = rng.randint(1, 4), rng.random() < 0.5, rng.choice((2, 3, 9))
    case, side = rng.choice((str.upper, str.lower, str.title)), "after" if later else "before"
    look = {str.upper: "in capitals", str.lower: "in lower case"}.get(case, "with one capital")
    form = f"{look}, its name in full" if size == 9 else f"{look}, first {size} letters only"

    def row(r: random.Random) -> tuple[str, str]:
        i = r.randrange(len(cycle))
        return cycle[i], case(cycle[(i + (n if later else -n)) % len(cycle)][:size])

    do = f"name the {kind} that comes {n} {kind}s {side} it, {form}"
    do = do.replace(f"1 {kind}s", f"1 {kind}")
    phrases = Phrases(f"the name of a {kind}", do, f"{kind}: {n} {side}, {form}")
    return build("shift_name", (kind, n, later, size, look), phrases, row)


def date_part(rng: random.Random) -> Variant:
    """The year, month, day, quarter or half of a date."""
    form = rng.choice(tuple(FORMATS))
    parts = {
        "year": lambda d: str(d.year), "last two digits of the year": lambda d: str(d.year)[2:],
        "name of the month in English": lambda d: MONTHS[d.month - 1],
        "number of the month without a leading zero": lambda d: str(d.month),
        "day of the month without a leading zero": lambda d: str(d.day),
        "quarter as Q1, Q2, Q3 or Q4": lambda d: f"Q{(d.month + 2) // 3}",
        "half of the year as H1 or H2": lambda d: f"H{(d.month + 5) // 6}",
        "month and the year as MM/YYYY": lambda d: f"{d.month:02}/{d.year}",
    }  # fmt: skip
    part = rng.choice(tuple(parts))

    def row(r: random.Random) -> tuple[str, str]:
        day = _a_day(r)
        return written_date(day, form), parts[part](day)

    phrases = Phrases(f"a date in the format {form}", f"write the {part}", f"{form} -> {part}")
    return build("date_part", (form, part), phrases, row)


def choose_date(rng: random.Random) -> Variant:
    """The earlier or later of two dates, or its place."""
    form, glue = rng.choice(tuple(FORMATS)), rng.choice((" and ", " | ", " vs ", "; ", " or "))
    late = rng.random() < 0.5
    which = "later" if late else "earlier"
    place = rng.random() < 0.5
    first, second = some_labels(rng, 2) if place else ("", "")

    def row(r: random.Random) -> tuple[str, str]:
        one = _a_day(r)
        two = one + timedelta(days=r.choice((-1, 1)) * r.randint(5, 900))
        chosen = max(one, two) if late else min(one, two)
        label = first if chosen == one else second
        text = glue.join((written_date(one, form), written_date(two, form)))
        return text, label if place else written_date(chosen, form)

    do = f"repeat the {which} of the two dates"
    if place:
        do = f'answer "{first}" if the first date is the {which} one, else "{second}"'
    given = f'two dates in the format {form} with "{glue.strip()}" between them'
    terse = f'dates {form} around "{glue.strip()}": {do}'
    return build("choose_date", (form, glue, which, first, second), Phrases(given, do, terse), row,
                 (first, second) if place else ())  # fmt: skip


def rewrite_time(rng: random.Random) -> Variant:
    """A time of the day in another notation, moved by some minutes."""
    glue, twelve = rng.choice((":", ".", "h", " h ", "-")), rng.random() < 0.5
    move, upper = rng.choice((0, 0, 5, 10, 15, 30, 60, -5, -10, -15, -30, -60)), rng.random() < 0.5
    am, pm = ("AM", "PM") if upper else ("am", "pm")

    def row(r: random.Random) -> tuple[str, str]:
        start = 5 * r.randrange(288)
        hour, minute = divmod((start + move) % 1440, 60)
        if not twelve:
            return _clock(start), f"{hour:02}{glue}{minute:02}"
        return _clock(start), f"{(hour + 11) % 12 + 1}{glue}{minute:02} {pm if hour > 11 else am}"

    sample = f"3{glue}05 {pm}" if twelve else f"15{glue}05"
    change = f"{abs(move)} minutes {'later' if move > 0 else 'earlier'}, " if move else ""
    do = f"write the time {change}in the form in which 15:05 is {sample}"
    phrases = Phrases("a time as HH:MM (24 hours)", do, f"hh:mm {change}written like {sample}")
    return build("rewrite_time", (glue, twelve, move, am if twelve else ""), phrases, row)


def opening_hours(rng: random.Random) -> Variant:
    """Whether a time lies in a span that the description names."""
    start, end = rng.randint(6, 11), rng.randint(14, 22)
    inside, outside = two_labels(rng)
    place = rng.choice(("shop", "library", "office", "gym", "museum", "help line", "pool"))

    def row(r: random.Random) -> tuple[str, str]:
        within, span = r.random() < 0.5, end - start
        from_opening = r.randrange(span * 12) if within else r.randrange(span * 12, 288)
        return _clock(start * 60 + 5 * from_opening), inside if within else outside

    do = f'answer "{inside}" if the {place} is open at that time and "{outside}" if it is closed'
    note = f"The {place} opens at {start:02}:00 and is closed from {end:02}:00 on."
    terse = f"{place} open {start:02}:00 until before {end:02}:00: {inside} if open, else {outside}"
    return build(
        "opening_hours",
        (start, end, inside, outside, place),
        Phrases("a time as HH:MM", do, terse, (note,)),
        row,
        (inside, outside),
    )


def deadline_label(rng: random.Random) -> Variant:
    """Whether a date is before a day that the description names."""
    form, last = rng.choice(NUMERIC), _a_day(rng)
    late, timely = two_labels(rng)
    limit = written_date(last, form)

    def row(r: random.Random) -> tuple[str, str]:
        after = r.random() < 0.5
        days = r.randint(1, 700) if after else -r.randint(0, 700)
        return written_date(last + timedelta(days=days), form), late if after else timely

    do = f'answer "{late}" if the date is after {limit}, and "{timely}" if it is that day or before'
    terse = f"after {limit} ({form}) -> {late}, otherwise {timely}"
    return build(
        "deadline_label",
        (form, limit, late, timely),
        Phrases(f"a date in the format {form}", do, terse),
        row,
        (late, timely),
    )


def day_group(rng: random.Random) -> Variant:
    """Weekdays sorted into two groups that the description names."""
    chosen = sorted(rng.sample(WEEKDAYS, 3), key=WEEKDAYS.index)
    first, second = some_labels(rng, 2)
    event = rng.choice(("delivery", "meeting", "shift", "rehearsal", "visit", "backup", "class"))
    days = f"{chosen[0]}, {chosen[1]} or {chosen[2]}"

    def row(r: random.Random) -> tuple[str, str]:
        inside = r.random() < 0.5
        day = r.choice([d for d in WEEKDAYS if (d in chosen) == inside])
        hour = f"{r.randint(7, 19)}:{r.choice(('00', '15', '30'))}"
        return f"{event} on {day} at {hour}", first if inside else second

    do = f'answer "{first}" if the {event} is on {days}, and "{second}" on all other days'
    terse = f"{event} on {days}: {first}, other days: {second}"
    return build(
        "day_group",
        (days, first, second, event),
        Phrases(f"the day and hour of a {event}", do, terse),
        row,
        (first, second),
    )


DATE_FAMILIES = (
    reformat_date, shift_date, shift_name, date_part, choose_date, rewrite_time, opening_hours,
    deadline_label, day_group,
)  # fmt: skip
