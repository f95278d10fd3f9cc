"""Relabelling: labels change in definition and answers alike, and only where that is safe."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.tasks.files import Example, Task
from training.data.relabel import labels_of, relabellings

WORDS = "apple river stone cloud lemon tiger"


def task(definition: str, labels: list[str], name: str = "t", text: str = WORDS) -> Task:
    rows = tuple(
        Example(f"{name}-{i}", f"{text} {i}", (labels[i % len(labels)],)) for i in range(80)
    )
    return Task(name, definition, rows)


def others() -> list[Task]:
    """Tasks that lend their labels and words."""
    sets = (["True", "False"], ["1", "2", "3"], ["spam", "ham"], ["up", "down"], ["x", "y"])
    return [task("Sort it.", labels, f"o{i}") for i, labels in enumerate(sets)]


def made(one: Task, count: int = 30, seed: int = 0):
    return relabellings([one, *others()], count, seed)[0]


@pytest.mark.parametrize(
    ("definition", "labels"),
    [
        ("Answer 'Yes' if it is so and 'No' otherwise. No more.", ["Yes", "No"]),
        ("Say Positive or Negative. Positive means good.", ["Negative", "Positive"]),
        ("Choose (A) or (B). A sentence is given.", ["A", "B"]),
        ("Say hot, hot and dry, or cold.", ["cold", "hot", "hot and dry"]),
        ('Reply with "not hope", "hope" or "other".', ["hope", "not hope", "other"]),
    ],
)
def test_new_labels_take_the_old_ones_places(definition: str, labels: list[str]) -> None:
    found = made(task(definition, labels))
    assert len(found) == 30
    assert len({tuple(sorted(r.labels.items())) for r in found}) > 10
    for r in found:
        assert sorted(r.labels) == sorted(labels)
        new = list(r.labels.values())
        assert len(set(new)) == len(labels)
        assert not {x.casefold() for x in new} & {x.casefold() for x in labels}
        # Putting the old labels back gives the old definition.
        undone = r.definition
        for old, label in r.labels.items():
            undone = re.sub(rf"(?<!\w){re.escape(label)}(?!\w)", old, undone)
        assert undone == definition


@pytest.mark.parametrize("quote", ["", "'"])
def test_every_occurrence_of_a_label_is_swapped(quote: str) -> None:
    def definition(yes: str, no: str) -> str:
        yes, no = f"{quote}{yes}{quote}", f"{quote}{no}{quote}"
        return f"Say {yes} if it fits, {no} if not. When in doubt, {yes}: {yes} beats {no}."

    for r in made(task(definition("Yes", "No"), ["Yes", "No"])):
        assert r.definition == definition(r.labels["Yes"], r.labels["No"])


def test_quoted_labels_leave_the_language_alone() -> None:
    for r in made(task("Answer 'A' or 'B'. A bag holds B vitamins.", ["A", "B"])):
        assert r.definition.endswith("A bag holds B vitamins.")


@pytest.mark.parametrize(
    ("definition", "labels"),
    [
        ("Answer 'Yes' or 'No'.", ["Yes", "No", "Maybe"]),  # one is not in the definition
        ("Say A or B. A sentence is given.", ["A", "B"]),  # an article, and not quoted
        ("Say yes.", ["yes"]),  # nothing to tell apart
        ("Count the words.", [str(i) for i in range(30)]),  # not a classification
        ("Say apple or river.", ["apple", "river"]),  # the inputs hold the labels
    ],
)
def test_labels_that_cannot_be_swapped_are_left(definition: str, labels: list[str]) -> None:
    assert made(task(definition, labels)) == []


def test_a_tasks_relabellings_are_a_function_of_tasks_and_seed() -> None:
    one = task("Answer 'Yes' or 'No'.", ["Yes", "No"])
    assert made(one) == made(one)
    assert made(one) != made(one, seed=1)
    assert made(one) != made(replace(one, name="another"))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12))
def test_labels_are_the_different_answers(answers: list[str]) -> None:
    rows = tuple(Example(str(i), "x", (answer,)) for i, answer in enumerate(answers * 70))
    found = labels_of(Task("t", "d", rows))
    assert found == (tuple(sorted(set(answers))) if len(set(answers)) > 1 else ())


def inputs_with(count: int) -> Task:
    """A task of labels Yes and No; `count` of its 20 train inputs hold one of them."""
    one = task("Answer 'Yes' or 'No'.", ["Yes", "No"])
    rows = [replace(row, input=f"{WORDS} Yes {row.id}") for row in one.instances[:count]]
    return replace(one, instances=(*rows, *one.instances[count:]))


def test_labels_that_nearly_a_third_of_the_inputs_hold_are_the_inputs() -> None:
    assert len(inputs_with(0).train) == 20
    assert len(made(inputs_with(6))) == 30
    assert made(inputs_with(7)) == []


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 2), (20, 20), (21, 0)])
def test_a_classification_has_two_to_twenty_labels(count: int, expected: int) -> None:
    labels = [f"label{i:02}" for i in range(count)]
    rows = tuple(Example(str(i), "x", (labels[i % count],)) for i in range(60 + 2 * count))
    assert labels_of(Task("t", "d", rows)) == tuple(labels[:expected])
    assert labels_of(Task("t", "d", (*rows[:1], Example("e", "x", ("",)), *rows[1:]))) == ()


def test_new_labels_are_another_task_s_or_words_in_equal_shares() -> None:
    drawn = [
        set(r.labels.values()) for r in made(task("Answer 'Yes' or 'No'.", ["Yes", "No"]), 400)
    ]
    words = [new for new in drawn if new <= set(WORDS.split())]
    lent = [new for new in drawn if new not in words]
    sets = [{"True", "False"}, {"1", "2", "3"}, {"spam", "ham"}, {"up", "down"}, {"x", "y"}]
    assert all(any(new <= labels for labels in sets) for new in lent)
    assert all(any(new <= labels for new in lent) for labels in sets)  # as few as are needed, too
    assert 160 <= len(lent) <= 240


def test_labels_that_differ_in_case_alone_are_not_lent() -> None:
    one = task("Answer 'Yes' or 'No'.", ["Yes", "No"])
    other = task("Sort it.", ["YES", "NO", "maybe"], "other", text="YES NO")
    for r in relabellings([one, other, *others()], 60, 0)[0]:
        assert not {"YES", "NO", "maybe"} & set(r.labels.values())


@pytest.mark.parametrize(("length", "lent"), [(24, True), (25, False)])
def test_labels_that_are_sentences_are_not_lent(length: int, lent: bool) -> None:
    long = ["a" * length, "b" * length]
    one = task("Answer 'Yes' or 'No'.", ["Yes", "No"])
    found = relabellings([one, task("Sort it.", long, "long"), *others()], 60, 0)[0]
    assert any(set(r.labels.values()) == set(long) for r in found) is lent


@pytest.mark.parametrize(("holders", "served"), [(5, False), (6, True)])
def test_a_word_serves_as_a_label_where_the_inputs_of_six_tasks_hold_it(
    holders: int, served: bool
) -> None:
    texts = [f"{WORDS} ab abcdefghijk Upper" + " seldom" * (i < holders) for i in range(7)]
    tasks = [task("Answer 'Yes' or 'No'.", ["Yes", "No"], f"t{i}", texts[i]) for i in range(7)]
    drawn = {label for r in relabellings(tasks, 200, 0)[0] for label in r.labels.values()}
    assert drawn == set(WORDS.split()) | ({"seldom"} if served else set())
