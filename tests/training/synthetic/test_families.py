"""Procedural families: what every one of them keeps to, and answers found in another way."""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from variants import parameters_of

from training.synthetic.families.numbers import spelt
from training.synthetic.families.registry import FAMILIES
from training.synthetic.families.words import (
    ADJECTIVES,
    CITIES,
    KEYS,
    NAMES,
    NONSENSE,
    SURNAMES,
    VERBS,
    WORDS,
)
from training.synthetic.variant import Variant

SEEDS = range(15)


@cache  # drawing is slow here, where the types of all functions are checked
def drawn(family: str, seed: int) -> Variant:
    return FAMILIES[family](random.Random(seed))


def rows_of(variant: Variant, n: int) -> list[tuple[str, str]]:
    return [variant.row(random.Random(seed)) for seed in range(n)]


def test_there_are_many_families_and_words() -> None:
    assert len(FAMILIES) >= 60
    pools = (WORDS, NAMES, SURNAMES, CITIES, ADJECTIVES, VERBS, NONSENSE, KEYS)
    assert len(set().union(*pools)) >= 400


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_short_and_drawn_from_the_seed_alone(family: str) -> None:
    for seed in SEEDS:
        rows = rows_of(drawn(family, seed), 4)
        assert rows == rows_of(drawn(family, seed), 4)
        for text, answer in rows:
            assert 0 < len(text) <= 300
            assert 0 < len(answer) <= 200
            assert (text, answer) == (text.strip(), answer.strip())
        assert len({text for text, _ in rows}) > 1
    for seed in range(4):
        one, two = drawn(family, seed), FAMILIES[family](random.Random(seed))
        assert (one.name, one.descriptions, one.labels) == (two.name, two.descriptions, two.labels)
        assert rows_of(one, 6) == rows_of(two, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_descriptions_are_three_or_more_and_tell_variants_apart(family: str) -> None:
    named: dict[str, tuple[str, ...]] = {}
    for seed in SEEDS:
        variant = drawn(family, seed)
        assert named.setdefault(variant.name, variant.descriptions) == variant.descriptions
        assert variant.name.startswith(f"{family}(")
    for descriptions in named.values():
        assert len(set(descriptions)) == len(descriptions) >= 3
        assert all(text == text.strip() and len(text) <= 900 for text in descriptions)
    for texts in zip(*named.values(), strict=True):  # no parameter is missing in a register
        assert len(set(texts)) == len(named)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_really_drawn(family: str) -> None:
    assert len({drawn(family, seed).name for seed in SEEDS}) >= 10


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_hold_every_answer_and_none_is_nearly_always_right(family: str) -> None:
    for seed in SEEDS:
        variant = drawn(family, seed)
        if variant.labels:
            counts = Counter(answer for _, answer in rows_of(variant, 40))
            assert {*counts} <= {*variant.labels}
            assert max(counts.values()) <= 35, variant.name


@pytest.mark.parametrize(
    "family", ["trim_list", "threshold_label", "nth_word", "extreme_number", "shift_name"]
)
def test_the_same_input_has_other_answers_under_other_parameters(family: str) -> None:
    answers: dict[str, set[str]] = {}
    for seed in SEEDS:
        for text, answer in rows_of(drawn(family, seed), 8):
            answers.setdefault(text, set()).add(answer)
    assert max(map(len, answers.values())) >= 2


def test_the_worked_example_is_a_row_of_its_variant() -> None:
    for seed in SEEDS:
        variant = drawn("invented_unit", seed)
        _, _, factor, down, _ = parameters_of(variant)
        found = re.findall(r"^(?:[\w ]+: |=> )?(\d+)\b", variant.descriptions[3], re.M)
        x, y = map(int, found[-2:])
        assert (x * factor == y) if down else (y * factor == x), variant.descriptions[3]


CASE = {"lower case": str.lower, "capital letters": str.upper}
DATES = {
    "YYYY-MM-DD": "%Y-%m-%d",
    "DD.MM.YYYY": "%d.%m.%Y",
    "MM/DD/YYYY": "%m/%d/%Y",
    "DD/MM/YYYY": "%d/%m/%Y",
    "YYYY/MM/DD": "%Y/%m/%d",
    "YYYYMMDD": "%Y%m%d",
    "DD-MM-YYYY": "%d-%m-%Y",
    "Month D, YYYY": "%B %d, %Y",
    "D Month YYYY": "%d %B %Y",
}


def _end_letters(x: str, n: int, end: str, case: str, glue: str) -> str:
    pattern = "." * n
    found = re.match(pattern, x) if end == "first" else re.search(pattern + "$", x)
    assert found
    return CASE[case](glue.join(list(found[0])))


def _text_around(x: str, glue: str, side: str, which: str, case: str) -> str:
    before, _, after = x.partition(glue) if which == "first" else x.rpartition(glue)
    return CASE[case](before if side == "before" else after)


def _trim_list(x: str, _: str, glue: str, out: str, n: int, end: str, act: str) -> str:
    items = x.split(glue)
    wanted = n if act == "keep" else len(items) - n
    while len(items) > wanted:
        items.pop(-1 if (end == "first") == (act == "keep") else 0)
    return out.join(items)


def _neighbour_item(x: str, _: str, glue: str, mark: str, side: str, k: int) -> str:
    text, item = x.split(mark)
    before, after = (
        part.split(glue) for part in f"{glue}{text}{glue}".split(f"{glue}{item}{glue}")
    )
    return after[k - 1] if side == "after" else before[-k]


def _round_number(x: str, step: int, up: bool, unit: str) -> str:
    return f"{(math.ceil if up else math.floor)(int(x) / step) * step}{unit}"


def _extreme_number(x: str, glue: str, n: int, most: str, left: str, right: str) -> str:
    numbers = [int(number) for number in x.split(glue)]
    for _ in range(n - 1):
        numbers.remove(max(numbers) if most == "largest" else min(numbers))
    return f"{left}{max(numbers) if most == 'largest' else min(numbers)}{right}"


def _reformat_date(x: str, source: str, target: str) -> str:
    text = datetime.strptime(x, DATES[source]).strftime(DATES[target])
    return re.sub(r"\b0", "", text) if "Month" in target else text


def _shift_date(x: str, form: str, amount: str, side: str) -> str:
    n, unit = amount.split()
    day, sign = datetime.strptime(x, DATES[form]), 1 if side == "after" else -1
    if unit.startswith("year"):
        moved = datetime(day.year + sign * int(n), day.month, day.day)
    else:
        moved = day + sign * timedelta(**{f"{unit.rstrip('s')}s": int(n)})
    text = moved.strftime(DATES[form])
    return re.sub(r"\b0", "", text) if "Month" in form else text


def _rewrite_time(x: str, glue: str, twelve: bool, move: int, am: str) -> str:
    time = datetime.strptime(x, "%H:%M") + timedelta(minutes=move)
    if not twelve:
        return time.strftime(f"%H{glue}%M")
    half = time.strftime("%p")
    hour = time.strftime("%I").removeprefix("0")
    return f"{hour}{glue}{time:%M} {half if am == 'AM' else half.lower()}"


def _next_stop(x: str, *parameters: Any) -> str:
    *stops, n, side = parameters
    if side == "before":
        stops.reverse()
    return (stops + stops)[stops.index(x) + n]


def _mask_text(x: str, n: int, end: str, hide: bool, sign: str) -> str:
    edge, rest = (x[:n], x[n:]) if end == "first" else (x[-n:], x[:-n])
    edge, rest = (sign * n, rest) if hide else (edge, sign * (len(x) - n))
    return edge + rest if end == "first" else rest + edge


def _most_frequent(x: str, _: str, glue: str, most: str, form: str) -> str:
    items = x.split(glue)
    item = (max if most == "most" else min)(items, key=items.count)
    return form.format(item, n=items.count(item))


def _ordered_label(x: str, glue: str, order: str, yes: str, no: str) -> str:
    items: list[Any] = x.split(glue)
    items = items if "alphabetical" in order else [int(item) for item in items]
    steps = [a < b for a, b in pairwise(items)]
    rising = order in ("alphabetical order", "rising order")
    return yes if all(step == rising for step in steps) else no


def _line_to_json(x: str, *parameters: Any) -> str:
    *keys, glue, order = parameters
    values = x.split(glue)
    return json.dumps({key: values[i] for key, i in zip(keys, order, strict=True)})


def _extreme_key(x: str, most: str, _: str, form: str, left: str) -> str:
    number, key = sorted((v, k) for k, v in json.loads(x).items())[-1 if most == "largest" else 0]
    return left + form.replace("{k}", key).replace("{v}", str(number))


def _flag_label(x: str, key: str, _: str, yes: str, no: str, value: bool) -> str:
    return yes if f'"{key}": {json.dumps(value)}' in x else no


ORACLES: dict[str, Callable[..., str]] = {
    "end_letters": _end_letters,
    "text_around": _text_around,
    "trim_list": _trim_list,
    "neighbour_item": _neighbour_item,
    "round_number": _round_number,
    "extreme_number": _extreme_number,
    "reformat_date": _reformat_date,
    "shift_date": _shift_date,
    "rewrite_time": _rewrite_time,
    "next_stop": _next_stop,
    "mask_text": _mask_text,
    "most_frequent": _most_frequent,
    "ordered_label": _ordered_label,
    "line_to_json": _line_to_json,
    "extreme_key": _extreme_key,
    "flag_label": _flag_label,
}


@pytest.mark.parametrize("family", ORACLES)
def test_answers_are_those_of_another_formula(family: str) -> None:
    for seed in SEEDS:
        variant = drawn(family, seed)
        for text, answer in rows_of(variant, 5):
            assert answer == ORACLES[family](text, *parameters_of(variant)), (variant.name, text)


def test_tables_in_the_description_hold_the_answer() -> None:
    for seed in SEEDS:
        variant = drawn("code_table", seed)
        for text, answer in rows_of(variant, 5):
            pattern = rf"\b({text}\W+{answer}|{answer}\W+{text})\b"
            assert all(re.search(pattern, words) for words in variant.descriptions)


@pytest.mark.parametrize(
    ("n", "words"), [(0, "zero"), (13, "thirteen"), (20, "twenty"), (47, "forty-seven")]
)
def test_numbers_are_spelt(n: int, words: str) -> None:
    assert spelt(n) == words
