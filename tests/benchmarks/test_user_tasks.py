"""The user-style tasks are what they were when scores of them were reported."""

import json

from benches import bench_tasks, present_digests, stated_digests

from library.tasks.files import Task

FEW = 12  # different answers at most, where answers are labels
WORDINGS = 8


def tasks() -> list[Task]:
    return bench_tasks("user_tasks")


def test_no_file_has_changed_since_it_was_measured() -> None:
    assert present_digests("user_tasks") == stated_digests("user_tasks")


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


def test_every_task_is_there_in_eight_wordings() -> None:
    seen: set[str] = set()
    for task in tasks():
        texts = task.paraphrases
        terse, polite, bullets, lazy, line, question, page, schema = texts
        assert "please" in polite.lower() or "kindly" in polite.lower(), task.name
        assert "\n- " in f"\n{bullets}" and question.count("?") > task.definition.count("?"), (
            task.name
        )
        assert page.startswith("# ") and "\n## Examples\n" in page, task.name
        assert "\n" not in terse + lazy + line and isinstance(json.loads(schema), dict), task.name
        assert len({*texts, task.definition} - seen) == WORDINGS + 1, task.name
        seen |= {*texts, task.definition}


def test_wordings_name_every_label_and_show_no_row() -> None:
    for task in tasks():
        inputs = {row.input for row in task.instances}
        labels = {row.outputs[0] for row in task.instances}
        for text in task.paraphrases:
            shown = {
                line.removeprefix("- ").split(" -> ")[0].strip('"`') for line in text.split("\n")
            }
            assert not shown & inputs, task.name
            assert len(labels) > FEW or all(label in text for label in labels), (task.name, text)
