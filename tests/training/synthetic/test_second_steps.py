"""Second steps: the answer follows from the note, the text and the first answer."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthetic.second_steps import MAX_WORDS, FirstStep, Step, drawn_step

TEXTS = ("Is it?", "no, 5 of them", "The end of it all and the rest of a long day at sea", "Yes.")
WORDS = ("Late", "too early", "OK")


def steps(first: FirstStep, count: int = 400) -> list[Step]:
    return [drawn_step(random.Random(seed), first) for seed in range(count)]


@given(st.integers(0, 10**9), st.sampled_from(["label", "answer"]))
def test_labels_are_all_answers_and_notes_are_imperatives(seed: int, what: str) -> None:
    first = FirstStep("note", what, TEXTS, WORDS)
    step = drawn_step(random.Random(seed), first)
    assert step.note == drawn_step(random.Random(seed), first).note
    assert step.form and not step.note.endswith(".") and step.note[0].islower()
    made = {step.answer(text, word) for text in TEXTS for word in WORDS}
    assert len(made) > 1 and (not step.labels or made <= {*step.labels})


def test_every_step_changes_some_answer() -> None:
    for step in steps(FirstStep("note", "label", TEXTS, WORDS)):
        assert any(step.answer(text, word) != word for text in TEXTS for word in WORDS)


def test_answers_follow_the_note() -> None:
    seen: Counter[str] = Counter()
    for step in steps(FirstStep("note", "label", TEXTS, WORDS)):
        note, where = step.note, [s for s in ("contains a digit", "has fewer") if s in step.note]
        five, last = "no, 5 of them", TEXTS[2]
        quoted = re.findall(r'"(?:[^"\\]|\\.)*"', note)
        if note.startswith("where the answer would be") or note.startswith(("we call", "use ")):
            (old,) = [word for word in WORDS if re.search(rf"(be|not|of) {word}\b", note)]
            others = {*WORDS} - {old}
            assert all(step.answer(five, word) == word for word in others)
            assert step.answer(five, old) != old
            seen["one label"] += 1
        elif note.startswith("give the number"):
            assert "14" in step.answer(last, "OK") and "OK" in step.answer(last, "OK")
            seen["counted"] += 1
        elif where == ["contains a digit"] and "capitals" in note:
            assert (step.answer(five, "Late"), step.answer(last, "Late")) == ("LATE", "late")
            seen["cased"] += 1
        elif where == ["contains a digit"] and "after the label" in note:
            link, a, _, b = map(json.loads, quoted)
            assert step.answer(five, "Late") == f"Late{link}{a}"
            assert step.answer(last, "Late") == f"Late{link}{b}"
            seen["marked"] += 1
        elif where == ["contains a digit"]:
            assert step.answer(last, "Late") == "Late"
            (word,) = map(json.loads, quoted)
            before = "before the label" in note or "begin" in note or "in front" in note
            assert step.answer(five, "Late") == (f"{word}Late" if before else word)
            seen["signed" if before else "replaced"] += 1
    assert {*seen} == {"one label", "counted", "cased", "marked", "signed", "replaced"}


def test_without_labels_there_are_steps_that_need_none_and_the_form_names_the_answer() -> None:
    for step in steps(FirstStep("input", "answer", TEXTS), 200):
        assert step.labels == () or not step.labels
        assert "<answer>" in step.form or "answer in this form" not in step.form
        assert "label" not in step.note + step.form


@pytest.mark.parametrize("words", [MAX_WORDS, MAX_WORDS + 1])
def test_long_texts_are_neither_counted_nor_copied(words: int) -> None:
    texts = [f"{mark} {'word ' * (words - 1)}".strip() for mark in ("5", "five", "a,", "the")]
    notes = {step.note for step in steps(FirstStep("input", "label", texts, WORDS))}
    found = any("number of words" in note or "a copy" in note for note in notes)
    assert found == (words == MAX_WORDS)
