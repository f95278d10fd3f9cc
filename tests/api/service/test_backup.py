"""Backups: the same bytes come back, also of a store that is in use, or nothing does."""

import io
import json
import os
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from api.errors import BackupDamaged
from api.service.backup import MANIFEST, back_up, restore
from api.service.job_store import JobStore
from api.service.keys import KeyStore
from api.service.names import NameStore
from api.service.replies import Replies, Reply
from api.service.store import Store
from library.archive import tar_parts
from library.errors import MissingPath, OutputError, OutputExists

FILES = {"adapter_config.json": b"{}\n", "adapter_model.safetensors": b"weights" * 1000}


def adapter(number: int) -> dict[str, Any]:
    return {"id": f"ad_{number:040x}", "rank": 8}


def store_of(folder: Path) -> Store:
    return Store(folder, quota_bytes=10**9)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with some of everything, and what is not to be kept."""
    folder = tmp_path / "data"
    store = store_of(folder)
    for number in range(3):
        files = {**FILES, "README.md": b"%d" % number}
        store.put("a", adapter(number), files), store.put("b", adapter(number), files)
    NameStore(store).publish("a", "router", adapter(1)["id"])
    KeyStore(folder).create("laptop")
    JobStore(folder).add("a", adapter(0)["id"], {"kind": "verify"})
    Replies(folder).keep("a", "key", "print", Reply(200, {"x": "y"}, b"body"))
    (folder / "zk").mkdir()
    (folder / "zk" / "0123abcd.json").write_text('{"q": 3}')
    (folder / "zk" / "0123abcd.lock").touch()
    (folder / "adapters" / ".half").mkdir()
    return folder


@pytest.fixture
def backup(data: Path, tmp_path: Path) -> bytes:
    back_up(data, tmp_path / "b.tar")
    return (tmp_path / "b.tar").read_bytes()


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of adapters and of the ledger."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for part in ("adapters", "zk")
        for file in sorted((folder / part).rglob("*"))
        if file.is_file() and file.suffix != ".lock"
    }


def test_what_is_restored_is_what_there_was(data: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in data.iterdir())
    done = back_up(data, tmp_path / "b.tar")
    assert sorted(path.name for path in data.iterdir()) == before, "nothing is left behind"
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    folder = tmp_path / "restored"
    with (tmp_path / "b.tar").open("rb") as file:
        assert restore(file, folder) == done
    assert done.adapters == 3 and files_in(folder) == files_in(data)
    one, two = store_of(data), store_of(folder)
    for owner in ("a", "b", None):
        assert two.owned(owner) == one.owned(owner) != []
        assert [two.get(owner, record["id"]) for record in one.owned(owner)] == one.owned(owner)
    assert NameStore(two).get("a", "router") == NameStore(one).get("a", "router")
    assert KeyStore(folder).all() == KeyStore(data).all() != []
    assert Replies(folder).begin("a", "key", "print") == Reply(200, {"x": "y"}, b"body")
    (row,) = JobStore(data)._database.query("SELECT id FROM jobs")
    assert {path.name for path in folder.iterdir()} >= {"adapters", "zk", "owners.sqlite3"}
    assert not (folder / "adapters" / ".half").exists()
    taken = JobStore(folder).take()
    assert taken is not None and taken[0].id == row[0], "whoever serves the copy does it"


def test_a_backup_of_a_store_in_use_is_of_one_moment(tmp_path: Path) -> None:
    store, stop = store_of(tmp_path / "data"), threading.Event()
    for number in range(4):
        store.put("a", adapter(number), FILES)

    def churn(first: int) -> None:
        number = first
        while not stop.is_set():
            store.put("a", adapter(number), FILES)
            store.delete("a", adapter(number)["id"])
            number += 2

    threads = [threading.Thread(target=churn, args=(first,)) for first in (100, 101)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            back_up(store.folder, tmp_path / f"{number}.tar")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for number in range(5):
        folder = tmp_path / f"restored{number}"
        with (tmp_path / f"{number}.tar").open("rb") as file:
            restore(file, folder)
        there = store_of(folder)
        identities = [record["id"] for record in there.owned(None)]
        assert {adapter(kept)["id"] for kept in range(4)} <= {*identities}
        for identity in identities:
            there.get("a", identity)  # with all of its files
        assert sorted(path.name for path in (folder / "adapters").iterdir()) == identities


def rewritten(backup: bytes, change: Any) -> bytes:
    """A backup with members that `change` made of (name, content)."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    return b"".join(tar_parts((n, len(c), [c]) for n, c in change(members)))


def renamed(name: str) -> Any:
    """Gives the last member another name, also in the manifest."""

    def change(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        manifest = json.loads(members[0][1])
        old, content = members[-1]
        manifest["files"][name] = manifest["files"].pop(old)
        stated = json.dumps(manifest).encode()
        return [(MANIFEST, stated), *members[1:-1], (name, content)]

    return change


DAMAGE: dict[str, Any] = {
    "empty": lambda backup: b"",
    "no tar": lambda backup: b"x" * 10240,
    "a bit": lambda backup: backup.replace(b"weights", b"weighty", 1),
    "cut in a file": lambda backup: backup[: len(backup) // 2],
    "cut between files": lambda backup: rewritten(backup, lambda members: members[:-1]),
    "cut at a block": lambda backup: backup[: len(backup) // 1024 * 512],
    "twice": lambda backup: rewritten(backup, lambda members: [*members, members[-1]]),
    "more": lambda backup: rewritten(backup, lambda members: [*members, ("new.sqlite3", b"")]),
    "no manifest": lambda backup: rewritten(backup, lambda members: members[1:]),
    "another's manifest": lambda backup: rewritten(backup, lambda m: [(MANIFEST, b"[]"), *m[1:]]),
    "above": lambda backup: rewritten(backup, renamed("../evil")),
    "elsewhere": lambda backup: rewritten(backup, renamed("adapters/ad_" + "0" * 40 + "/../x")),
    "rooted": lambda backup: rewritten(backup, renamed("/tmp/evil")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_refused_and_nothing_is_left(
    backup: bytes, tmp_path: Path, kind: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BackupDamaged):
        restore(io.BytesIO(DAMAGE[kind](backup)), tmp_path / "new" / "data")
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "new") == before


def test_an_interrupted_restore_leaves_what_was_there(backup: bytes, data: Path) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(backup) // 2:
                raise KeyboardInterrupt
            return super().read(size)

    before, around = files_in(data), sorted(data.parent.iterdir())
    with pytest.raises(KeyboardInterrupt):
        restore(Interrupted(backup), data, overwrite=True)
    assert files_in(data) == before and sorted(data.parent.iterdir()) == around


def test_a_folder_that_is_not_empty_is_replaced_only_if_that_is_wanted(
    backup: bytes, data: Path, tmp_path: Path
) -> None:
    store_of(data).put("c", adapter(9), FILES)
    with pytest.raises(OutputExists, match="not empty"):
        restore(io.BytesIO(backup), data)
    assert len(store_of(data).owned(None)) == 4
    restore(io.BytesIO(backup), data, overwrite=True)
    assert len(store_of(data).owned(None)) == 3
    (tmp_path / "empty").mkdir()
    restore(io.BytesIO(backup), tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises((OutputExists, OutputError)):
        restore(io.BytesIO(backup), tmp_path / "file")


def test_the_commands(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "out.tar", tmp_path / "other"
    monkeypatch.setenv("LORASMITH_DATA", str(data))
    assert main(["backup", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}  3 adapters  ")
    assert main(["backup", "--out", str(out)]) == 2
    assert main(["backup", "--out", str(out), "--overwrite"]) == 0
    assert main(["backup", "--out", str(tmp_path / "x"), "--data", str(tmp_path / "no")]) == 2
    assert main(["restore", str(out)]) == 2
    assert main(["restore", str(tmp_path / "no.tar"), "--data", str(folder)]) == 2
    out.write_bytes(out.read_bytes()[:5000])
    assert main(["restore", str(out), "--data", str(folder)]) == 1 and not folder.exists()
    assert main(["backup", "--out", str(out), "--overwrite"]) == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(out.read_bytes())).start()
    assert main(["restore", str(pipe), "--data", str(folder)]) == 0
    assert files_in(folder) == files_in(data)


def test_there_is_nothing_to_back_up_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingPath):
        back_up(tmp_path / "no", tmp_path / "b.tar")
    (tmp_path / "new").mkdir()
    assert back_up(tmp_path / "new", tmp_path / "b.tar").adapters == 0


@pytest.mark.parametrize("name", ["LORASMITH_DATABASE", "LORASMITH_OBJECTS"])
def test_what_lies_elsewhere_is_not_thought_to_be_in_a_backup(
    data: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, "postgresql://me@db/lora")
    out = tmp_path / "b.tar"
    assert main(["backup", "--data", str(data), "--out", str(out)]) == 2
    assert name in capsys.readouterr().err and not out.exists()
