"""Nothing that is trained on is in benchmarks/user_tasks: no input, no description."""

import tiny

from library.tasks.files import read_tasks
from training.synthetic.authored import read_authored
from training.synthetic.banks import plain, read_topics
from training.synthetic.families.registry import FAMILIES
from training.synthetic.stream import SyntheticTasks

BENCH = tiny.ROOT / "benchmarks" / "user_tasks"


def bench_texts() -> set[str]:
    tasks = [*read_tasks(BENCH), *read_tasks(BENCH / "reporting")]
    inputs = [row.input for task in tasks for row in task.instances]
    return {plain(text) for text in (*inputs, *(d for task in tasks for d in task.descriptions))}


def test_no_text_is_shared() -> None:
    bench = bench_texts()
    assert len(bench) >= 6000
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
    assert not drawn & bench
