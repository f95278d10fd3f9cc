"""Writing that is whole or absent."""

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
        write_folder(target, {"fine": b"1", "no/such/folder": b"2"}, overwrite=True)
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
