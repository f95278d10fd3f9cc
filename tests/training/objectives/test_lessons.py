"""Lessons: the answers of student and teacher lie token by token beside each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.batches import TaughtRow
from training.objectives.lessons import Lessons, LessonTerms

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 60), st.integers(1, 9), st.booleans())
CPU = torch.device("cpu")


def lessons(sizes: list[tuple[int, int, int, bool]], parts: int) -> tuple[Lessons, list[TaughtRow]]:
    """Rows of so many tokens: the student's prompt, the teacher's, the answer; all differ."""
    rows = [
        TaughtRow(i // 2, [5] * p, [6] * r, [100 * (i + 1) + k for k in range(a)], nothing)
        for i, (p, r, a, nothing) in enumerate(sizes)
    ]
    return Lessons.of(rows, [row.answer for row in rows], 0, parts, CPU), rows


@given(st.lists(SIZES, min_size=1, max_size=12), st.integers(1, 4))
def test_each_answer_token_has_the_teachers_beside_it(
    sizes: list[tuple[int, int, int, bool]], parts: int
) -> None:
    made, rows = lessons(sizes, parts)
    said = torch.cat([g.ids.roll(-1, dims=1)[g.answer] for g in made.teacher])
    seen = []
    for group, places, nothing in zip(made.student, made.places, made.nothing, strict=True):
        targets = group.ids.roll(-1, dims=1)[group.answer]
        assert torch.equal(said[places], targets)
        for ids, answer, owner, alone in zip(
            group.ids, group.answer, group.rows, nothing, strict=True
        ):
            number = int(ids.roll(-1)[answer][0]) // 100 - 1
            row = rows[number]
            assert ids.roll(-1)[answer].tolist() == row.answer
            assert ids[: len(row.prompt)].tolist() == row.prompt
            assert int(answer.nonzero()[0]) == len(row.prompt) - 1
            assert (int(owner), bool(alone)) == (row.owner, row.nothing)
            seen.append(number)
    assert sorted(seen) == list(range(len(rows)))
    for group in made.teacher:  # owners are the rows themselves, whose shares say who teaches
        for ids, answer, number in zip(group.ids, group.answer, group.rows, strict=True):
            row = rows[int(number)]
            assert ids.roll(-1)[answer].tolist() == row.answer
            assert ids[: len(row.read)].tolist() == row.read
            assert made.shares[number].tolist() == [float(not row.nothing)]
    assert made.described == sum(not row.nothing for row in rows)


def test_terms_and_figures() -> None:
    made, _ = lessons([(3, 9, 1, False), (3, 9, 2, True), (20, 9, 1, False)], parts=2)
    assert [group.ids.shape[0] for group in made.student] == [2, 1]
    terms = LessonTerms(made, label_weight=0.5)
    first = terms(0, torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]))
    assert first.tolist() == [6.0, 2.0]  # what asks for nothing has no label
    assert terms(1, torch.tensor([4.0]), torch.tensor([30.0])).tolist() == [19.0]
    figures = {name: float(value) for name, value in terms.figures().items()}
    assert figures == {"divergence": 2.5, "label_loss": 20.0, "nothing_divergence": 2.0}


@pytest.mark.parametrize("nothing", [False, True])
def test_figures_are_of_the_rows_that_there_are(nothing: bool) -> None:
    made, _ = lessons([(3, 9, 1, nothing)], parts=1)
    terms = LessonTerms(made, label_weight=0.0)
    losses = torch.tensor([7.0])
    assert terms(0, torch.tensor([3.0]), losses).tolist() == [3.0]
    names = {"nothing_divergence"} if nothing else {"divergence", "label_loss"}
    assert set(terms.figures()) == names
