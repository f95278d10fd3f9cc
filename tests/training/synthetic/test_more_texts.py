"""Families of sentences, sums, structures and cleaning: answers found in another way."""

import json
import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from variants import parameters_of

from training.synthetic.families.registry import FAMILIES
from training.synthetic.families.texts.cleaning import SHORT
from training.synthetic.families.texts.documents import a_document
from training.synthetic.families.texts.kinds import KINDS
from training.synthetic.families.texts.sentences import PREDICATES, SUBJECTS

SEEDS = range(20)


def _reframe_sentence(x: str, back: bool, form: str, front: str) -> str:
    aux = r"(is|was|will|can|has|should|must|had)"
    if back:
        helper, rest = x[:-1].split(" ", 1)
        subjects = "|".join(re.sub(r"\{\w+\}", r"[\\w -]+?", subject) for subject in SUBJECTS)
        rests = "|".join(re.sub(r"\{\w+\}", r"[\\w ]+", rest) for _, rest in PREDICATES)
        found = re.fullmatch(f"({subjects}) ({rests})", rest)
        assert found
        return f"{front}{found[1][0].upper()}{found[1][1:]} {helper.lower()} {found[2]}."
    found = re.fullmatch(rf"(.*?) {aux} (.*)\.", x)
    assert found
    subject, helper, rest = found.groups()
    small = subject
    if re.match("(The|Our|My|Your) ", subject):
        small = subject[0].lower() + subject[1:]
    plain = f"{small} {helper} {rest}"
    if "not" in form.split('"'):
        answer = f"{subject} {helper} not {rest}.".replace("can not", "cannot")
    elif "right?" in form:
        answer = f"{subject} {helper} {rest}, right?"
    elif "whether" in form:
        answer = f"Do you know whether {plain}?"
    elif "that" in form and "begins" in form:
        answer = f"{form.split(chr(34))[1]} {plain}."
    else:
        answer = f"{helper.capitalize()} {small} {rest}?"
    return front + answer


def _total_in_text(x: str, shipping: int, less: int, left: str, right: str, _: str) -> str:
    n, price = map(int, re.findall(r"\d+", x))
    return f"{left}{n * price + shipping - less}{right}"


def _time_span(x: str, away: int, glue: str, shape: str, left: str, right: str) -> str:
    times = re.findall(rf"(\d\d){re.escape(glue)}(\d\d)", x)
    start, end = (60 * int(hour) + int(minute) for hour, minute in times)
    hours, rest = divmod(end - start - away, 60)
    return left + shape.format(m=end - start - away, h=hours, r=rest) + right


def _nested_json(x: str, shape: str) -> str:
    pairs = re.findall(r"(\d+) x ([\w ]+?)(?= and |, | plus |$| for | needs |\.| please| \()", x)
    (name,) = re.findall(r"(?:for |order of |\(|\. |^)([A-Z]\w+)(?=[).:]|$| needs)", x)
    first = json.loads(shape.replace("<quantity>", "0").replace("...", "0"))
    entries = first if isinstance(first, list) else list(first.values())[1]
    like = entries[0]
    made = [
        [thing, int(n)] if isinstance(like, list) else dict(zip(like, (thing, int(n)), strict=True))
        for n, thing in pairs
    ]
    if isinstance(first, list):
        return json.dumps(made)
    who, things = first
    return json.dumps({who: name, things: made})


def _short_forms(x: str, *parameters: Any) -> str:
    *chosen, shorten, upper = parameters
    for short in chosen:
        pair = (SHORT[short], short) if shorten else (short, SHORT[short])
        x = re.sub(rf"(?<!\S){re.escape(pair[0])}(?!\S)", pair[1], x)
    return x.upper() if upper else x


def _strip_markup(x: str, _: str, act: str, end: str) -> str:
    marks = r"</?[a-z]+>|\*\*|_|`|~~|\[\[|\]\]|''|==|\{\{|\}\}"
    treat: dict[str, Callable[[str], str]] = {
        "remove": lambda word: word, "turn the": str.upper, "put quo": lambda word: f'"{word}"',
        "replace": lambda word: "___", "put squ": lambda word: f"[{word}]",
    }  # fmt: skip
    change = next(treat[start] for start in treat if act.startswith(start))
    words = (change(re.sub(marks, "", w)) if re.search(marks, w) else w for w in x.split())
    return " ".join(words) + end


ORACLES: dict[str, Callable[..., str]] = {
    "reframe_sentence": _reframe_sentence,
    "total_in_text": _total_in_text,
    "time_span": _time_span,
    "nested_json": _nested_json,
    "short_forms": _short_forms,
    "strip_markup": _strip_markup,
}


@pytest.mark.parametrize("family", ORACLES)
def test_answers_are_those_of_another_formula(family: str) -> None:
    for seed in SEEDS:
        variant = FAMILIES[family](random.Random(seed))
        for text, answer in (variant.row(random.Random(i)) for i in range(5)):
            assert answer == ORACLES[family](text, *parameters_of(variant)), (variant.name, text)


def test_addresses_hold_the_facts_of_the_text() -> None:
    for seed in SEEDS:
        variant = FAMILIES["text_to_address"](random.Random(seed))
        text, answer = variant.row(random.Random(seed))
        assert " " not in answer
        pairs = parse_qsl(urlsplit(answer).query)
        assert pairs and all(value in text for _, value in pairs)


def test_numbers_in_json_are_numbers_unless_strings_are_asked_for() -> None:
    """A user who asks for a quantity as JSON says nothing of types."""
    kinds = {kind.given: name for name, kind in KINDS.items()}
    silent = 0
    for seed in range(60):
        variant = FAMILIES["fields_as_json"](random.Random(seed))
        given, *_, typed, told = parameters_of(variant)
        answer = json.loads(variant.row(random.Random(seed))[1])
        numbers = [value for value in answer.values() if isinstance(value, int)]
        assert bool(numbers) == typed
        silent += typed and not told
        document = a_document(random.Random(seed), KINDS[kinds[given]])
        assert {str(value) for value in answer.values()} <= {*document.shown.values()}
    assert silent >= 5
