"""The short requests are what they were when scores of them were reported."""

from pathlib import Path

from library.canonical import file_digest
from library.tasks.files import Task, read_tasks

FOLDER = Path(__file__).parents[2] / "benchmarks" / "short_requests"
REPORTING = FOLDER / "reporting"
WORDS = 45  # one wording in fifteen may be long
WORDINGS = 3


def tasks() -> list[Task]:
    return [*read_tasks(FOLDER), *read_tasks(REPORTING)]


def test_no_file_has_changed_since_it_was_measured() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split() for line in lines)}
    files = [*FOLDER.glob("*.jsonl"), *FOLDER.glob("*.txt"), *REPORTING.glob("*")]
    assert {str(f.relative_to(FOLDER)): file_digest(f) for f in files} == stated


def test_each_is_short_in_three_wordings_and_all_test_rows() -> None:
    for task in tasks():
        assert task.paraphrases[0] == task.definition
        assert len(set(task.paraphrases)) == WORDINGS, task.name
        assert all(len(text.split()) <= WORDS for text in task.paraphrases), task.name
        assert task.test == task.instances and not task.tune and not task.train
        assert len({row.input for row in task.test}) == len(task.test) >= 16


def test_the_halves_share_no_input() -> None:
    choosing, reporting = (
        {row.input for task in read_tasks(folder) for row in task.instances}
        for folder in (FOLDER, REPORTING)
    )
    assert len(choosing) > 150 and len(reporting) > 150 and not choosing & reporting
