"""Inputs that are written from a description: different ones, the same again, and learned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generator.refine import writer as writing
from generator.refine.refine import Start, refine_starts
from generator.refine.teacher import Teacher
from generator.refine.writer import TOGETHER, Writer, written_inputs
from generator.strategies.input_writer import InputWriter
from generator.strategies.multi_task import MultiTask
from library.base.models import BaseModel, BaseReference, load_base
from library.base.usage import BARE
from library.errors import LayoutMismatch, UsageError
from library.layout import layout_of
from library.trainer.optimiser import shared_start

TASK = "Say yes or no."


@pytest.fixture(scope="module")
def loaded(base: BaseReference) -> BaseModel:
    return load_base(base)


@pytest.fixture(scope="module")
def teacher(multi_task: Path, base: BaseReference) -> Teacher:
    return MultiTask(multi_task).teacher(TASK, base)


@pytest.fixture(scope="module")
def writer(multi_task: Path, base: BaseReference) -> Writer:
    """What any adapter of the tiny base writes; it was not trained for that."""
    return InputWriter(multi_task).writer(TASK, base, 6)


def test_they_differ_and_are_the_same_again(loaded: BaseModel, writer: Writer) -> None:
    texts = written_inputs(loaded, writer)
    assert len(texts) == len({*texts}) == 6 and all(text.strip() == text for text in texts)
    assert written_inputs(loaded, writer) == texts
    assert {*written_inputs(loaded, writer, seed=1)} != {*texts}
    # More of them go on where fewer end, over several batches.
    many = written_inputs(loaded, replace(writer, count=2 * TOGETHER["cpu"]))
    assert many[:6] == texts and len(many) == len({*many}) > TOGETHER["cpu"]


def test_the_description_and_the_adapter_matter(loaded: BaseModel, writer: Writer) -> None:
    texts = written_inputs(loaded, writer)
    assert written_inputs(loaded, replace(writer, description="Copy the number.")) != texts
    other = shared_start(layout_of(loaded.model.config, rank=4), 1)
    louder = replace(other, B={key: torch.ones_like(b) for key, b in other.B.items()})
    assert written_inputs(loaded, replace(writer, adapter=louder)) != texts


def test_what_cannot_be_written_is_said(
    loaded: BaseModel, writer: Writer, base: BaseReference, multi_task: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match="up to 1024 tokens"):
        written_inputs(loaded, replace(writer, description="word " * 1100))
    with pytest.raises(UsageError, match="need a description"):
        InputWriter(multi_task).writer(None, base, 6)
    with pytest.raises(LayoutMismatch, match=r"nothing can write inputs: .* no input-writer"):
        InputWriter(multi_task.with_name("absent")).writer(TASK, base, 6)
    silent = [[loaded.tokenizer.eos_token_id]] * TOGETHER["cpu"]
    monkeypatch.setattr(writing, "decode", lambda *_, **__: silent)
    with pytest.raises(UsageError, match="not one input"):
        written_inputs(loaded, writer)


def test_they_are_learned_as_if_they_were_given(
    loaded: BaseModel, writer: Writer, teacher: Teacher
) -> None:
    start = Start(
        shared_start(layout_of(loaded.model.config, rank=4), 0), (), BARE, teacher=teacher
    )
    given = replace(start, inputs=written_inputs(loaded, writer, seed=3))
    told: list[tuple[int, int]] = []
    (own,) = refine_starts(
        loaded, [replace(start, writer=writer)], steps=2, seed=3,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    (same,) = refine_starts(loaded, [given], steps=2, seed=3)
    assert own.adapter.A.keys() == same.adapter.A.keys()
    for key in own.adapter.B:
        torch.testing.assert_close(own.adapter.B[key], same.adapter.B[key], rtol=0, atol=0)
    assert own.taught is not None and same.taught is not None
    assert (own.taught.answered.writer, same.taught.answered.writer) == (writer.digest, None)
    assert replace(own.taught.answered, writer=None) == same.taught.answered
    assert told[0][0] == 0 and told[-1][0] == told[-1][1]
