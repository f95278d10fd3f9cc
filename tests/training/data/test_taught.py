"""Steps with a teacher: both read the same row and answer; conditions that ask for nothing."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from library.base.models import load_tokenizer, resolve_base
from library.base.prompts import answer_ids, prompt_ids
from library.errors import UsageError
from library.tasks.files import Example, Task
from training.data.batches import FRESH, Rows
from training.data.draws import StepDataset, origin_of
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig
from training.data.taught import TaughtDataModule, TaughtSteps, gibberish, may_fit
from training.evaluation.swaps import GIBBERISH
from training.synthetic.banks import read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks

PLAIN = SamplingConfig(4, 3, prompted_share=0.5, relabel_share=0.3, max_length=2000)


def task(name: str, source: str, rows: int = 70) -> Task:
    made = tuple(
        Example(f"{name}-{i}", f"{name} input {i}", (f"{name} answer {i % 3}",))
        for i in range(rows)
    )
    return Task(name, f"Definition of {name}.", made, paraphrases=("One.",), sources=(source,))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_base())


@pytest.fixture(scope="module")
def bank(tokenizer: Any) -> Rows:
    """Six tasks, two of each source; each has two texts and a relabelling."""
    tasks = [task(f"t{i}", f"source {i // 2}") for i in range(6)]
    others = [[Relabelling(f"Other {i}.", {f"t{i} answer 0": "red"})] for i in range(6)]
    return Rows(tasks, tokenizer, others)


def test_rows_are_those_of_other_trainings_and_the_teacher_reads_the_description(
    bank: Rows, tokenizer: Any
) -> None:
    plain, taught = StepDataset(bank, PLAIN, 20, seed=1), TaughtSteps(bank, PLAIN, 20, seed=1)
    same = 0
    for step in range(20):
        one, other = plain[step], taught[step]
        assert torch.equal(one.descriptions, other.descriptions) and one.tokens == other.tokens
        assert not other.rows and not other.asked
        for asked, row in zip(one.asked, other.taught, strict=True):
            assert (asked.owner, asked.prompt) == (row.owner, row.prompt) and not row.nothing
            assert row.answer == answer_ids(tokenizer, asked.references[0])
            text = bank.texts[int(one.descriptions[row.owner])]
            instance = next(
                i
                for t in bank.tasks
                for i in t.instances
                if prompt_ids(tokenizer, f"{text}\n\n{i.input}") == row.read
            )
            bare = prompt_ids(tokenizer, instance.input)
            definition = next(
                t.definition if not text.startswith("Other") else text
                for t in bank.tasks
                if instance in t.instances
            )
            assert row.prompt in (bare, prompt_ids(tokenizer, f"{definition}\n\n{instance.input}"))
            same += row.prompt == row.read
    assert 0 < same < 240  # where the student has the instruction and it is the description


def test_a_step_is_a_function_of_seed_and_step(bank: Rows) -> None:
    first, again = (TaughtSteps(bank, PLAIN, 9, 1, nothing_share=0.5) for _ in range(2))
    for step in (5, 0, 3):
        assert first[step].taught == again[step].taught and first[step].fresh == again[step].fresh
    assert first[0].taught != TaughtSteps(bank, PLAIN, 9, 2, nothing_share=0.5)[0].taught


def test_a_share_of_the_conditions_asks_for_nothing(bank: Rows, tokenizer: Any) -> None:
    config = replace(PLAIN, tasks_per_step=8)
    data, kinds = TaughtSteps(bank, config, 40, seed=0, nothing_share=0.25), set()
    for step in range(40):
        batch = data[step]
        assert len(batch.descriptions) == 8
        described = [row for row in batch.taught if not row.nothing]
        assert {row.owner for row in described} == set(range(6))
        for owner in (6, 7):
            rows = [row for row in batch.taught if row.owner == owner]
            assert len(rows) == 3 and all(row.nothing and row.read == row.prompt for row in rows)
            names = {tokenizer.decode(row.prompt).split("user\n")[1][:2] for row in rows}
            (name,) = names  # the rows of one task of the step
            answers = {tokenizer.decode(row.answer) for row in rows}
            assert all(a.startswith((f"{name} answer", "red")) for a in answers)
            place = int(batch.descriptions[owner])
            kinds.add(place == FRESH)
            if place == FRESH:
                assert batch.fresh[owner] not in bank.texts
            else:  # a description of the step, of a task of another source
                assert place in batch.descriptions[:6] and owner not in batch.fresh
                number = next(i for i in range(6) if place < bank.first[i] + 3)
                assert bank.tasks[number].sources != bank.tasks[int(name[1])].sources
    assert kinds == {True, False}


def test_synthetic_tasks_are_taught_and_lend_descriptions(bank: Rows, tokenizer: Any) -> None:
    stream = SyntheticTasks(0, FAMILIES, read_topics())
    config = replace(PLAIN, tasks_per_step=8, synthetic_share=1.0)
    data, lent = TaughtSteps(bank, config, 12, 0, stream, nothing_share=0.25), 0
    for step in range(12):
        batch = data[step]
        assert batch.descriptions.tolist() == [FRESH] * 8 and sorted(batch.fresh) == [*range(8)]
        for row in batch.taught:
            made = stream[6 * step + row.owner] if row.owner < 6 else None
            if made is not None:
                reads = [f"{made.description}\n\n{made.row(j).input}" for j in range(3)]
                assert row.read in [prompt_ids(tokenizer, turn) for turn in reads]
        others = [i for i in range(6) for j in (6, 7) if batch.fresh[i] == batch.fresh[j]]
        lent += len(others)
    assert lent > 0


def test_what_may_fit_a_row(bank: Rows) -> None:
    data = StepDataset(bank, replace(PLAIN, tasks_per_step=6), 1, seed=0)
    drawn = {t.train[0].input[:2]: t for t in data.draw(0).tasks}
    for i in range(6):
        for j in range(6):
            assert may_fit(drawn[f"t{i}"], drawn[f"t{j}"]) == (i // 2 == j // 2)
    shared = replace(drawn["t0"], train=drawn["t5"].rows)
    assert may_fit(shared, drawn["t5"])  # of another source, and with an input of it
    assert origin_of(replace(bank.tasks[0], sources=())) == {"t0"}
    assert origin_of(replace(bank.tasks[0], categories=("c",))) == {"source 0", "c"}


def test_examples_stay_with_their_tasks(bank: Rows) -> None:
    config = replace(PLAIN, examples=2, no_examples_share=0.0)
    batch = TaughtSteps(bank, config, 1, 0, nothing_share=0.25)[0]
    assert batch.examples is not None and len(batch.examples) == 4 and batch.examples[3] == []
    assert batch.examples[:3] == StepDataset(
        bank, replace(config, tasks_per_step=3), 1, 0
    )[0].examples  # fmt: skip


def test_rows_that_are_too_long_for_either_are_left_out(bank: Rows) -> None:
    every = TaughtSteps(bank, PLAIN, 20, seed=1)
    lengths = [[max(len(r.prompt), len(r.read)) + len(r.answer) for r in every[i].taught]
               for i in range(20)]  # fmt: skip
    limit = sorted(n for step in lengths for n in step)[100]
    cut = TaughtSteps(bank, replace(PLAIN, max_length=limit), 20, seed=1)
    for step in range(20):
        kept = zip(every[step].taught, lengths[step], strict=True)
        assert cut[step].taught == [row for row, length in kept if length <= limit]


def test_gibberish_is_drawn_and_of_several_kinds() -> None:
    rng, words = random.Random(0), ["alpha", "beta", "gamma"]
    texts = [gibberish(rng, words) for _ in range(300)]
    assert len(set(texts)) > 290 and not set(texts) & set(GIBBERISH)
    assert all(3 <= len(text.split()) <= 14 and text.isprintable() for text in texts)
    existing = [set(text.split()) <= set(words) for text in texts]
    invented = [text.replace(" ", "").isalpha() and text.islower() for text in texts]
    assert 60 < sum(existing) < 140
    assert 60 < sum(b and not a for a, b in zip(existing, invented, strict=True)) < 140
    assert gibberish(random.Random(1), words) == gibberish(random.Random(1), words)


def test_the_record_tells_the_share_and_no_other_share_is_taken(tmp_path: Path) -> None:
    data = TaughtDataModule(tasks=[str(tmp_path)], nothing_share=0.2)
    assert data.record["nothing_share"] == 0.2
    for wrong in (-0.1, 1.0):
        with pytest.raises(UsageError, match="nothing_share must be from 0 up to 1"):
            TaughtDataModule(tasks=[str(tmp_path)], nothing_share=wrong)
