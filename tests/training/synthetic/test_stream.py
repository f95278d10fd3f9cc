"""The stream: number i is a function of (seed, i), and seldom a description comes twice."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.errors import UsageError
from training.synthetic.banks import plain, read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.settings import in_a_setting, invented_name
from training.synthetic.stream import SyntheticTask, SyntheticTasks
from training.synthetic.variant import Family, Variant

TOPICS = read_topics()


def shout(rng: random.Random) -> Variant:
    """Without parameters."""
    texts = ("Write it in capitals.", "Capitals, please.", "upper case it")
    return Variant(
        "shout", lambda: texts, lambda r: ((w := r.choice(("ab", "cd", "ef"))), w.upper())
    )


def add(rng: random.Random) -> Variant:
    """With one of many parameters."""
    n = rng.randrange(1000)
    texts = (f"Add {n} to the number.", f"Please add {n}.", f"plus {n}")
    return Variant(f"add/{n}", lambda: texts, lambda r: (str(x := r.randrange(99)), str(x + n)))


FEW: dict[str, Family] = {"shout": shout, "add": add}


def facts(task: SyntheticTask) -> tuple[object, ...]:
    rows = tuple(task.row(j) for j in range(4))
    return task.name, task.description, task.paraphrase, task.labels, rows


def test_access_is_random_and_depends_on_the_seed() -> None:
    one, other = (SyntheticTasks(3, FEW, TOPICS) for _ in range(2))
    forwards = [facts(one[i]) for i in range(40)]
    backwards = [facts(other[i]) for i in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert facts(one[7])[4] == tuple(reversed([one[7].row(j) for j in (3, 2, 1, 0)]))
    assert facts(SyntheticTasks(4, FEW, TOPICS)[7]) != forwards[7]


def texts_of(stream: SyntheticTasks, count: int) -> list[tuple[str, bool]]:
    """Both descriptions of the first tasks, and whether each is plain."""
    tasks = [stream[i] for i in range(count)]
    texts = [text for task in tasks for text in (task.description, task.paraphrase)]
    return [(text, invented_name(k) not in text) for k, text in enumerate(texts)]


def test_descriptions_seldom_come_twice_and_never_in_a_setting() -> None:
    """Among all families; 20,000 tasks are measured in docs/training.md."""
    texts = texts_of(SyntheticTasks(0, FAMILIES, TOPICS), 2000)
    counts = Counter(plain(text) for text, _ in texts)
    assert sum(n for n in counts.values() if n > 1) < 0.01 * len(texts)
    assert all(counts[plain(text)] == 1 for text, bare in texts if not bare)
    assert 0.36 < sum(bare for _, bare in texts) / len(texts) < 0.48


def test_families_with_few_variants_are_put_plainly_seldom() -> None:
    shares = {}
    for name, family in FEW.items():
        texts = texts_of(SyntheticTasks(0, {name: family}, (), group=1), 400)
        shares[name] = sum(bare for _, bare in texts) / len(texts)
    assert shares["shout"] < 0.1 and 0.35 < shares["add"] < 0.5


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_names_differ_where_their_numbers_do(a: int, b: int) -> None:
    assert (invented_name(a) == invented_name(b)) == (a == b)


def test_the_first_names_all_differ_and_a_setting_holds_its_name_and_the_text() -> None:
    assert len({invented_name(n) for n in range(100_000)}) == 100_000
    for seed in range(60):
        text = in_a_setting("Do {it}.", 1234, random.Random(seed))
        assert "Do {it}." in text and invented_name(1234) in text


def test_shares_are_kept() -> None:
    for share in (0.0, 0.3, 1.0):
        stream = SyntheticTasks(0, FEW, TOPICS, classification_share=share)
        kinds = [stream[i].name.split("/")[3] not in FEW for i in range(600)]
        assert abs(sum(kinds) / 600 - share) < 0.1


def test_tasks_of_a_group_share_their_inputs_and_differ_in_what_they_ask() -> None:
    stream = SyntheticTasks(0, {"add": add}, TOPICS, group=3)
    for first in range(0, 90, 3):
        tasks = [stream[first + k] for k in range(3)]
        assert len({task.name.split("/", 3)[3] for task in tasks}) == 3
        rows = [[task.row(j) for task in tasks] for j in range(12)]
        assert all(len({row.input for row in same}) == 1 for same in rows)
        assert any(len({row.output for row in same}) > 1 for same in rows)


def test_a_family_that_has_no_more_variants_leaves_the_place_to_another() -> None:
    stream = SyntheticTasks(0, FEW, (), group=2)
    pairs = [[stream[i + k].name.split("/")[3] for k in range(2)] for i in range(0, 60, 2)]
    assert ["shout", "add"] in pairs and ["add", "shout"] not in pairs
    lone = SyntheticTasks(0, {"shout": shout}, (), group=2)
    assert lone[0].description != lone[1].description


def test_descriptions_are_of_different_registers_and_both_say_the_task() -> None:
    stream = SyntheticTasks(0, {"add": add}, ())
    for task in (stream[i] for i in range(50)):
        n = task.name.split("/")[-1]
        assert n in task.description and n in task.paraphrase
        assert all(int(r.output) - int(r.input) == int(n) for r in map(task.row, range(3)))


def test_what_makes_no_stream_is_refused() -> None:
    with pytest.raises(UsageError, match="families or topics"):
        SyntheticTasks(0, {}, ())
    with pytest.raises(UsageError, match="from 0 to 1"):
        SyntheticTasks(0, {}, TOPICS, classification_share=1.5)
    with pytest.raises(UsageError, match="group from 1"):
        SyntheticTasks(0, {}, TOPICS, group=0)
    with pytest.raises(UsageError, match="from 0 up, not -1"):
        SyntheticTasks(0, {}, TOPICS)[-1]
    with pytest.raises(UsageError, match="at least one synthetic task, not 0"):
        SyntheticTasks(0, {}, TOPICS, count=0)


def test_tasks_come_again_after_a_count_with_the_other_description_and_new_rows() -> None:
    endless = SyntheticTasks(3, FEW, TOPICS)
    stream = SyntheticTasks(3, FEW, TOPICS, count=6)
    for number in range(6):
        first, second, third = (stream[number + k * 6] for k in range(3))
        assert facts(first) == facts(endless[number])
        assert second.name == third.name == first.name
        assert (second.description, second.paraphrase) == (first.paraphrase, first.description)
        assert third.description == first.description and second.labels == first.labels
        ids = [task.row(j).id for task in (first, second, third) for j in range(20)]
        assert len({*ids}) == 60
    rows = [[stream[visit * 6].row(j).input for j in range(20)] for visit in range(2)]
    assert rows[0] != rows[1]
