"""Rows that a teacher answered: gradients of the divergence, beside those of labelled rows."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenRow, grouped
from library.base.loss import (
    answer_logits,
    answer_loss,
    output_logits,
    row_means,
    token_divergences,
)
from library.base.multi_adapter import MultiAdapter
from library.layout import Layout, layout_of
from library.trainer.batched import BatchedTrainer
from library.trainer.loss_backends import PackedBackend, SharingBackend
from library.trainer.optimiser import shared_start
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import RunState, TrainConfig, shuffled_rows


def world(family: str = "llama") -> tuple[Any, Layout, Adapter]:
    model = tiny.model(tiny.config(family), dtype=torch.float64)
    layout = layout_of(model.config, rank=3)
    return model, layout, tiny.adapter(layout, 2, dtype=torch.float64)


def taught(model: Any, layout: Layout, rows: Sequence[TokenRow], seed: int = 9) -> list[TokenRow]:
    """The rows as another adapter would answer them after a longer prompt."""
    teacher = tiny.adapter(layout, seed=seed, dtype=torch.float64)
    return [replace(row, teacher=states(model, teacher, row, [5, 6])) for row in rows]


def states(model: Any, teacher: Adapter, row: TokenRow, instruction: list[int]) -> Tensor:
    (batch,) = grouped([replace(row, owner=0, prompt=instruction + row.prompt)], 0, 1)
    hooks = MultiAdapter(model, teacher.layout)
    hooks.set(teacher, batch.rows)
    with torch.no_grad():
        hidden = model.get_decoder()(batch.ids, use_cache=False).last_hidden_state
    hooks.close()
    return hidden[batch.answer]


def row_by_row(
    model: Any, hooks: MultiAdapter, rows: Sequence[TokenRow], adapters: Adapter
) -> list[Tensor]:
    """The gradients of each row's mean loss, by itself."""
    leaves = adapters.detached()
    for row in rows:
        (batch,) = grouped([row], 0, 1)
        hooks.set(leaves, batch.rows)
        logits = answer_logits(model, batch.ids, batch.answer)
        if row.teacher is None:
            answer_loss(logits, batch.ids, batch.answer).sum().backward()
        else:
            teacher = output_logits(model, row.teacher)
            row_means(
                token_divergences(teacher, logits), batch.answer.nonzero()[:, 0], batch.answer
            ).sum().backward()
    hooks.clear()
    return [leaf.grad for leaf in leaves.factors() if leaf.grad is not None]


def some_rows(count: int, kinds: int = 2) -> list[TokenRow]:
    ids = tiny.prompts([3 + i % 4 for i in range(count)], 61)
    answers = tiny.prompts([1 + i % 3 for i in range(count)], 61)
    return [TokenRow(i % kinds, [4, *ids[i]], answers[i]) for i in range(count)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "granite", "cohere"])
def test_gradients_are_those_of_each_row_alone(family: str) -> None:
    model, layout, adapters = world(family)
    rows = [*some_rows(6), *taught(model, layout, some_rows(8)[3:])]
    rows.append(rows[-1])  # one that comes twice
    weights = [1 / len(row.answer) for row in rows]
    hooks = MultiAdapter(model, layout)
    expected = row_by_row(model, hooks, rows, adapters)
    backends: list[Any] = [
        SharingBackend(model, hooks, 0, 2), PackedBackend(model, hooks, 0, adapters),
    ]  # fmt: skip
    exact = 1e-9 if family == "gpt2" else 1e-5  # the others have norms in float32
    for backend in backends:
        for _ in range(2):  # nothing is left of a step
            found = backend.gradients(rows, weights, adapters)
            for one, two in zip(found, expected, strict=True):
                torch.testing.assert_close(one, two, atol=exact * float(two.abs().max()), rtol=0)
    hooks.close()


def test_who_answers_as_the_teacher_does_has_nothing_to_learn() -> None:
    model, layout, adapters = world()
    rows = some_rows(5, kinds=1)
    own = [replace(row, teacher=states(model, adapters[[0]], row, [])) for row in rows]
    hooks = MultiAdapter(model, layout)
    backend = SharingBackend(model, hooks, 0, 1)
    for gradient in backend.gradients(own, [1.0] * 5, adapters):
        assert float(gradient.abs().max()) < 1e-6
    labelled = backend.gradients(rows, [1.0] * 5, adapters)
    assert all(float(gradient[0].abs().max()) > 1e-4 for gradient in labelled)
    hooks.close()


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 5), st.integers(0, 3))
def test_a_step_has_as_many_rows_of_each_kind(own: int, others: int, size: int, seed: int) -> None:
    labelled = tuple(TokenRow(0, [i], [1]) for i in range(own))
    answered = tuple(TokenRow(0, [i], [2], torch.zeros(1, 4)) for i in range(others))
    job = TrainingJob("job", (*answered, *labelled), seed=seed)
    state = RunState(job, RECIPES["lora"], TrainConfig(rows=size))
    drawn = [state.draw() for _ in range(4)]
    for kind, has_teacher in ((labelled, False), (answered, True)):
        rows = [[r for r in step if (r.teacher is not None) == has_teacher] for step in drawn]
        assert [len(step) for step in rows] == [size if kind else 0] * 4
        if kind:  # in the order that they have alone
            alone = list(islice(shuffled_rows(replace(job, train=kind)), 4 * size))
            assert [row.prompt for step in rows for row in step] == [row.prompt for row in alone]


def test_both_losses_weigh_the_same_however_long_answers_are() -> None:
    """One step from one start, on long labelled answers and short taught ones."""
    model, layout, _ = world("gpt2")
    labelled = [TokenRow(0, [4, 5 + i], [7] * 9) for i in range(2)]
    short = taught(model, layout, [TokenRow(0, [4, 9 + i], [8]) for i in range(2)])
    start = shared_start(layout, 0, torch.float64)
    hooks = MultiAdapter(model, layout)
    by_row = [row_by_row(model, hooks, [row], start) for row in (*labelled, *short)]
    hooks.close()
    expected = [sum(parts) / 2 for parts in zip(*by_row, strict=True)]  # the means of both kinds
    seen: list[list[Tensor]] = []

    class Watched(SharingBackend):
        def gradients(self, rows: Any, weights: Any, adapters: Adapter) -> list[Tensor]:
            seen.append(super().gradients(rows, weights, adapters))
            return seen[-1]

    config = TrainConfig(steps=1, rows=2, slots=1, micro_batches=1, patience=0)
    trainer = BatchedTrainer(model, layout, RECIPES["lora"], config, pad=0, packed=False)
    trainer._backend = lambda hooks: Watched(model, hooks, 0, 1)
    (result,) = trainer.run([TrainingJob("job", (*labelled, *short))])
    assert result.adapter is not None and len(seen) == 1
    for one, two in zip(seen[0], expected, strict=True):
        torch.testing.assert_close(one, two)
