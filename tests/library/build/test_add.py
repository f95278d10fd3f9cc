"""A library that grows: what is added is what a build of everything would have made."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from building import BUILD, content, write_colours

import pretrained
from api.cli.main import main
from library.build import add
from library.build.add import begin_addition
from library.errors import TaskFileError
from library.store.catalogue import read_adapter, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.parts import whole_plan, write_part
from library.store.plan import Plan
from library.store.snapshots import read_snapshots
from library.tasks.files import read_tasks

FIRST, LATER = range(4), range(4, 7)
ALONE = ("--slots", "1")  # what a task becomes is then the same to the bit whoever is beside it


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tasks at the beginning, of all, of those added later, and of two halves."""
    root = tmp_path_factory.mktemp("colours")
    parts = {"first": FIRST, "all": range(7), "later": LATER, "left": (4, 5), "right": (5, 6)}
    for name, numbers in parts.items():
        write_colours(root / name, numbers)
    return {name: root / name for name in parts}


def build(tasks: Path, base: Path, out: Path | str, *more: str) -> None:
    words = ["library", "build", "--tasks", str(tasks), "--base", str(base), "--out", str(out)]
    assert main([*words, *BUILD, *more]) == 0


def words(tasks: Path, library: Path | str, *more: str) -> list[str]:
    return ["library", "add", "--tasks", str(tasks), "--library", str(library), *more]


def grow(tasks: Path, library: Path | str, *more: str) -> None:
    assert main(words(tasks, library, *more)) == 0
    assert main(["library", "check", "--library", str(library)]) == 0


@pytest.fixture(scope="module")
def first(folders: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of the first four tasks, trained one by one, with snapshots."""
    out = tmp_path_factory.mktemp("libraries") / "first"
    build(folders["first"], tiny_base, out, *ALONE, "--snapshots", "2")
    return out


@pytest.fixture(scope="module")
def whole(folders: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that is built of all seven."""
    out = tmp_path_factory.mktemp("libraries") / "whole"
    build(folders["all"], tiny_base, out, *ALONE, "--snapshots", "2")
    return out


@pytest.fixture
def library(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "library")


def without_shards(library: Path | str) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "shard"} for record in content(library)]


def files(library: Path) -> dict[str, bytes]:
    return {str(f.relative_to(library)): f.read_bytes() for f in library.glob("adapters/ad_*/*")}


def same(library: Path, whole: Path) -> bool:
    return without_shards(library) == without_shards(whole) and files(library) == files(whole)


def test_what_is_added_is_what_a_build_of_everything_makes(
    folders: Any, library: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, before = (library / "library.json").read_bytes(), files(library)
    capsys.readouterr()
    assert main(words(folders["all"], library, "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["adapters"], summary["kept"], summary["skipped"]) == (3, 4, {})
    assert same(library, whole) and files(library).items() >= before.items()
    assert (library / "library.json").read_bytes() == manifest
    folder, built = LibraryFolder(library), LibraryFolder(whole)
    assert whole_plan(folder).tasks == folder.plan().tasks | whole_plan(built).tasks
    layout = folder.plan().layout
    for ours, theirs in zip(records(folder), records(built), strict=True):
        states = [read_snapshots(f, r, layout) for f, r in ((folder, ours), (built, theirs))]
        assert states[0] is not None and states[1] is not None
        for a, b in zip(states[0].factors(), states[1].factors(), strict=True):
            assert torch.equal(a, b)
    times = {file: file.stat().st_mtime_ns for file in library.glob("*/*/*")}
    assert main(words(folders["all"], library)) == 0
    assert "7 were there already" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in library.glob("*/*/*")} == times


def test_beside_other_tasks_it_is_the_same_within_noise(
    folders: Any, tiny_base: Path, tmp_path: Path
) -> None:
    for name, tasks in (("grown", "first"), ("whole", "all")):
        build(folders[tasks], tiny_base, tmp_path / name, "--slots", "4")
    grow(folders["later"], tmp_path / "grown")
    ours, theirs = content(tmp_path / "grown"), content(tmp_path / "whole")
    for one, other in zip(ours, theirs, strict=True):
        for field in ("task", "seed", "steps", "best_step", "restarts", "description"):
            assert one[field] == other[field]
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-3)
        folder, built = LibraryFolder(tmp_path / "grown"), LibraryFolder(tmp_path / "whole")
        layout = folder.plan().layout
        adapters = read_adapter(folder, one["id"], layout), read_adapter(built, other["id"], layout)
        for a, b in zip(*(adapter.factors() for adapter in adapters), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2**-7)  # bfloat16 on the disk


@pytest.mark.parametrize("more", [("--shard-size", "1", "--workers", "2"), ("--shard-size", "2")])
def test_shards_and_workers_change_nothing(
    folders: Any, library: Path, whole: Path, more: tuple[str, ...]
) -> None:
    grow(folders["later"], library, *more)
    assert same(library, whole)


def test_an_add_that_fails_between_files_and_record_goes_on(
    folders: Any, library: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from library.build import build as building

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    written, before = [], content(library)
    write = building.write_record

    def write_one(*arguments: Any) -> Any:
        return fail() if written else written.append(write(*arguments))

    monkeypatch.setattr(building, "write_record", write_one)
    assert main(words(folders["later"], library)) == 130
    assert len(content(library)) == 5 and len(list(library.glob("adapters/ad_*"))) == 6
    assert [record for record in content(library) if record in before] == before
    assert main(["library", "check", "--library", str(library)]) == 0
    monkeypatch.undo()
    times = {file: file.stat().st_mtime_ns for file in library.glob("adapters/*/*")}
    grow(folders["later"], library)
    assert same(library, whole)
    assert times == {file: file.stat().st_mtime_ns for file in times}


def start(tasks: Path, library: Path) -> "subprocess.Popen[str]":
    """An add in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "api", *words(tasks, library)],
        cwd=tiny.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_add_that_is_killed_loses_nothing(folders: Any, library: Path, whole: Path) -> None:
    process = start(folders["later"], library)
    while len(list(library.glob("records/*/*.json"))) == 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 5 <= len(content(library)) < 7
    assert main(["library", "check", "--library", str(library)]) == 0
    kept = {file: file.read_bytes() for file in library.glob("records/*/*.json")}
    grow(folders["later"], library)
    assert same(library, whole)
    assert all(file.read_bytes() == before for file, before in kept.items())


def test_two_adds_at_once_make_one_library(folders: Any, library: Path, whole: Path) -> None:
    processes = [start(folders[half], library) for half in ("left", "right")]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert same(library, whole)
    assert main(["library", "check", "--library", str(library)]) == 0
    grow(folders["later"], library)
    assert same(library, whole)


def test_an_object_store_grows_too(
    folders: Any, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}"
    build(folders["first"], tiny_base, url, *ALONE, "--snapshots", "2")
    grow(folders["later"], url)
    assert without_shards(url) == without_shards(whole)


def test_an_adapter_that_was_removed_is_trained_again(
    folders: Any, library: Path, whole: Path
) -> None:
    grow(folders["left"], library)
    for task in ("task1", "task4"):
        assert main(["library", "remove", task, "--library", str(library)]) == 0
    grow(folders["all"], library)
    assert same(library, whole)


def test_every_variant_of_a_task_is_added(folders: Any, tiny_base: Path, tmp_path: Path) -> None:
    for name, tasks in (("grown", "first"), ("whole", "all")):
        build(folders[tasks], tiny_base, tmp_path / name, *ALONE, "--variants", "2")
    grow(folders["later"], tmp_path / "grown")
    assert same(tmp_path / "grown", tmp_path / "whole")


def test_imported_adapters_stay_and_come_as_they_are(
    folders: Any, library: Path, whole: Path, tiny_base: Path, tmp_path: Path
) -> None:
    source = whole / "adapters" / content(whole)[6]["id"]
    shutil.copytree(source, tmp_path / "foreign")
    (tmp_path / "foreign" / "provenance.json").unlink()
    bring = ["library", "import", str(tmp_path / "foreign"), "--library", str(library)]
    assert main([*bring, "--base", str(tiny_base)]) == 0
    (imported,) = library.glob("records/imported/*.json")
    stored = {file: file.read_bytes() for file in (library / "adapters" / imported.stem).iterdir()}
    grow(folders["later"], library)
    assert {record["task"] for record in content(library)} == {
        "foreign", *(f"task{n}" for n in range(7))
    }  # fmt: skip
    assert all(file.read_bytes() == before for file, before in stored.items())
    weights = "adapter_model.safetensors"
    assert stored[library / "adapters" / imported.stem / weights] == (source / weights).read_bytes()
    packed = tmp_path / "packed"
    assert main(["library", "pack", "--library", str(library), "--out", str(packed)]) == 0
    assert len(content(packed)) == 8


def test_the_same_name_with_other_rows_is_refused_before_anything_is_trained(
    folders: Any, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = shutil.copytree(folders["all"], tmp_path / "changed")
    lines = (changed / "task2.jsonl").read_text().splitlines()
    (changed / "task2.jsonl").write_text("\n".join(reversed(lines)))
    before = sorted(library.rglob("*"))
    capsys.readouterr()
    assert main(words(changed, library)) == 1
    assert "other rows for task2" in tiny.one_sentence(capsys.readouterr())
    assert sorted(library.rglob("*")) == before


def test_another_add_that_came_between_with_other_rows_is_noticed(
    folders: Any, library: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, by_name = LibraryFolder(library), {t.name: t for t in read_tasks(folders["later"])}

    def write_after_another(*arguments: Any) -> str:
        write_part(folder, {"task5": "0" * 64}, ())
        return write_part(*arguments)

    monkeypatch.setattr(add, "write_part", write_after_another)
    from library.base.models import load_tokenizer, resolve_base

    with pytest.raises(TaskFileError, match="other rows for task5"):
        begin_addition(folder, by_name, load_tokenizer(resolve_base(str(tiny_base))))
    assert whole_plan(folder).tasks.keys() - folder.plan().tasks.keys() == {"task5"}
    assert len(content(library)) == 4


def test_adds_that_make_no_sense_say_so(
    folders: Any, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(code: int, *arguments: Any) -> str:
        capsys.readouterr()
        assert main(words(*arguments)) == code
        return tiny.one_sentence(capsys.readouterr())

    assert "no library" in refused(2, folders["later"], tmp_path / "none")
    assert "none" in refused(2, tmp_path / "none", library)
    assert "packed" in refused(2, folders["later"], pretrained.LIBRARY)
    imports = tmp_path / "imports"
    imports.mkdir()
    (imports / "library.json").write_text('{"format": 1}')
    assert "no plan" in refused(2, folders["later"], imports)
    other = tmp_path / "other"
    tiny.write_base(other, end=3)
    assert "made for" in refused(1, folders["later"], library, "--base", str(other))
    few = tmp_path / "few"
    few.mkdir()
    (few / "few.jsonl").write_text('{"input": "a", "output": "b"}\n' * 60)
    (few / "few.txt").write_text("Too few rows.")
    assert "none of the tasks" in refused(1, few, library)
    assert not (library / "parts").exists() and len(content(library)) == 4


def test_a_task_that_cannot_be_trained_on_is_skipped_each_time(
    folders: Any, library: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = shutil.copytree(folders["later"], tmp_path / "mixed")
    (mixed / "few.jsonl").write_text('{"input": "a", "output": "b"}\n' * 60)
    (mixed / "few.txt").write_text("Too few rows.")
    for stored, kept in ((3, 0), (0, 3)):
        capsys.readouterr()
        assert main(words(mixed, library, "--json")) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["adapters"], summary["kept"]) == (stored, kept)
        assert set(summary["skipped"]) == {"few"}
    assert same(library, whole)


def test_a_build_with_more_tasks_points_to_add(
    folders: Any, library: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow(folders["later"], library)
    again = ["library", "build", "--base", str(tiny_base), "--out", str(library), *BUILD, *ALONE]
    again += ["--snapshots", "2", "--resume"]
    capsys.readouterr()
    assert main([*again, "--tasks", str(folders["all"])]) == 2
    assert "`library add`" in tiny.one_sentence(capsys.readouterr())
    assert main([*again, "--tasks", str(folders["first"])]) == 0  # the first part is as it was


def test_a_library_of_before_opens_and_has_no_parts(tiny_base: Path) -> None:
    folder = open_library(str(pretrained.LIBRARY))
    data = folder.read_json("library.json")
    plan = whole_plan(folder)
    assert plan.to_dict() == Plan.from_dict(data).to_dict() == data
    assert not folder.exists("parts") and len(plan.tasks) == len(records(folder)) == 24
