"""A teacher's answers to inputs: which are learned, what becomes of the others, what is learned."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.refine.refine import Start, refine_starts
from generator.refine.teacher import Agreement, Lesson, Teacher, agreement, lesson
from generator.refine.training import (
    CHECK_EVERY,
    Refinement,
    RefineSettings,
    example_rows,
    refine_adapters,
)
from generator.strategies.multi_task import MultiTask
from library.adapter import Adapter
from library.base.batches import grouped
from library.base.decode import greedy
from library.base.example_loss import scores_under
from library.base.loss import answer_logits, output_logits, row_means, token_divergences
from library.base.models import BaseModel, BaseReference, load_base
from library.base.multi_adapter import adapted
from library.base.prompts import prompt_ids
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.layout import layout_of
from library.tasks.files import Example
from library.tasks.identity import inputs_digest
from library.trainer.optimiser import shared_start

TASK = "Say yes or no."
PROMPTED = Usage.of("prompted", TASK)
INPUTS = [f"row {i}" for i in range(12)]


@pytest.fixture(scope="module")
def loaded(base: BaseReference) -> BaseModel:
    return load_base(base)


def teacher_of(loaded: BaseModel, examples: Sequence[Example]) -> Teacher:
    """A teacher that answers so, with the description in its prompt."""
    layout = layout_of(loaded.model.config, rank=6)
    rows = example_rows(loaded, examples, PROMPTED)
    many = RefineSettings(steps=80, lr=1e-2, rows=len(rows))
    start = Refinement(shared_start(layout, 1), rows)
    (trained,) = refine_adapters(loaded, layout, [start], many)
    return Teacher(trained.adapter, "f" * 64, PROMPTED)


@pytest.fixture(scope="module")
def teacher(multi_task: Path, base: BaseReference) -> Teacher:
    return MultiTask(multi_task).teacher(TASK, base)


@pytest.fixture(scope="module")
def start(loaded: BaseModel) -> Adapter:
    return shared_start(layout_of(loaded.model.config, rank=4), 0)


def answers(loaded: BaseModel, teacher: Teacher, texts: Sequence[str]) -> list[str]:
    prompts = [prompt_ids(loaded.tokenizer, PROMPTED.message(text)) for text in texts]
    return greedy(loaded, prompts, teacher.adapter)


def text_of(loaded: BaseModel, tokens: list[int]) -> str:
    return loaded.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_rows_are_bare_and_answered_as_the_teacher_does(
    loaded: BaseModel, teacher: Teacher
) -> None:
    told = lesson(loaded, teacher, INPUTS, BARE)
    expected = dict(zip(INPUTS, answers(loaded, teacher, INPUTS), strict=True))
    assert len({*expected.values()}) > 1
    assert told.about.different == len({*expected.values()})
    by_prompt = {tuple(prompt_ids(loaded.tokenizer, text)): text for text in INPUTS}
    seen = [by_prompt[tuple(row.prompt)] for row in (*told.rows, *told.held_back)]
    assert sorted(seen) == sorted(INPUTS) and len(told.held_back) == len(INPUTS) // 5
    for row in (*told.rows, *told.held_back):
        text = by_prompt[tuple(row.prompt)]
        assert text_of(loaded, row.answer) == expected[text]
        assert (row.teacher is None) == (row in told.held_back)
        if row.teacher is not None:
            assert output_logits(loaded.model, row.teacher).argmax(-1).tolist() == row.answer


@settings(max_examples=8)
@given(st.permutations(INPUTS), st.integers(0, 5), st.integers(0, 9))
def test_what_becomes_of_an_input_does_not_depend_on_others(
    loaded: BaseModel, teacher: Teacher, texts: list[str], repeated: int, seed: int
) -> None:
    whole = lesson(loaded, teacher, INPUTS, BARE)
    usual = {tuple(r.prompt): r.answer for r in (*whole.rows, *whole.held_back)}
    texts = texts[: 5 + repeated]
    given = [*texts, *texts[:repeated], "nothing " * 1100]
    told = lesson(loaded, teacher, given, BARE, labelled=[*texts[:1], "x"], seed=seed)
    for row in (*told.rows, *told.held_back):
        assert usual[tuple(row.prompt)] == row.answer
    about = told.about
    assert (about.given, about.digest) == (len(given), inputs_digest(given))
    assert (about.repeated, about.labelled, about.too_long) == (repeated, 1, 1)
    assert (about.empty, about.cut, about.teacher) == (0, 0, teacher.digest)
    left = len(texts) - 1
    assert len(told.rows) + len(told.held_back) == left and len(told.held_back) == left // 5


def test_the_seed_says_which_are_held_back(loaded: BaseModel, teacher: Teacher) -> None:
    held = {
        tuple(sorted(map(tuple, (row.prompt for row in told.held_back))))
        for told in (lesson(loaded, teacher, INPUTS, BARE, seed=seed) for seed in range(5))
    }
    assert len(held) > 1


def test_empty_answers_are_left_out(loaded: BaseModel) -> None:
    texts = [word * (1 + i) for i in range(5) for word in ("quiet ", "7 ")]
    silent = [Example.pair(text, "" if text.startswith("quiet") else "yes") for text in texts]
    sometimes = teacher_of(loaded, silent)
    told = lesson(loaded, sometimes, texts, BARE)
    empty = answers(loaded, sometimes, texts).count("")
    assert 0 < empty < 10 and told.about.empty == empty
    assert len(told.rows) + len(told.held_back) == 10 - empty
    assert all(text_of(loaded, row.answer) for row in told.rows)
    mute = teacher_of(loaded, [Example.pair(text, "") for text in INPUTS])
    with pytest.raises(UsageError, match="the teacher's answers to all inputs are empty"):
        lesson(loaded, mute, INPUTS, BARE)


def test_answers_without_an_end_are_counted(loaded: BaseModel, start: Adapter) -> None:
    endless = replace(loaded, model=deepcopy(loaded.model))
    with torch.no_grad():  # some other token is always likelier
        endless.model.get_output_embeddings().weight[loaded.tokenizer.eos_token_id] = 0
    rambling = Teacher(tiny.adapter(start.layout, seed=9).scaled(0.1), "e" * 64, PROMPTED)
    told = lesson(endless, rambling, INPUTS[:2], BARE)
    assert told.about.cut == told.about.different == 2 and told.held_back == ()
    assert [len(row.answer) for row in told.rows] == [64, 64]


def test_without_an_input_to_ask_nothing_is_taught(loaded: BaseModel, teacher: Teacher) -> None:
    with pytest.raises(UsageError, match="every input is among the examples"):
        lesson(loaded, teacher, INPUTS[:2], BARE, labelled=INPUTS)
    long = Teacher(teacher.adapter, "0", Usage.of("prompted", "Say yes. " * 400))
    for who, text in ((teacher, "no " * 1100), (long, "row 1")):
        with pytest.raises(UsageError, match="with the description before it, 1024 tokens"):
            lesson(loaded, who, [text], BARE)


def divergence(loaded: BaseModel, adapter: Adapter, told: Lesson) -> float:
    """Mean over rows of the divergence of an adapter with bare prompts from the teacher."""
    found = []
    for row in told.rows:
        (batch,) = grouped([row], 0, 1)
        with adapted(loaded.model, adapter, batch.rows) as model, torch.no_grad():
            student = answer_logits(model, batch.ids, batch.answer)
        assert row.teacher is not None
        teacher = output_logits(loaded.model, row.teacher)
        found.append(
            row_means(
                token_divergences(teacher, student), batch.answer.nonzero()[:, 0], batch.answer
            )
        )
    return float(torch.cat(found).mean())


def taught(start: Adapter, teacher: Teacher, **changes: Any) -> Start:
    return replace(Start(start, (), BARE, inputs=INPUTS, teacher=teacher), **changes)


def test_the_adapter_learns_the_teachers_distributions(
    loaded: BaseModel, teacher: Teacher, start: Adapter
) -> None:
    (refined,) = refine_starts(loaded, [taught(start, teacher)], steps=60)
    told = lesson(loaded, teacher, INPUTS, BARE)
    assert divergence(loaded, refined.adapter, told) < 0.7 * divergence(loaded, start, told)
    assert refined.used == 0 and refined.held_out is None and refined.taught is not None
    assert refined.taught.answered == told.about and refined.taught.used == len(told.rows)
    assert refined.taught.kept_step in range(CHECK_EVERY, 61, CHECK_EVERY)
    same = refined.taught.agreement
    assert same is not None and same == agreement(loaded, start, refined.adapter, told.held_back)
    assert same.of == len(told.held_back) == 2


def test_agreement_is_of_whole_answers(loaded: BaseModel, teacher: Teacher, start: Adapter) -> None:
    """Who is asked as the teacher is agrees with it; any other as often as it decodes the same."""
    told = lesson(loaded, teacher, INPUTS, PROMPTED)
    rows = [replace(row, teacher=None) for row in told.rows] + [*told.held_back]
    own = [text_of(loaded, row.answer) for row in rows]
    counts = set()
    for factor in (0.98, 0.95, 0.9, 0.8, 0.5):
        weaker = teacher.adapter.scaled(factor)
        found = greedy(loaded, [row.prompt for row in rows], weaker)
        same = sum(a == b for a, b in zip(found, own, strict=True))
        both = agreement(loaded, weaker, teacher.adapter, rows)
        assert both == Agreement(same=len(rows), of=len(rows), start_same=same)
        counts.add(same)
    assert len(counts) > 1
    assert agreement(loaded, start, start, ()) is None


def test_the_same_bytes_again_whatever_is_trained_beside(
    loaded: BaseModel, teacher: Teacher, start: Adapter
) -> None:
    mine = taught(start, teacher)
    labelled = [Example.pair(text, "no") for text in INPUTS[:3]]
    others = [taught(start, teacher, inputs=INPUTS[::-1]), Start(start, labelled, BARE)]
    (one,), (two,) = (refine_starts(loaded, [mine], steps=8) for _ in range(2))
    for a, b in zip(one.adapter.factors(), two.adapter.factors(), strict=True):
        assert torch.equal(a, b)
    together = refine_starts(loaded, [others[1], mine, others[0]], steps=8)
    assert together[0].taught is None and together[1].taught == one.taught
    expected = tiny.deltas(one.adapter)
    for name, delta in tiny.deltas(together[1].adapter).items():
        torch.testing.assert_close(delta, expected[name], atol=1e-6, rtol=1e-3)


def test_with_examples_both_are_learned_and_the_last_step_is_kept(
    loaded: BaseModel, teacher: Teacher, start: Adapter
) -> None:
    examples = [Example.pair(text, "maybe") for text in [*INPUTS[:2], "more 1", "more 2"]]
    both = taught(start, teacher, examples=examples)
    (refined,) = refine_starts(loaded, [both], steps=12)
    assert refined.used == 4 and refined.taught is not None
    assert refined.taught.answered.labelled == 2 and refined.taught.kept_step == 12
    assert refined.held_out is not None and refined.held_out.of == 4
    alone = [
        refine_starts(loaded, [job], steps=12)[0]
        for job in (taught(start, teacher), Start(start, examples, BARE))
    ]
    told = lesson(loaded, teacher, INPUTS, BARE, labelled=INPUTS[:2])
    rows = example_rows(loaded, examples)

    def loss(adapter: Adapter) -> float:
        """Cross-entropy of the examples' answers."""
        return float(scores_under(loaded, adapter, rows)[1].mean())

    # Of each kind it has learned more than who saw the other kind alone.
    assert divergence(loaded, refined.adapter, told) < divergence(loaded, alone[1].adapter, told)
    assert loss(refined.adapter) < loss(alone[0].adapter)


def test_few_inputs_are_not_measured(loaded: BaseModel, teacher: Teacher, start: Adapter) -> None:
    (refined,) = refine_starts(loaded, [taught(start, teacher, inputs=INPUTS[:4])], steps=3)
    assert refined.taught is not None and refined.taught.kept_step == 3
    assert refined.taught.agreement is None and refined.taught.used == 4
    shown = refined.to_dict()
    assert shown["inputs"]["agreement"] is None and shown["examples_used"] == 0
    assert shown["inputs"]["given"] == 4 and shown["held_out"] is None


def test_progress_counts_inputs_and_steps_to_the_end(
    loaded: BaseModel, teacher: Teacher, start: Adapter
) -> None:
    seen: list[tuple[int, int]] = []
    jobs = [taught(start, teacher), Start(start, [Example.pair("row", "no")], BARE)]
    refine_starts(loaded, jobs, steps=3, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] == len(INPUTS) and seen[-1] == (len(INPUTS) + 6, len(INPUTS) + 6)
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
