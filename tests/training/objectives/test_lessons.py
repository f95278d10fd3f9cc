"""Lessons: the answers of student and teacher lie token by token beside each other."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.base.loss import output_logits
from library.trainer.cuda_graphs import packed_states
from training.data.batches import TaughtRow
from training.objectives import lessons as module
from training.objectives.lessons import LessonLoss, Lessons

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 60), st.integers(1, 9), st.booleans())
CPU = torch.device("cpu")
Sizes = list[tuple[int, int, int, bool]]


def lessons(
    sizes: Sizes, longest: int | None = 128, unit: int = 100
) -> tuple[Lessons, list[TaughtRow]]:
    """Rows of so many tokens: the student's prompt, the teacher's, the answer; all differ."""
    rows = [
        TaughtRow(i // 2, [5] * p, [6] * r, [unit * (i + 1) + k for k in range(a)], nothing)
        for i, (p, r, a, nothing) in enumerate(sizes)
    ]
    return Lessons.of(rows, [row.answer for row in rows], 0, longest, CPU), rows


@given(
    st.lists(SIZES, min_size=1, max_size=12), st.sampled_from([None, 128]), st.sampled_from([2, 32])
)
def test_each_answer_token_has_the_teachers_beside_it(
    sizes: Sizes, longest: int | None, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEMBERS", most)
        made, rows = lessons(sizes, longest)
    said = torch.cat([batch.targets for batch in made.teacher])
    seen: list[int] = []
    for batch, places in zip(made.student, made.places, strict=True):
        assert longest is None or (batch.ids.shape[0] % 4, batch.ids.shape[1]) == (0, 128)
        assert len(places) == len(batch.answers) == len(batch.weights)
        assert batch.labelled is not None
        real = batch.weights > 0
        assert torch.equal(said[places][real], batch.targets[real])
        assert not batch.labelled[~real].any()
        for place, target, weight, labelled in zip(
            batch.answers[real], batch.targets[real], batch.weights[real], batch.labelled[real],
            strict=True,
        ):  # fmt: skip
            row = rows[int(target) // 100 - 1]
            assert float(weight) == pytest.approx(1 / (len(rows) * len(row.answer)))
            assert bool(labelled) is not row.nothing
            own = int(batch.owners.flatten()[place])
            assert (own if batch.members is None else int(batch.members[own])) == row.owner
            assert batch.members is None or len(batch.members) == most
            seen.append(int(target))
    assert sorted(seen) == sorted(token for row in rows for token in row.answer)
    for batch in made.teacher:
        for place, target in zip(batch.answers, batch.targets, strict=True):
            if int(target) >= 100:
                row = rows[int(target) // 100 - 1]
                assert int(batch.owners.flatten()[place]) == (-1 if row.nothing else 0)
    assert (made.described, made.rows) == (sum(not row.nothing for row in rows), len(rows))


def test_the_loss_and_its_figures_by_hand() -> None:
    model = tiny.model(tiny.config("llama"), dtype=torch.float64)
    sizes = [(3, 9, 1, False), (3, 9, 2, True), (20, 9, 3, False)]
    made, rows = lessons(sizes, unit=10)
    torch.manual_seed(0)
    states = torch.randn(sum(len(b.answers) for b in made.teacher), 32, dtype=torch.float64)
    loss = LessonLoss(0.5, 0.0, CPU)
    total, by_row = 0.0, dict[int, tuple[float, float]]()
    for batch in made.taught(states):
        assert batch.teacher is not None
        total += float(loss(model, batch))
        p, q = (
            output_logits(model, s).softmax(-1)
            for s in (batch.teacher, packed_states(model, batch))
        )
        divergence = (p * (p / q).log()).sum(-1)
        label = -q[torch.arange(len(q)), batch.targets].log()
        for number, row in enumerate(rows):
            own = (batch.targets // 10 == number + 1) & (batch.weights > 0)
            if own.any():
                by_row[number] = (float(divergence[own].mean()), float(label[own].mean()))
                assert int(own.sum()) == len(row.answer)
    described = [by_row[0], by_row[2]]
    figures = {name: float(value) for name, value in loss.figures(made).items()}
    assert figures["divergence"] == pytest.approx(sum(d for d, _ in described) / 2)
    assert figures["label_loss"] == pytest.approx(sum(c for _, c in described) / 2)
    assert figures["nothing_divergence"] == pytest.approx(by_row[1][0])
    wanted = (sum(d + 0.5 * c for d, c in described) + by_row[1][0]) / 3
    assert figures["loss"] == pytest.approx(total) == pytest.approx(wanted)


@pytest.mark.parametrize("nothing", [False, True])
def test_figures_are_of_the_rows_that_there_are(nothing: bool) -> None:
    made, _ = lessons([(3, 9, 1, nothing)])
    names = {"nothing_divergence"} if nothing else {"divergence", "label_loss"}
    assert {*LessonLoss(0.0, 0.0, CPU).figures(made)} == {"loss", *names}
