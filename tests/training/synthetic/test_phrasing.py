"""Phrasing of procedural families: every register says input, instruction and notes."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.variant import Variant

NOTES = ('A "third" sentence.', "And {one} more.")


def row(rng: random.Random) -> tuple[str, str]:
    n = rng.randrange(10**6)
    return f"number {n}", f"<{n}>"


def variant(parameter: int, notes: tuple[str, ...] = NOTES) -> Variant:
    phrases = Phrases("a dozen eggs", 'answer "soft" if it\'s so', "few words", notes)
    return build("egg_rule", (parameter,), phrases, row)


@given(st.integers(0, 10**6), st.booleans())
def test_every_register_is_complete(parameter: int, with_notes: bool) -> None:
    notes = NOTES if with_notes else ()
    made = variant(parameter, notes)
    *framed, terse, lazy, fields = made.descriptions
    assert terse.startswith("few words") and len(framed) == 5
    for text in (*framed, lazy, fields):
        held = text.replace('\\"', '"')
        assert "a dozen eggs" in held.lower() or "\ninput: number" in held  # an example shows it
        assert ' "soft" if it\'s so' in held
        assert all(note in held for note in notes)
        assert text == text.strip() and "  \n" not in text and "\n\n\n" not in text
        assert not held.rstrip("]}").endswith((":", "="))
    assert variant(parameter, notes).descriptions == made.descriptions


def test_styles_are_many() -> None:
    made = [variant(n).descriptions for n in range(300)]
    kinds = [len({texts[register] for texts in made}) for register in range(8)]
    assert min(kinds) >= 5 and kinds[4] == 300  # pages hold examples, all others differ in frame


def test_pages_and_examples_hold_rows_of_the_variant() -> None:
    for n in range(60):
        for text in (variant(n).descriptions[k] for k in (3, 4)):
            shown = [part.split(">")[0] for part in text.split("<")[1:]]
            assert shown and all(f"number {x}" in text for x in shown)


@pytest.mark.parametrize("notes", [NOTES, ()])
def test_some_are_json(notes: tuple[str, ...]) -> None:
    texts = [variant(n, notes).descriptions[-1] for n in range(100)]
    read = [json.loads(text) for text in texts if text.startswith("{")]
    assert 15 < len(read) < 60
    assert all(len(fields) == 2 + bool(notes) for fields in read)
