"""Task vectors: the state at the end of each prompt, whatever else is in the batch."""

import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from library.base.decode import greedy
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.base.task_vectors import (
    LONGEST,
    ROWS,
    SHOTS,
    adapted_prompts,
    in_context_prompts,
    task_vectors,
)
from library.layout import layout_of
from library.tasks.files import Example

TEXT = "Name the colour."
PROMPTS = [[[5, 6, 7], [8, 9, 10, 11, 12]], [[13]], [[14, 15, 16, 17], [18, 19], [20, 21, 22]]]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


def state(model: Any, ids: list[int]) -> Tensor:
    """The last layer's state at the last token, of one prompt alone."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1]


def examples(n: int) -> list[Example]:
    return [Example.pair(f"thing {i}", f"colour {i}") for i in range(n)]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_vector_is_the_mean_state_at_the_end_of_a_task_s_prompts(
    loaded: BaseModel, batch_size: int
) -> None:
    found = task_vectors(loaded, PROMPTS, batch_size=batch_size)
    for vector, prompts in zip(found, PROMPTS, strict=True):
        expected = torch.stack([state(loaded.model, ids) for ids in prompts]).mean(0)
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)


def test_each_task_is_asked_with_its_own_adapter(loaded: BaseModel) -> None:
    adapters = tiny.adapter(layout_of(loaded.model.config, rank=3), len(PROMPTS))
    found = task_vectors(loaded, PROMPTS, adapters, batch_size=4)
    for i, prompts in enumerate(PROMPTS):
        model = tiny.merged(loaded.model, adapters, i)
        expected = torch.stack([state(model, ids) for ids in prompts]).mean(0)
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)
    plain = task_vectors(loaded, PROMPTS)  # and the model is left as it was
    torch.testing.assert_close(plain[1], state(loaded.model, PROMPTS[1][0]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, found, rtol=1e-2)


def test_the_base_is_asked_alone_while_another_thread_has_adapters_on_it(
    loaded: BaseModel,
) -> None:
    flat = [ids for prompts in PROMPTS for ids in prompts]

    def ask() -> tuple[Tensor, list[str]]:
        return task_vectors(loaded, PROMPTS), greedy(loaded, flat, max_new_tokens=4)

    expected, found = ask(), []
    adapter = tiny.adapter(layout_of(loaded.model.config, rank=3), 1)
    with closing(MultiAdapter(loaded.model, adapter.layout)) as hooks:
        hooks.set(adapter, torch.zeros(len(flat), dtype=torch.int64))
        thread = threading.Thread(target=lambda: found.append(ask()))
        thread.start()
        thread.join(0.5)
        assert not found
    thread.join(60)
    ((vectors, answers),) = found
    assert torch.equal(vectors, expected[0]) and answers == expected[1]


def test_examples_come_before_the_description_each_of_them_last_once(loaded: BaseModel) -> None:
    tokenizer, rows = loaded.tokenizer, examples(3)
    prompts = in_context_prompts(tokenizer, TEXT, rows)
    texts = [tokenizer.decode(ids) for ids in prompts]
    assert len(texts) == 3
    ends = set()
    for text in texts:
        places = sorted((text.index(row.input), row.input) for row in rows)
        assert all(text.index(row.input) < text.index(row.output) for row in rows)
        assert places[-1][0] < text.index(TEXT)
        ends.add(places[-1][1])
    assert ends == {row.input for row in rows}
    (alone,) = in_context_prompts(tokenizer, TEXT)
    assert TEXT in tokenizer.decode(alone)


def test_the_order_of_examples_matters_up_to_rotation(loaded: BaseModel) -> None:
    rows = examples(4)
    rotated, swapped = [*rows[2:], *rows[:2]], [rows[1], rows[0], *rows[2:]]
    first, same, other, alone = (
        task_vectors(loaded, [in_context_prompts(loaded.tokenizer, TEXT, some)])
        for some in (rows, rotated, swapped, [])
    )
    torch.testing.assert_close(first, same, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(first, other, atol=1e-4)
    assert not torch.allclose(first, alone, rtol=1e-2)


def test_only_the_first_five_examples_that_are_short_enough_are_read(loaded: BaseModel) -> None:
    rows, long = examples(SHOTS + 2), Example.pair("word " * LONGEST, "long")
    tokenizer = loaded.tokenizer
    expected = in_context_prompts(tokenizer, TEXT, rows[:SHOTS])
    assert in_context_prompts(tokenizer, TEXT, rows) == expected
    assert in_context_prompts(tokenizer, TEXT, [long, *rows]) == expected
    assert in_context_prompts(tokenizer, TEXT, [long]) == in_context_prompts(tokenizer, TEXT)


def test_adapted_prompts_are_bare_and_thirty_at_most(loaded: BaseModel) -> None:
    rows = examples(ROWS + 5)
    texts = [loaded.tokenizer.decode(ids) for ids in adapted_prompts(loaded.tokenizer, rows)]
    assert len(texts) == ROWS and "thing 29" in texts[-1]
    answered = [replace(row, outputs=("never read",)) for row in rows]
    assert adapted_prompts(loaded.tokenizer, answered) == adapted_prompts(loaded.tokenizer, rows)
