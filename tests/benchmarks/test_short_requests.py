"""The short requests are what they were when scores of them were reported."""

from benches import bench_tasks, halves, present_digests, stated_digests

from library.tasks.files import read_tasks

WORDS = 24
WORDINGS = 3


def test_no_file_has_changed_since_it_was_measured() -> None:
    assert present_digests("short_requests") == stated_digests("short_requests")


def test_each_is_short_in_three_wordings_and_all_test_rows() -> None:
    for task in bench_tasks("short_requests"):
        assert task.paraphrases[0] == task.definition
        assert len(set(task.paraphrases)) == WORDINGS, task.name
        assert all(len(text.split()) <= WORDS for text in task.paraphrases), task.name
        assert task.test == task.instances and not task.tune and not task.train
        assert len({row.input for row in task.test}) == len(task.test) >= 16


def test_the_halves_share_no_input() -> None:
    choosing, reporting = (
        {row.input for task in read_tasks(half) for row in task.instances}
        for half in halves("short_requests")
    )
    assert len(choosing) > 150 and len(reporting) > 150 and not choosing & reporting
