"""Families over office texts: facts are read back from the text, rules are applied to them anew."""

import json
import random
import re
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import pytest
from variants import parameters_of

from training.synthetic.families.registry import FAMILIES
from training.synthetic.families.texts.documents import FACTS, a_document
from training.synthetic.families.texts.extraction import NUMBERS
from training.synthetic.families.texts.kinds import KINDS, Kind
from training.synthetic.variant import Variant

BY_GIVEN = {kind.given: kind for kind in KINDS.values()}
BY_CALLED = {called: (k, s) for k in KINDS.values() for s, called in k.called.items()}
FORMS = {
    "date": r"\w+ \d+, \d{4}|\d+ \w+ \d{4}|[\d./-]{10}", "time": r"\d+:\d\d(?: [ap]m)?",
    "level": "[A-Z]+", "number": r"#?[A-Z]*-?\d+", **dict.fromkeys(NUMBERS, r"\d+"),
}  # fmt: skip
FORMATS = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "Month": "%B", "D": "%-d"}


def read(kind: Kind, text: str) -> dict[str, str]:
    """The facts of a text, found by the patterns of its kind."""
    for pattern in kind.patterns:
        parts = re.split(r"\{(\w+)\}", pattern)
        expression = "".join(
            f"(?P<{part}>{FORMS.get(part, '.+?')})" if i % 2 else re.escape(part)
            for i, part in enumerate(parts)
        )
        if match := re.fullmatch(expression, text):
            return match.groupdict()
    raise AssertionError(text)


def cents(shown: str) -> int:
    """An amount in cents."""
    whole, _, rest = re.sub("[^0-9.]", "", shown).partition(".")
    return int(whole) * 100 + int(rest or 0)


def number(slot: str, shown: str) -> float:
    return cents(shown) / 100 if slot == "price" else int(shown)


def day(shown: str) -> date:
    for form in ("%Y-%m-%d", "%d.%m.%Y", "%B %d, %Y", "%d %B %Y", "%Y/%m/%d"):
        try:
            return datetime.strptime(shown, form).date()
        except ValueError:
            continue
    raise AssertionError(shown)


def minutes(shown: str) -> int:
    form = "%I:%M %p" if shown.endswith("m") else "%H:%M"
    time = datetime.strptime(shown, form)
    return time.hour * 60 + time.minute


def drawn(family: str, seeds: int = 40, rows: int = 4) -> Iterator[tuple[Variant, Any, str, str]]:
    """Variants with their parameters and rows."""
    for seed in range(seeds):
        variant = FAMILIES[family](random.Random(seed))
        parameters = parameters_of(variant)
        for j in range(rows):
            yield variant, parameters, *variant.row(random.Random(j))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_patterns_of_a_kind_hold_its_facts(kind: Kind) -> None:
    for pattern in kind.patterns:
        slots = re.findall(r"\{(\w+)\}", pattern)
        assert sorted(slots) == sorted(kind.called) and {*slots} <= FACTS.keys()
    assert len(kind.patterns) >= 4
    for seed in range(60):
        document = a_document(random.Random(seed), kind)
        assert read(kind, document.text) == document.shown
    document = a_document(random.Random(0), kind, **{next(iter(kind.called)): ("77777", 7)})
    assert "77777" in document.text and 7 in document.values.values()


def test_no_fact_is_called_like_one_of_another_kind() -> None:
    assert len(BY_CALLED) == sum(len(kind.called) for kind in KINDS.values())


def test_values_are_what_is_written() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        (price, amount), (phone, digits) = FACTS["price"](rng), FACTS["phone"](rng)
        (when, value), (clock, after) = FACTS["date"](rng), FACTS["time"](rng)
        assert cents(price) == amount and re.sub("[^0-9]", "", phone) == digits
        assert day(when) == value and minutes(clock) == after


def test_fields_are_those_of_the_text() -> None:
    for _, (given, slot, left, right, upper), text, answer in drawn("text_field"):
        wanted = read(BY_GIVEN[given], text)[slot]
        assert answer == left + (wanted.upper() if upper else wanted) + right
    for variant, (given, *names, typed, _), text, answer in drawn("fields_as_json"):
        slots, keys = names[: len(names) // 2], names[len(names) // 2 :]
        facts, record = read(BY_GIVEN[given], text), json.loads(answer)
        assert list(record) == keys and all(f'"{k}"' in variant.descriptions[0] for k in keys)
        assert [str(value) for value in record.values()] == [facts[slot] for slot in slots]
        assert typed == any(isinstance(value, int) for value in record.values())
    for _, (given, *slots, glue, named), text, answer in drawn("fields_in_a_line"):
        facts = read(BY_GIVEN[given], text)
        assert answer == glue.join(f"{s}={facts[s]}" if named else facts[s] for s in slots)
    for _, (*slots, absent, _), text, answer in drawn("optional_fields"):
        record, called = json.loads(answer), {"phone": "phone number", "email": "e-mail address",
                                              "number": "customer number"}  # fmt: skip
        for slot in slots:
            found = re.search(rf", {called.get(slot, slot)} ([^,]+)", text)
            assert record[slot] == (found[1] if found else absent)


def test_facts_are_normalised() -> None:
    for _, (given, target, left, right), text, answer in drawn("date_in_text"):
        form = re.sub("YYYY|Month|MM|DD|D", lambda match: FORMATS[match[0]], target)
        assert answer == left + day(read(BY_GIVEN[given], text)["date"]).strftime(form) + right
    for _, (given, how, left, right), text, answer in drawn("amount_in_text"):
        amount = cents(read(BY_GIVEN[given], text)["price"])
        said = answer.removeprefix(left).removesuffix(right)
        parts = [int(part) for part in re.findall(r"\d+", said)]
        whole = amount if "in cents" in how else amount // 100
        assert parts == ([whole] if "only" in how else [whole, amount % 100])
    for _, (given, way, form), text, answer in drawn("phone_in_text"):
        digits = re.sub("[^0-9]", "", read(BY_GIVEN[given], text)["phone"])
        if way == "country":
            code = re.findall(r"\+\d+", form)[0]
            assert answer == code + digits[1:]
        else:
            assert re.sub("[^0-9]", "", answer) == digits and (way == "groups") != (
                answer == digits
            )
    for _, (given, glue, before, left, right), text, answer in drawn("time_in_text"):
        after = minutes(read(BY_GIVEN[given], text)["time"]) - before
        assert answer == f"{left}{after // 60:02}{glue}{after % 60:02}{right}"
    for variant, (name, slot, more, left, right), text, answer in drawn("measure_in_text"):
        factor = int(re.findall(r"(?:is|of) (?:a box of )?(\d+)", variant.descriptions[0])[-1])
        value = int(read(KINDS[name], text)[slot])
        assert answer == f"{left}{(value + more) * factor}{right}"


def holds(clause: str, text: str) -> bool:
    """Whether a condition is true of a text, by its words."""
    called, rest = clause.removeprefix("the ").split(" is ", 1)
    kind, slot = BY_CALLED[called]
    shown = read(kind, text)[slot]
    rest = rest.removesuffix(" (in any currency)")
    if match := re.fullmatch(r"(\D+) (\d+)", rest):
        limit, value = int(match[2]), number(slot, shown)
        return {"over": value > limit, "more than": value > limit, "at least": value >= limit,
                "not under": value >= limit, "at most": value <= limit, "not over": value <= limit,
                "under": value < limit, "less than": value < limit}[match[1]]  # fmt: skip
    words = re.split(r", | or | nor ", re.sub("^(neither|not) ", "", rest))
    return (shown in words) != rest.startswith(("not ", "neither "))


def test_rules_decide() -> None:
    for _, (_, clause, yes, no), text, answer in drawn("threshold_in_text"):
        assert answer == (yes if holds(clause, text) else no)
    for _, (_, rule, yes, no), text, answer in drawn("two_conditions_in_text"):
        first, join, second = re.split(r" (and|or) (?=the )", rule)
        both = holds(first, text), holds(second, text)
        assert answer == (yes if (all(both) if join == "and" else any(both)) else no), (rule, text)
    for _, (_, first, second, a, b, c), text, answer in drawn("priority_by_criteria"):
        assert answer == (a if holds(first, text) else b if holds(second, text) else c)
    for _, (given, slot, low, high, a, b, c), text, answer in drawn("bands_in_text"):
        value = number(slot, read(BY_GIVEN[given], text)[slot])
        assert answer == (a if value < low else b if value <= high else c)


def test_lists_and_missing_details_decide() -> None:
    for _, (_, *words, a, b, c, other), text, answer in drawn("route_by_list"):
        found = [i for i, word in enumerate(words) if re.search(rf"\b{word}\b", text)]
        assert len(found) < 2 and answer == ((a, b, c)[found[0] // 3] if found else other)
    called = {"phone": "phone number", "email": "e-mail", "number": "order number"}
    for _, (*needed, a, b, c, fine, _), text, answer in drawn("missing_detail"):
        gone = [x for s, x in zip(needed, (a, b, c), strict=True)
                if f", {called.get(s, s)} " not in text]  # fmt: skip
        assert len(gone) < 2 and answer == (gone[0] if gone else fine)


def test_rewritten_texts_keep_what_they_should() -> None:
    for _, (opener, closer), text, answer in drawn("polite_request"):
        before, after = opener.split("{}")
        inner = answer.removeprefix(before).removesuffix(after + closer)
        assert inner[0].upper() + inner[1:] + "." == text
    for _, (given, what, sign), text, answer in drawn("redact_text"):
        if what == "every digit":
            assert answer == "".join(sign if sign_.isdigit() else sign_ for sign_ in text)
        else:
            kind, slot = BY_CALLED[what.removeprefix("the ")]
            assert kind.given == given
            before, _, after = answer.partition(sign)
            assert text == before + read(kind, text)[slot] + after
    for _, (mark, capital, order), text, answer in drawn("bullet_points"):
        marks = [mark.replace("1", str(i)) for i in range(1, 9)]
        lines = answer.split("\n")
        items = [line.removeprefix(m) for line, m in zip(lines, marks, strict=False)]
        assert all(line.startswith(m) for line, m in zip(lines, marks, strict=False))
        assert all(item[0].isupper() == capital for item in items) and 3 <= len(items) <= 4
        places = [text.lower().index(item.lower()) for item in items]
        assert {
            "in the order of the text": places == sorted(places),
            "in reverse order": places == sorted(places, reverse=True),
            "in alphabetical order": items == sorted(items),
        }[order]
    for _, (which, before), text, answer in drawn("title_line"):
        assert answer.startswith(before)
        words = answer.removeprefix(before).split()
        assert [word.lower() for word in words] == text.split()
        small = re.findall(r"\w+", which.partition("except")[2])
        high = [word[0].isupper() for word in words]
        if which.startswith("every"):
            assert high == [word not in small for word in text.split()]
        elif which.startswith("the first"):
            assert high == [True, *[False] * (len(words) - 2), True]
        else:
            assert high == [len(word) > 4 for word in words]


def test_replies_and_notes() -> None:
    for _, (given, slot, other, hello, body), text, answer in drawn("fill_reply"):
        facts = read(BY_GIVEN[given], text)
        assert answer == f"{hello} {facts['name']}, " + body.format(facts[slot], facts[other])
    for _, (which, left, glue), text, answer in drawn("pick_note"):
        notes = text.split(glue) if glue != " " else re.split(r"(?<=\.) ", text)
        places = {"first": 0, "second": 1, "third": 2}
        found = re.findall(r'"(\w+)"', which)
        at = places.get(which.split()[1], -1)
        if found:
            (at,) = (i for i, note in enumerate(notes) if found[0] in note)
        assert len(notes) == 3
        assert answer == glue.join(n for i, n in enumerate(notes) if (i == at) != left)


def test_tenses() -> None:
    seen = set()
    for _, (tense, when), text, answer in drawn("other_tense"):
        name, verb, *rest = text.removesuffix(".").split()
        assert name in answer and " ".join(rest[:3]) in answer
        assert answer.rstrip(".?").endswith(when or " ".join(rest[3:]))
        frame = {"past": rf"{name} {verb[:3]}\w+ed the", "future": f"{name} will {verb[:3]}",
                 "negative": f"{name} does not {verb[:3]}",
                 "question": f"Does {name} {verb[:3]}"}[tense]  # fmt: skip
        assert re.match(frame, answer) and answer.endswith("?" if tense == "question" else ".")
        seen.add(tense)
    assert len(seen) == 4
