"""Writing that is whole or absent."""

import os
from pathlib import Path

import pytest

from library.errors import OutputError, OutputExists
from library.files import cache_dir, data_dir, require_absent, write_file, write_folder

FILES = {"a.json": b"{}", "b.bin": b"\x00\x01"}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_appears_whole_with_its_parents_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "out"
    write_folder(target, FILES)
    assert contents(target) == FILES
    assert [entry.name for entry in target.parent.iterdir()] == ["out"]


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_folder(target, {"old": b"1"})
    with pytest.raises(OutputExists, match="overwrite"):
        write_folder(target, FILES)
    assert contents(target) == {"old": b"1"}
    write_folder(target, FILES, overwrite=True)
    assert contents(target) == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_failed_write_leaves_the_old_folder_and_no_remains(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_folder(target, {"old": b"1"})
    with pytest.raises(OutputError):
        write_folder(target, {"fine": b"1", "fine/no folder": b"2"}, overwrite=True)
    assert contents(target) == {"old": b"1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExists):
        write_folder(tmp_path / "file", FILES, overwrite=True)
    with pytest.raises(OutputError):
        write_folder(tmp_path / "file" / "out", FILES)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        require_absent(tmp_path / "link", overwrite=False)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.json"
    write_file(target, b"first")
    write_file(target, b"second")
    assert contents(target.parent) == {"report.json": b"second"}
    with pytest.raises(OutputError):
        write_file(target / "below", b"x")


def test_the_two_roots_follow_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "d"))
    assert (cache_dir(), data_dir()) == (tmp_path / "c", tmp_path / "d")
    monkeypatch.setenv("LORASMITH_CACHE", "")
    assert cache_dir() == Path.home() / ".cache" / "lorasmith"


def test_a_link_is_replaced_itself_and_what_it_points_to_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", {"mine": b"1"})
    for name, goal in (("link", tmp_path / "real"), ("dangling", tmp_path / "nowhere")):
        (tmp_path / name).symlink_to(goal)
        write_folder(tmp_path / name, FILES, overwrite=True)
        assert not (tmp_path / name).is_symlink()
        assert contents(tmp_path / name) == FILES
    assert contents(tmp_path / "real") == {"mine": b"1"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "link", "real"]


def test_pipes_and_the_like_are_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputExists):
        write_folder(pipe, FILES, overwrite=True)
    with pytest.raises(OutputExists):
        write_file(pipe, b"x")
    with pytest.raises(OutputExists):
        write_file(tmp_path, b"x")
    assert pipe.is_fifo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_old_folder_survives_a_failure_at_any_step(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    write_folder(target, {"old": b"1"})
    rename = Path.rename
    for failing in (1, 2):
        calls = []

        def broken(self: Path, goal: Path, failing: int = failing, calls: list = calls) -> Path:
            calls.append(goal)
            if len(calls) == failing:
                raise error("no")
            return rename(self, goal)

        monkeypatch.setattr(Path, "rename", broken)
        with pytest.raises(OutputError if error is OSError else error):
            write_folder(target, FILES, overwrite=True)
        monkeypatch.setattr(Path, "rename", rename)
        assert contents(target) == {"old": b"1"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_names_may_be_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    write_folder(tmp_path / ("n" * 255), FILES)
    write_file(tmp_path / ("ü" * 127), b"x")
    assert len(list(tmp_path.iterdir())) == 2
