"""Rows of the multi-task adapter, and of the one that writes inputs, from the same draws."""

from dataclasses import replace

import pytest

from benchmarks.calibrate.multi_task_rows import RowSource
from generator.refine.writer import ASK, MOST_TOKENS
from library.base.models import BaseReference, load_tokenizer
from library.base.prompts import answer_ids, prompt_ids, user_turn
from library.tasks.files import Example, Task
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks

DEFINITION = "Say yes or no."
PAIRS, TWO_MORE = (("miaow", "cat"), ("woof", "dog")), ("Is it a cat or a dog?", "cat/dog?")
LONG = "word " * (MOST_TOKENS + 1)


@pytest.fixture(scope="module")
def source(base: BaseReference) -> RowSource:
    rows = [Example.pair(text, "yes") for text in ("a cat", "a dog", LONG, "")]
    rows = [replace(row, id=str(i)) for i, row in enumerate([*rows, *rows[:1] * 60])]
    task = Task("task", DEFINITION, tuple(rows))
    return RowSource(load_tokenizer(base), [task], 0, 0.0, SyntheticTasks(0, FAMILIES, ()), 4, 0)


def test_who_writes_inputs_learns_those_of_the_same_rows(source: RowSource) -> None:
    answering, writing = source.rows(), replace(source, writes=True).rows()
    tokenizer = source.tokenizer
    asked = prompt_ids(tokenizer, user_turn("prompted", DEFINITION, ASK))
    written = [row.answer for row in writing if row.prompt == asked]
    texts = ("a cat", "a dog")
    known = [answer_ids(tokenizer, text) for text in texts]
    assert written and all(answer in known for answer in written), "neither long nor empty ones"
    prompts = [prompt_ids(tokenizer, user_turn("prompted", DEFINITION, text)) for text in texts]
    assert len(written) == sum(row.prompt in prompts for row in answering)
    assert all(len(row.answer) <= MOST_TOKENS for row in writing)
    assert not any(row.prompt == asked for row in answering)


def test_authored_tasks_come_in_all_their_wordings_and_keep_their_labels(source: RowSource) -> None:
    rows = tuple(replace(Example.pair(text, label), id=text) for text, label in PAIRS)
    authored = Task("authored/pet", "cat or dog", rows, paraphrases=TWO_MORE, authored=True)
    mixed = replace(source, tasks=[*source.tasks, authored], authored_rows=60)
    alone, tokenizer = source.rows(), source.tokenizer
    added = [row for row in mixed.rows() if row not in alone]
    assert mixed.rows(workers=2) == mixed.rows()
    assert mixed.rows()[: len(alone) - 8] == alone[:-8] and mixed.rows()[-8:] == alone[-8:]
    assert len(mixed.rows()) == len(alone) + 60
    asked = {
        tuple(prompt_ids(tokenizer, user_turn("prompted", wording, text))): label
        for wording in authored.descriptions
        for text, label in PAIRS
    }
    assert {tuple(row.prompt) for row in added} == asked.keys()
    assert all(row.answer == answer_ids(tokenizer, asked[tuple(row.prompt)]) for row in added)
