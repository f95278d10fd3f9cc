"""Batches of training: a function of (seed, step), of similar lengths; tasks set aside."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.base.batches import cuts
from library.base.models import load_tokenizer, resolve_base
from library.base.prompts import prompt_ids
from library.errors import UsageError
from library.tasks.files import Example, Task
from training.data.batches import UNDESCRIBED, Rows, TaskBatch
from training.data.draws import StepDataset, ValidationDataset
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig
from training.data.tasks import set_aside


def task(name: str, rows: int = 70, category: str = "c") -> Task:
    made = tuple(
        Example(f"{name}-{i}", f"{name} input {i}", (f"{name} answer {i % 3}", "other"))
        for i in range(rows)
    )
    return Task(
        name, f"Definition of {name}.", made, paraphrases=("One.", "Two."), categories=(category,)
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_base())


def same(a: TaskBatch, b: TaskBatch) -> bool:
    return (
        torch.equal(a.descriptions, b.descriptions)
        and len(a.rows) == len(b.rows)
        and all(
            x.ids.shape == y.ids.shape and torch.equal(x.ids, y.ids)
            and torch.equal(x.answer, y.answer) and torch.equal(x.rows, y.rows)
            for x, y in zip(a.rows, b.rows, strict=True)
        )
    )  # fmt: skip


def test_a_step_is_a_function_of_seed_and_step(tokenizer: Any) -> None:
    rows = Rows([task(f"t{i}") for i in range(5)], tokenizer)
    config = SamplingConfig(tasks_per_step=3, rows_per_task=2, micro_batches=2)
    first, again = (StepDataset(rows, config, 100, seed=1) for _ in range(2))
    later = [again[i] for i in (7, 3, 0)][::-1]  # in another order
    assert all(same(first[i], batch) for i, batch in zip((0, 3, 7), later, strict=True))
    assert not same(first[0], first[1])
    assert not same(first[0], StepDataset(rows, config, 100, seed=2)[0])


def test_relabelled_steps_change_description_prompt_and_answer_alike(tokenizer: Any) -> None:
    """The words that a description promises are those that its answers hold."""
    task = Task(
        "t",
        "Answer 'yes' or 'no'.",
        tuple(Example(f"t-{i}", f"question {i}", (("yes", "no")[i % 2],)) for i in range(70)),
        summary="Judge it.",
    )
    other = Relabelling("Answer 'red' or 'blue'.", {"yes": "red", "no": "blue"})
    rows = Rows([task], tokenizer, [[other]])
    assert rows.texts == [task.definition, task.summary, other.definition]
    for share, wanted in ((0.0, {0, 1}), (1.0, {2}), (0.5, {0, 1, 2})):
        config = SamplingConfig(1, 8, prompted_share=0.5, relabel_share=share, micro_batches=1)
        seen = set()
        for batch in (StepDataset(rows, config, 40, seed=0)[step] for step in range(40)):
            place = int(batch.descriptions[0])
            seen.add(place)
            for ids, answer in zip(batch.rows[0].ids, batch.rows[0].answer, strict=True):
                asked = tokenizer.decode(ids[: int(answer.nonzero()[0]) + 1])
                row = task.instances[int(re.findall(r"question (\d+)", asked)[0])]
                said = tokenizer.decode(ids.roll(-1)[answer]).removesuffix("<|im_end|>")
                assert said == (other.labels if place == 2 else {}).get(*row.outputs * 2)
                assert (task.definition in asked) <= (place != 2)
                assert (other.definition in asked) <= (place == 2)
        assert seen == wanted


def test_every_task_is_seen_once_per_round(tokenizer: Any) -> None:
    rows = Rows([task(f"t{i}") for i in range(5)], tokenizer)
    data = StepDataset(rows, SamplingConfig(tasks_per_step=2, rows_per_task=1), 10, seed=0)
    owner = {
        d: i
        for i, (first, n) in enumerate(zip(rows.first, map(len, rows.wordings), strict=True))
        for d in range(first, first + n)
    }
    visits = [owner[d] for step in range(10) for d in data[step].descriptions.tolist()]
    rounds = [visits[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(visit) == list(range(5)) for visit in rounds)
    assert len({tuple(visit) for visit in rounds}) > 1


def test_a_batch_holds_prompt_answer_and_where_the_answer_is(tokenizer: Any) -> None:
    tasks = [task("alpha"), task("beta")]
    config = SamplingConfig(
        tasks_per_step=2, rows_per_task=3, prompted_share=0.5, definition_share=0.5
    )
    data = StepDataset(Rows(tasks, tokenizer, first=10), config, 20, seed=0)
    modes, names, count = set(), set(), 0
    for step in range(20):
        batch = data[step]
        assert sorted(torch.cat([g.rows for g in batch.rows]).tolist()) == [0, 0, 0, 1, 1, 1]
        tokens = 0
        for group in batch.rows:
            every = (group.ids, group.answer, group.rows, group.prompt)
            for ids, answer, position, prompt in zip(*every, strict=True):
                description = int(batch.descriptions[position])
                owner = tasks[(description - 10) // 3]
                names.add(description)
                wanted = ids.roll(-1)[answer]
                text = tokenizer.decode(wanted)
                instances = [i for i in owner.train if text == f"{i.outputs[0]}<|im_end|>"]
                assert instances
                start = int(answer.nonzero()[0]) + 1
                assert prompt.nonzero()[:, 0].tolist() == [*range(start)]
                prompts = {
                    mode: [prompt_ids(tokenizer, prefix + i.input) for i in instances]
                    for mode, prefix in (("bare", ""), ("prompted", f"{owner.definition}\n\n"))
                }
                found = [m for m, ps in prompts.items() if ids[:start].tolist() in ps]
                assert len(found) == 1
                modes.update(found)
                tokens += start + len(wanted)
                count += 1
        assert batch.tokens == tokens
    assert count == 120
    assert modes == {"bare", "prompted"}
    assert names == set(range(10, 16))  # definitions and every paraphrase


def test_what_is_asked_are_the_same_rows_with_every_accepted_answer(tokenizer: Any) -> None:
    other = Relabelling("Say red or blue.", {"t answer 0": "red", "t answer 1": "blue"})
    rows = Rows([task("t"), task("u")], tokenizer, [[other], []])
    config = SamplingConfig(2, 3, prompted_share=0.5, relabel_share=0.5, max_length=60)
    seen: set[tuple[str, ...]] = set()
    for batch in (StepDataset(rows, config, 20, seed=0)[step] for step in range(20)):
        trained = []
        for group in batch.rows:
            for ids, answer, owner in zip(group.ids, group.answer, group.rows, strict=True):
                said = tokenizer.decode(ids.roll(-1)[answer]).removesuffix("<|im_end|>")
                trained.append((int(owner), ids[: int(answer.nonzero()[0]) + 1].tolist(), said))
        asked = [(row.owner, row.prompt, row.references[0]) for row in batch.asked]
        assert sorted(asked) == sorted(trained)
        assert all(row.references[1:] == ("other",) for row in batch.asked)
        seen |= {row.references for row in batch.asked}
    assert {("red", "other"), ("t answer 0", "other"), ("u answer 0", "other")} <= seen


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_micro_batches_hold_rows_of_similar_length(tokenizer: Any, parts: int) -> None:
    rows = Rows([task(f"t{'x ' * 9 * i}") for i in range(6)], tokenizer)
    config = SamplingConfig(tasks_per_step=6, rows_per_task=4, micro_batches=parts)
    groups = StepDataset(rows, config, 1, seed=0)[0].rows
    assert sum(len(group.ids) for group in groups) == 24
    assert 1 <= len(groups) <= parts
    widths = [group.ids.shape[1] for group in groups]
    assert widths == sorted(widths)
    assert parts == 1 or len(set(widths)) > 1


@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(1, 4))
def test_cuts_take_the_least_padding(lengths: list[int], parts: int) -> None:
    lengths.sort()

    def cells(edges: Sequence[int]) -> int:
        return sum((b - a) * -(-lengths[b - 1] // 8) * 8 for a, b in pairwise([0, *edges]))

    n = len(lengths)
    every = [[*inner, n] for k in range(min(parts, n)) for inner in combinations(range(1, n), k)]
    found = cuts(lengths, parts)
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])] and len(found) <= parts
    assert cells([b for _, b in found]) == min(map(cells, every))


def test_long_rows_are_left_out_and_validation_takes_tune_rows(tokenizer: Any) -> None:
    long = task("long")
    stretched = tuple(
        Example(i.id, i.input + (" word" * 400 if n % 2 else ""), i.outputs)
        for n, i in enumerate(long.instances)
    )
    tasks = [task(f"t{i}") for i in range(8)] + [Task("long", "D.", stretched)]
    data = ValidationDataset(Rows(tasks, tokenizer), SamplingConfig(max_length=200))
    assert len(data) == 2
    full, last = data[0], data[1]
    assert sum(len(g.ids) for g in full.rows) == 8 * 20
    assert full.descriptions.tolist() == [3 * i for i in range(8)]
    kept = torch.cat([g.rows for g in last.rows])
    assert len(kept) == 10  # every other row is too long
    assert max(g.ids.shape[1] for g in [*full.rows, *last.rows]) <= 200


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=40),
    st.floats(0, 0.9),
    st.integers(0, 3),
)
def test_tasks_set_aside(categories: list[str], share: float, seed: int) -> None:
    tasks = [task(f"t{i}", 1, c) for i, c in enumerate(categories)]
    train, aside = set_aside(tasks, share, seed)
    assert sorted([*train, *aside], key=lambda t: int(t.name[1:])) == tasks
    assert len(aside) == round(len(tasks) * share)
    names = {t.name for t in aside}
    assert {t.name for t in set_aside(tasks[::-1], share, seed)[1]} == names  # order is no matter


def test_a_share_of_tasks_set_aside_are_whole_categories() -> None:
    tasks = [task(f"t{i}", 1, f"c{i % 10}") for i in range(100)]
    train, aside = set_aside(tasks, 0.4, seed=0)
    left = {t.categories for t in train}
    whole = [t for t in aside if t.categories not in left]
    assert len(aside) == 40
    assert len(whole) >= 20


def drawn(config: SamplingConfig, rows: int, steps: int, tokenizer: Any) -> list[TaskBatch]:
    data = StepDataset(Rows([task("a", rows), task("b", rows)], tokenizer), config, steps, seed=0)
    return [data[step] for step in range(steps)]


def test_examples_are_train_rows_that_the_step_does_not_ask(tokenizer: Any) -> None:
    config = SamplingConfig(2, 3, prompted_share=0.0, examples=4, micro_batches=1)
    counts, alone, without, steps = set(), 0, 0, 60
    tasks = {name: task(name, 70) for name in "ab"}
    for batch in drawn(config, 70, steps, tokenizer):
        assert batch.examples is not None and len(batch.examples) == 2
        group = batch.rows[0]
        for position, pairs in enumerate(batch.examples):
            said = [tokenizer.decode(ids) for ids in group.ids[group.rows == position]]
            (name,) = {text for text in "ab" if f"{text} input" in said[0]}
            known = {(row.input, row.output) for row in tasks[name].train}
            inputs = [pair.input for pair in pairs]
            assert {(pair.input, pair.output) for pair in pairs} <= known
            assert len(set(inputs)) == len(inputs)
            assert not any(f"{text}<|im_end|>" in row for text in inputs for row in said)
            undescribed = int(batch.descriptions[position]) == UNDESCRIBED
            assert pairs or not undescribed
            counts.add(len(pairs))
            alone += undescribed
            without += not pairs
    assert counts == {0, 1, 2, 3, 4}
    assert 0.15 < alone / (2 * steps) < 0.35 and 0.15 < without / (2 * steps) < 0.35


def test_without_examples_steps_are_what_they_were(tokenizer: Any) -> None:
    """Rows and descriptions do not depend on whether there are examples."""
    plain = SamplingConfig(2, 3, micro_batches=2)
    always = replace(plain, examples=3, no_examples_share=0.5, no_description_share=0.0)
    for one, other in zip(
        drawn(plain, 70, 8, tokenizer), drawn(always, 70, 8, tokenizer), strict=True
    ):
        assert same(one, other) and one.examples is None and other.examples is not None


def test_a_task_without_other_rows_keeps_its_description(tokenizer: Any) -> None:
    """One train row: it is asked, so it is no example."""
    config = SamplingConfig(2, 1, examples=4, no_examples_share=0.0, no_description_share=1.0)
    for batch in drawn(config, 61, 5, tokenizer):
        assert batch.examples == [[], []] and (batch.descriptions >= 0).all()


def test_examples_are_relabelled_as_the_rows_are(tokenizer: Any) -> None:
    rows = tuple(Example(f"t-{i}", f"question {i}", (("yes", "no")[i % 2],)) for i in range(70))
    plain = Task("t", "Answer 'yes' or 'no'.", rows)
    other = Relabelling("Answer 'red' or 'blue'.", {"yes": "red", "no": "blue"})
    config = SamplingConfig(
        1, 2, relabel_share=0.5, examples=4, no_examples_share=0.0, no_description_share=0.0
    )
    data, seen = StepDataset(Rows([plain], tokenizer, [[other]]), config, 30, seed=0), set()
    for batch in (data[step] for step in range(30)):
        labels = [{}, other.labels][int(batch.descriptions[0])]
        assert batch.examples is not None and batch.examples[0]
        for pair in batch.examples[0]:
            number = int(pair.input.removeprefix("question "))
            assert pair.output == labels.get(rows[number].output, rows[number].output)
            seen.add(pair.output)
    assert seen == {"yes", "no", "red", "blue"}


def test_tasks_set_aside_come_with_their_first_train_rows(tokenizer: Any) -> None:
    aside = [task("a"), task("b")]
    (batch,) = (ValidationDataset(Rows(aside, tokenizer), SamplingConfig(examples=2))[0],)
    assert batch.examples == [list(one.train[:2]) for one in aside]
    assert ValidationDataset(Rows(aside, tokenizer), SamplingConfig())[0].examples is None
    whole = task("c")
    first, second, third, *rest = whole.instances
    rows = (
        replace(first, input=whole.tune[0].input),
        replace(second, outputs=(" ",)),
        third,
        *rest,
    )
    batch = ValidationDataset(
        Rows([replace(whole, instances=rows)], tokenizer), SamplingConfig(examples=1)
    )[0]
    assert batch.examples == [[third]]  # the first is asked, the second answers nothing


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"examples": -1}, "a number of pairs, not -1"),
        ({"no_examples_share": -0.1}, "must not be negative"),
        ({"no_examples_share": 0.6, "no_description_share": 0.5}, "nor exceed 1 together"),
    ],
)
def test_shares_that_make_no_sense_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SamplingConfig(**wrong)
