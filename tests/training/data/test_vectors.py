"""Task vectors as training data: of train rows alone, several draws of each task."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from library.base.models import BaseModel, load_base, resolve_base
from library.base.task_vectors import adapted_prompts, in_context_prompts, task_vectors
from library.errors import LayoutMismatch, TaskFileError, UsageError
from library.layout import layout_of
from library.tasks.files import Task, read_tasks
from training.data.adapters import AdapterBatch, LibraryDataModule
from training.data.vectors import VectorConfig, adapted_vectors, drawn_vectors, tasks_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


@pytest.fixture(scope="module")
def tasks(small_library: Path) -> list[Task]:
    return read_tasks(small_library / "tasks")


def with_vectors(library: Path, base: Path, **config: object) -> LibraryDataModule:
    vectors = VectorConfig(tasks=[str(library / "tasks")], base=str(base), **config)
    data = LibraryDataModule(str(library / "lib"), steps=6, experts=0, vectors=vectors)
    data.setup("fit")
    return data


def test_the_first_draw_is_the_definition_alone_and_some_others_have_examples(
    loaded: BaseModel, tasks: list[Task]
) -> None:
    found = drawn_vectors(loaded, tasks, 6, seed=0)
    prompts = [in_context_prompts(loaded.tokenizer, task.definition) for task in tasks]
    alone = task_vectors(loaded, prompts)
    torch.testing.assert_close(found[:, 0], alone)
    same = torch.isclose(found, alone[:, None], atol=1e-5).all(dim=-1)  # (tasks, draws)
    assert same[:, 1:].any() and not same.all()
    assert torch.equal(drawn_vectors(loaded, tasks, 6, seed=0), found)
    assert not torch.equal(drawn_vectors(loaded, tasks, 6, seed=1), found)
    # A task's draws do not depend on what other tasks there are.
    torch.testing.assert_close(drawn_vectors(loaded, tasks[1:], 6, seed=0), found[1:])


def test_tune_and_test_rows_are_never_read(loaded: BaseModel, tasks: list[Task]) -> None:
    changed = [
        replace(
            task,
            instances=(
                *task.train,
                *(replace(row, input="secret", outputs=("secret",)) for row in task.tune),
                *(replace(row, input="secret", outputs=("secret",)) for row in task.test),
            ),
        )
        for task in tasks
    ]
    adapters = tiny.adapter(layout_of(loaded.model.config, rank=4), len(tasks))
    assert torch.equal(drawn_vectors(loaded, changed, 8, 0), drawn_vectors(loaded, tasks, 8, 0))
    before, after = (adapted_vectors(loaded, some, adapters) for some in (tasks, changed))
    assert torch.equal(before, after)


@pytest.mark.slow
def test_a_step_holds_vectors_of_its_own_tasks_and_comes_again(
    small_library: Path, tiny_base: Path, loaded: BaseModel, tasks: list[Task]
) -> None:
    data = with_vectors(small_library, tiny_base, draws=12)
    assert data.task_vectors is not None and data.task_vectors.shape[0] == 3 * 12
    own = drawn_vectors(loaded, sorted(tasks, key=lambda task: task.name), 12, data.seed)

    def moved(rows: list[int]) -> AdapterBatch:
        return data.transfer_batch_to_device(rows, CPU, 0)

    seen = set()
    for step in range(6):
        rows = data.draw(step)
        vectors = moved(rows).condition.task
        assert vectors is not None and torch.equal(vectors, moved(rows).condition.task)
        for row, vector in zip(rows, vectors, strict=True):
            draws = torch.isclose(own[row], vector, atol=1e-5).all(dim=-1).nonzero()
            assert len(draws), "of another task"
            seen.add((row, int(draws[0])))
    assert len(seen) > 4  # not always the same draw
    assert data.record["vectors"] == {"kind": "in-context", "draws": 12}  # and no path


@pytest.mark.slow
def test_adapted_vectors_are_of_each_adapter_in_its_own_task(
    small_library: Path, tiny_base: Path, loaded: BaseModel, tasks: list[Task]
) -> None:
    data = with_vectors(small_library, tiny_base, kind="adapted")
    prompts = [adapted_prompts(loaded.tokenizer, task.train) for task in tasks]
    expected = task_vectors(loaded, prompts, data.adapters)
    torch.testing.assert_close(data.task_vectors, expected)
    without = LibraryDataModule(str(small_library / "lib"), experts=0)
    without.setup("fit")
    assert without.task_vectors is None and without.record["vectors"] is None
    assert without.transfer_batch_to_device([0], CPU, 0).condition.task is None


@pytest.mark.slow
def test_what_is_missing_is_said_in_one_sentence(
    small_library: Path, tiny_base: Path, tmp_path: Path
) -> None:
    tiny.write_tasks(tmp_path / "some", {"sum": "Add.", "sub": "Subtract."})
    with pytest.raises(TaskFileError, match=r"train rows of poem, which LIB .* no task folder"):
        tasks_of([str(tmp_path / "some")], ["sum", "poem", "sub"], "LIB")
    assert list(tasks_of([str(tmp_path / "some")], ["sum", "sub", "sum"], "LIB")) == ["sum", "sub"]
    library = str(small_library / "lib")
    with pytest.raises(UsageError, match="was built without snapshots"):
        LibraryDataModule(library, snapshots=True).setup("fit")
    default = VectorConfig(tasks=[str(small_library / "tasks")])  # the packaged base
    with pytest.raises(LayoutMismatch, match=r"base model .*SmolLM2.* the library"):
        LibraryDataModule(library, vectors=default).setup("fit")
    with pytest.raises(UsageError, match="must be 1 or more, not 0"):
        VectorConfig(draws=0)
