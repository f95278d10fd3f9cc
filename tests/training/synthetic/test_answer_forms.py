"""Forms of answers: what they say is what they do."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.synthetic.answer_forms import MOST, PARTS, SHORT, drawn_form, drawn_making

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=30)


@given(st.integers(0, 10**9), st.lists(TEXT, min_size=1, max_size=4), TEXT)
def test_a_form_keeps_the_answer_and_one_that_is_said_shows_it(
    seed: int, words: list[str], other: str
) -> None:
    form = drawn_form(random.Random(seed), words)
    assert form.says and form.says == drawn_form(random.Random(seed), words).says
    styled = form.style(other)
    if styled.startswith(("{", "[")) and "JSON" in form.says:
        value = json.loads(styled)
        assert (value == [other]) if isinstance(value, list) else ([*value.values()] == [other])
    elif styled != other.upper():
        assert other in styled and len(styled) > len(other)


def test_what_a_form_says_is_what_its_style_does() -> None:
    """Each kind by what its words hold: a key, a front, an example."""
    seen: Counter[str] = Counter()
    for seed in range(2000):
        form = drawn_form(random.Random(seed), ["blue fish"])
        styled = form.style("blue fish")
        if match := re.search(r'(?:field "|key is "|field called )(\w+)', form.says):
            assert json.loads(styled) == {match[1]: "blue fish"}
            seen["field"] += 1
        elif match := re.fullmatch(r'(?:write "(.*)", a space .*|begin the reply with "(.*) " .*)',
                                   form.says):  # fmt: skip
            assert styled == f"{match[1] or match[2]} blue fish"
            seen["front"] += 1
        elif match := re.fullmatch("wrap the answer in (<.*>) and (</.*>)", form.says):
            assert styled == f"{match[1]}blue fish{match[2]}"
            seen["tags"] += 1
        elif "<answer>" in form.says or "..." in form.says:
            frame = re.search(r"(?::|form|as in) (.*)", form.says)
            shown = (frame[1] if frame else "").replace("<answer>", "blue fish")
            assert shown.replace("...", "blue fish") == styled
            seen["frame"] += 1
        elif "capital" in form.says or "upper case" in form.says:
            assert styled == "BLUE FISH"
            seen["capitals"] += 1
        elif "blue fish" in form.says:
            assert styled in form.says
            seen["example"] += 1
    assert len(seen) == 6 and min(seen.values()) > 30


def test_answers_without_letters_are_not_put_in_capitals() -> None:
    says = {drawn_form(random.Random(seed), ["1", "A"]).says for seed in range(300)}
    assert not any("capital" in text or "upper" in text for text in says)


@given(
    st.integers(0, 10**9),
    st.lists(st.sampled_from(["yes", "no", "red car", "Blue", "a b c d", "x" * 30]), min_size=1),
)
def test_what_is_made_of_answers_still_tells_them_apart(seed: int, answers: list[str]) -> None:
    form = drawn_making(random.Random(seed), answers)
    if len({*answers}) == 1:
        assert form is None
    if form is not None:
        made = Counter(map(form.style, answers))
        assert "" not in made and len(made) >= 2
        assert max(made.values()) < MOST * len(answers)
        assert sum(form.style(answer) != answer for answer in answers) * 2 > len(answers) * 0.4


@pytest.mark.parametrize(
    ("says", "given", "made"),
    [
        ("write the answer backwards, letter by letter", "red car", "rac der"),
        ("count the letters of the answer and write that number instead", "red car 5", "6"),
        ("write only the first letter of the answer", "red", "r"),
        ("leave out a, e, i, o and u when you write the answer", "Ore ia", "r "),
        ("write the answer twice, with a space between", "a b", "a b a b"),
        ("put a dot after every character of the answer", "a b", "a. .b."),
        ("put a hyphen in the place of every space of the answer", "a b c", "a-b-c"),
        ("write the words of the answer in reverse order", "a b c", "c b a"),
        ("write the answer in small letters", "Ab", "ab"),
        ("write the answer in capital letters", "Ab", "AB"),
        ("of the answer, write only the number of words", "Ab c", "2"),
        ("of the answer, write only the first word, with any punctuation", "Ab, c", "Ab,"),
    ],
)
def test_each_making_does_what_it_says(says: str, given: str, made: str) -> None:
    answers = ["One two", "Red", "a b c d", "Blue Sky 7"]
    drawn = (drawn_making(random.Random(seed), answers) for seed in range(400))
    form = next(one for one in drawn if one is not None and one.says == says)
    assert form.style(given) == made


def test_letters_are_looked_at_in_short_answers_only() -> None:
    long = [f"{'x' * (SHORT - 2)} {i}" for i in "abc"]
    says = [drawn_making(random.Random(seed), [*long, f"{long[0]}y"]) for seed in range(200)]
    assert not any(one and re.search("backwards|reverse the letters|vowels", one.says)
                   for one in says)  # fmt: skip
    assert {part("Go now, please") for _, part in PARTS} == {"Go", "please", "Go now,", "3"}
