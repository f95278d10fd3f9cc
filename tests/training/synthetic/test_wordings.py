"""Wordings: every template says all that an answer depends on."""

import json
import random
import re
from collections.abc import Sequence
from itertools import takewhile

import pytest

from training.synthetic.banks import plain, read_topics
from training.synthetic.classify import classified
from training.synthetic.pools import drawn_pool
from training.synthetic.templates import CHANGED, TEMPLATES, TURNED
from training.synthetic.wordings import (
    BLOCK,
    INLINE,
    QUOTES,
    Brief,
    Choice,
    changed,
    filled,
    turned_round,
    worded,
)

ALL = [template for templates in TEMPLATES.values() for template in templates]
BRIEF = Brief(
    "note",
    "notes",
    "say what the note is about",
    (
        Choice("QX-7", ("it rains", "wet \"days\"")),
        Choice("very dry", ("the sun shines, all day",)),
        Choice("Other", ()),
    ),
    ('if both fit, "QX-7" counts', "look at the first line only"),
    "answer as [label]",
    (("Pouring.", "QX-7"), ("Dust!", "very dry")),
)  # fmt: skip


def says(text: str, part: str) -> bool:
    """Whether a text holds a part, as it is or as JSON, whatever its case."""
    return any(plain(p) in plain(text) for p in (part, json.dumps(part, ensure_ascii=False)[1:-1]))


def test_there_are_sixty_templates_in_ten_registers_and_no_two_are_alike() -> None:
    assert len(ALL) == len(set(ALL)) >= 60 and len(TEMPLATES) >= 10
    assert len(INLINE) >= 6 and len(BLOCK) >= 6 and len(set(QUOTES)) >= 4


@pytest.mark.parametrize("template", ALL)
def test_a_template_is_complete(template: str) -> None:
    slots = set(re.findall(r"<(\w+)!?>", template))
    assert slots & {"goal", "Goal"} and slots & {"rules", "lazy", "bare", "bullets"}
    assert slots & {"inline", "block", "json"} or (
        "explained" in slots and slots & {"words", "list"}
    )
    for seed in range(30):
        text = filled(template, BRIEF, random.Random(seed))
        for choice in BRIEF.choices:
            assert choice.word in text
            assert not choice.meanings or any(says(text, m) for m in choice.meanings)
        assert all(says(text, part) for part in (BRIEF.goal, *BRIEF.notes, BRIEF.form))
        assert ("examples" not in slots) or all(a in text and b in text for a, b in BRIEF.examples)
        assert not re.search(r"<\w+!?>|\{\}", text)


def test_a_label_alone_is_listed_and_its_form_is_told() -> None:
    brief = Brief("note", "notes", "say yes", (Choice("yes"), Choice("no")))
    for register in TEMPLATES:
        text = worded(brief, register, random.Random(0))
        assert "yes" in text and "no" in text
        assert re.search("only|just|no other|exactly|no explanation", text)


def beginning(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    signs = takewhile(lambda some: len({*some}) == 1, zip(*texts, strict=False))
    return "".join(some[0] for some in signs)


def test_descriptions_of_drawn_tasks_hold_every_label() -> None:
    """Where labels have a form, such as JSON, it holds what stands in the form."""
    topics, bare, formed = read_topics(), 0, 0
    for seed in range(300):
        rng = random.Random(seed)
        variant = classified(rng, drawn_pool(rng, topics))
        if variant.name.startswith(("sort", "ranked", "yes-no")):
            for text in variant.descriptions:
                before = beginning(variant.labels)
                after = beginning([label[::-1] for label in variant.labels])[::-1]
                cores = [label.removeprefix(before).removesuffix(after) for label in variant.labels]
                assert all(says(text, core) for core in cores)
                held = all(says(text, label) for label in variant.labels)
                bare, formed = bare + held, formed + (not held)
    assert bare > 5 * formed > 0


@pytest.mark.parametrize("template", CHANGED)
def test_a_changed_task_is_told_with_all_its_rules(template: str) -> None:
    notes = ('put "x" first', "write nothing else")
    for text in ("Say it.", "say it"):
        told = changed(template, text, notes)
        assert says(told, "say it.") and all(says(told, note) for note in notes)
        assert not re.search(r"<\w+!?>", told)


def test_a_task_turned_round_is_told_with_the_task() -> None:
    texts = {turned_round("Find <it>.", random.Random(seed)) for seed in range(200)}
    assert len(texts) == len(TURNED) and all(says(text, "Find <it>.") for text in texts)
