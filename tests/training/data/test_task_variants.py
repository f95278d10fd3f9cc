"""Variants of real tasks: their descriptions say what their answers follow."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.base.models import load_tokenizer, resolve_base
from library.errors import UsageError
from library.tasks.files import Example, Task
from training.data.batches import FRESH, Rows, TaskBatch
from training.data.draws import StepDataset
from training.data.sampling import SamplingConfig
from training.data.task_variants import TaskVariant, Variants

CITIES = {"Peru": "Lima", "Egypt": "Cairo", "Cuba": "Havana", "Chad": "N'Djamena"}


def task(name: str, rows: list[tuple[str, str]], definition: str = "") -> Task:
    made = tuple(Example(f"{name}-{i}", x, (y, "other")) for i, (x, y) in enumerate(rows))
    return Task(name, definition or f"Definition of {name}.", made, paraphrases=("In short.",))


def labelled(name: str = "labelled") -> Task:
    rows = [(f"{name} question {i}{'?' * (i % 2)}", ("yes", "no", "perhaps")[i % 3])
            for i in range(70)]  # fmt: skip
    return task(name, rows, f"Answer yes, no or perhaps to {name}.")


def free(name: str = "free") -> Task:
    words = [f"{a} {b}" for a in ("red", "blue", "big", "old") for b in "abcdefghijklmnopqrst"]
    return task(
        name, [(f"Tell me of {w}, {i}{' please' * (i % 3)}", w) for i, w in enumerate(words)]
    )


@given(st.integers(0, 10**9), st.booleans())
def test_rows_keep_their_place_and_a_seed_is_a_variant(seed: int, with_labels: bool) -> None:
    one = labelled() if with_labels else free()
    drawn = [Variants(one).drawn(random.Random(seed), one.train) for _ in range(2)]
    rows = [[variant.row(row) for row in one.train] for variant in drawn]
    assert rows[0] == rows[1] and drawn[0].notes == drawn[1].notes
    assert [row.id for row in rows[0]] == [row.id for row in one.train]
    assert all(len(row.outputs) == 1 and row.output for row in rows[0])
    assert any(a.output != b.output for a, b in zip(rows[0], one.train, strict=True))
    assert len({row.output for row in rows[0]}) > 1


@given(st.integers(0, 10**9))
def test_a_description_holds_the_task_and_every_rule(seed: int) -> None:
    rng, one = random.Random(seed), labelled()
    variant = Variants(one).drawn(rng, one.train)
    text = variant.described(one.definition, rng)
    unescaped = text.replace('\\"', '"').replace("\\n", "\n").casefold()
    assert one.definition.casefold() in unescaped or one.definition in text
    for note in variant.notes:
        raw = json.dumps(note, ensure_ascii=False)[1:-1].casefold()
        assert note.casefold() in unescaped or raw in text.casefold(), (note, text)


def test_other_descriptions_for_the_same_inputs_are_many() -> None:
    one, rng = labelled(), random.Random(0)
    drawn = [Variants(one).drawn(rng, one.train) for _ in range(200)]
    assert len({variant.notes for variant in drawn}) > 150
    answers = {tuple(variant.row(row).output for row in one.train) for variant in drawn}
    assert len(answers) > 120


def test_short_names_and_texts_that_hold_the_same_letters_can_be_turned_around() -> None:
    turned = [(" ".join(f"word{i}{c}" for c in "abc"), " ".join(f"word{i}{c}" for c in "cba"))
              for i in range(64)]  # fmt: skip
    names = [(f"{country} {i}", f"{city} {i}x") for i in range(16)
             for country, city in CITIES.items()]  # fmt: skip
    assert Variants(task("a", [(f"Sentence: {x}", y) for x, y in turned])).invertible
    assert Variants(task("b", names)).invertible
    assert not Variants(labelled()).invertible  # answers repeat
    assert not Variants(free()).invertible  # answers are parts of the inputs
    long = [(f"{x} {'word ' * 30}", f"{y} {'word ' * 30}") for x, y in turned]
    assert not Variants(task("c", long)).invertible
    other = [(x, f"{i} sums up all that was there") for i, (x, _) in enumerate(turned)]
    assert not Variants(task("d", other)).invertible
    held = [(x, x.split()[0]) for x, _ in turned]
    assert not Variants(task("e", held)).invertible


def test_a_turned_task_asks_for_the_input_and_says_so() -> None:
    one = task("capital", [(c, f"{c[::-1]}o") for c in map("land{}".format, range(70))])
    variants, rng = Variants(one), random.Random(0)
    drawn = [variants.drawn(rng, one.train) for _ in range(100)]
    turned = [variant for variant in drawn if variant.turned]
    assert 10 < len(turned) < 45
    assert not any(variants.drawn(rng, one.train, turns=False).turned for _ in range(60))
    for variant in turned:
        row = variant.row(one.train[3])
        assert row.input == one.train[3].output
        assert one.train[3].input.upper() in row.output.upper()
        text = variant.described(one.definition, rng)
        assert one.definition in text and len(text) > len(one.definition) + 20
    assert TaskVariant(turned=True).row(TaskVariant(turned=True).row(one.train[0])) == Example(
        one.train[0].id, one.train[0].input, one.train[0].outputs[:1]
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve_base())


def steps(tokenizer: Any, count: int = 30, **changes: Any) -> list[TaskBatch]:
    tasks = [labelled("l"), free("f"), labelled("m"), free("g")]
    config = SamplingConfig(4, 3, prompted_share=0.0, max_length=2000, **changes)
    data = StepDataset(Rows(tasks, tokenizer), config, count, seed=0)
    return [data[step] for step in range(count)]


def said(tokenizer: Any, batch: TaskBatch, position: int) -> list[tuple[str, str]]:
    rows = [row for row in batch.asked if row.owner == position]
    return [(tokenizer.decode(row.prompt), row.references[0]) for row in rows]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_real_tasks_are_variants(tokenizer: Any, share: float) -> None:
    batches = steps(tokenizer, 40, variant_share=share)
    fresh = sum(len(batch.fresh) for batch in batches)
    assert abs(fresh / 160 - share) < 0.12
    for batch in batches:
        assert [i for i, d in enumerate(batch.descriptions.tolist()) if d == FRESH] == [
            *batch.fresh
        ]
    assert len({text for batch in batches for text in batch.fresh.values()}) == fresh


def test_pairs_ask_the_same_under_another_description(tokenizer: Any) -> None:
    for batch in steps(tokenizer, paired_share=1.0):
        assert len(batch.descriptions) == 4 and [*batch.fresh] == [1, 3]
        for first in (0, 2):
            plain, varied = (said(tokenizer, batch, first + k) for k in range(2))
            assert [x for x, _ in plain] == [x for x, _ in varied] and len(plain) == 3
    pairs = [
        (said(tokenizer, b, 0), said(tokenizer, b, 1)) for b in steps(tokenizer, paired_share=1.0)
    ]
    assert sum(a != b for a, b in pairs) > 0.8 * len(pairs)


def test_pairs_take_the_places_of_other_tasks_and_rounds_stay_whole(tokenizer: Any) -> None:
    batches = steps(tokenizer, 8, paired_share=0.5)  # one pair and two more: three different tasks
    assert [len(batch.descriptions) for batch in batches] == [4] * 8
    owners = [d // 2 for batch in batches for d in batch.descriptions.tolist() if d >= 0]
    assert len(owners) == 24
    assert all(sorted(owners[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 24, 4))


def test_examples_of_a_variant_are_its_rows(tokenizer: Any) -> None:
    batches = steps(tokenizer, variant_share=1.0, examples=3, no_examples_share=0.0)
    plain = {row.input: row.output for one in (labelled("l"), labelled("m")) for row in one.train}
    changed = 0
    for batch in batches:
        for pairs in batch.examples or []:
            changed += any(pair.output != plain.get(pair.input) for pair in pairs)
    assert changed > 50


@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_pairs_are_never_more_than_the_real_tasks(n: int, paired: float, synthetic: float) -> None:
    config = SamplingConfig(n, paired_share=paired, synthetic_share=synthetic)
    real = n - config.synthetic
    assert 0 <= 2 * config.pairs <= real and abs(2 * config.pairs - paired * real) <= 2


@pytest.mark.parametrize("name", ["variant_share", "paired_share"])
def test_no_shares_beyond_one(name: str) -> None:
    with pytest.raises(UsageError, match=f"sampling.{name} must be from 0 to 1, not 1.5"):
        SamplingConfig(**{name: 1.5})
