"""The user-style tasks are what they were when scores of them were reported."""

from pathlib import Path

from library.canonical import file_digest
from library.tasks.files import Task, read_tasks

FOLDER = Path(__file__).parents[2] / "benchmarks" / "user_tasks"
REPORTING = FOLDER / "reporting"
FEW = 12  # different answers at most, where answers are labels


def tasks() -> list[Task]:
    return [*read_tasks(FOLDER), *read_tasks(REPORTING)]


def test_no_file_has_changed_since_it_was_measured() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split() for line in lines)}
    files = [*FOLDER.glob("*.jsonl"), *FOLDER.glob("*.txt"), *REPORTING.glob("*")]
    assert {str(f.relative_to(FOLDER)): file_digest(f) for f in files} == stated


def test_each_has_a_hundred_different_inputs_of_its_own() -> None:
    seen: set[str] = set()
    for task in tasks():
        inputs = {row.input for row in task.instances}
        assert len(inputs) == len(task.instances) == 100, task.name
        assert not inputs & seen, task.name
        seen |= inputs


def test_every_label_is_in_every_part_and_in_the_instruction() -> None:
    for task in tasks():
        labels = {row.outputs[0] for row in task.instances}
        if len(labels) > FEW:
            continue
        for part in (task.train, task.tune, task.test):
            assert {row.outputs[0] for row in part} == labels, task.name
        named = [label for label in labels if label.lower() in task.definition.lower()]
        assert len(named) == len(labels), (task.name, labels)
