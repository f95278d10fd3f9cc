"""Nothing that is trained on is in a bench of ours: no input, no description."""

from collections.abc import Sequence

from benches import BENCHES, bench_tasks

from training.synthetic.authored import read_authored
from training.synthetic.banks import plain, read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks


def bench_texts(names: Sequence[str] = BENCHES) -> set[str]:
    tasks = [task for name in names for task in bench_tasks(name)]
    inputs = [row.input for task in tasks for row in task.instances]
    return {plain(text) for text in (*inputs, *(d for task in tasks for d in task.descriptions))}


def test_no_text_is_shared() -> None:
    bench = bench_texts()
    assert len(bench) >= 6600
    banks = {plain(text) for topic in read_topics() for text in topic.utterances}
    assert not banks & bench
    tasks = read_authored()
    authored = {plain(text) for task in tasks for text in task.descriptions}
    authored |= {plain(row.input) for task in tasks for row in task.train}
    assert len(authored) > 5000
    assert not authored & bench
    stream, drawn = SyntheticTasks(0, FAMILIES, read_topics()), set[str]()
    for task in (stream[i] for i in range(400)):
        drawn |= {plain(task.description), plain(task.paraphrase)}
        drawn |= {plain(task.row(j).input) for j in range(10)}
    assert len(drawn) > 2500
    shared = drawn & bench
    # A short request's input may be a word such as "banana", which the families' lists have too.
    assert all(text.isalnum() for text in shared)
    assert not shared & bench_texts(["user_tasks"])
