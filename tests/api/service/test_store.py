"""The store: whole or absent, safe under concurrency, honest about what was changed by hand."""

import errno
import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.errors import NotFound, QuotaExceeded, StorageFailed
from api.service.store import Store
from library.canonical import digest

WEIGHTS = "adapter_model.safetensors"
FILES = {"adapter_config.json": b"{}\n", WEIGHTS: b"weights" * 100}
SIZE = sum(len(content) for content in FILES.values())
ONE = {"id": "ad_" + "1" * 40, "rank": 8}
TWO = {"id": "ad_" + "2" * 40, "rank": 8}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data", quota_bytes=10**6)


def listing(store: Store) -> list[str]:
    """Everything under adapters/, hidden leftovers included."""
    folder = store.folder / "adapters"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def rows(store: Store) -> list[Any]:
    with closing(sqlite3.connect(store.folder / "owners.sqlite3")) as connection:
        return connection.execute("SELECT id FROM adapters").fetchall()


def test_what_is_put_can_be_read_and_is_new_once(store: Store) -> None:
    record, new = store.put("a", ONE, FILES)
    assert new
    assert record == store.get("a", ONE["id"])
    assert record["rank"] == 8
    for name, content in FILES.items():
        assert record["files"][name] == {"sha256": digest(content), "bytes": len(content)}
        assert store.read("a", ONE["id"], name) == (content, digest(content))
    assert store.put("a", {**ONE, "rank": 9}, FILES) == (record, False)


def test_an_adapter_stays_until_its_last_owner_deletes_it(store: Store) -> None:
    store.put("a", ONE, FILES)
    assert store.put("b", ONE, FILES)[1]
    store.delete("a", ONE["id"])
    with pytest.raises(NotFound):
        store.get("a", ONE["id"])
    assert store.get("b", ONE["id"])["rank"] == 8
    store.delete("b", ONE["id"])
    assert listing(store) == []
    with pytest.raises(NotFound):
        store.delete("b", ONE["id"])


@pytest.mark.parametrize("identity", ["", "..", "ad_" + "3" * 40, "ad_" + "1" * 39, "\ud800"])
def test_unknown_ids_and_names_are_not_found(store: Store, identity: str) -> None:
    store.put("a", ONE, FILES)
    operations: list[Callable[[], Any]] = [
        lambda: store.get("a", identity),
        lambda: store.delete("a", identity),
        lambda: store.read("a", identity, "adapter_config.json"),
        lambda: store.read("a", ONE["id"], "../owners.sqlite3"),
        lambda: store.get("b", ONE["id"]),
        lambda: store.read("b", ONE["id"], "adapter_config.json"),
    ]
    for operation in operations:
        with pytest.raises(NotFound):
            operation()


def test_beyond_the_quota_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path, quota_bytes=SIZE)
    store.put("a", ONE, FILES)
    with pytest.raises(QuotaExceeded):
        store.put("a", TWO, FILES)
    assert listing(store) == [ONE["id"]]
    assert rows(store) == [(ONE["id"],)]
    assert not store.put("a", ONE, FILES)[1], "what is there already needs no room"
    store.delete("a", ONE["id"])
    assert store.put("a", TWO, FILES)[1]


def test_what_was_harmed_is_restored_within_the_quota_as_if_it_were_not_there(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, quota_bytes=2 * SIZE)
    store.put("a", ONE, FILES)
    store.put("a", TWO, FILES)
    remove_file(store)
    assert store.put("a", ONE, FILES)[1]
    longer = {**FILES, "more": b"x"}
    remove_file(store)
    with pytest.raises(QuotaExceeded):
        store.put("a", ONE, longer)


def test_an_owner_s_adapter_is_there_even_if_its_files_are_not(store: Store) -> None:
    store.put("a", ONE, FILES)
    remove_folder(store)
    store.require("a", ONE["id"])
    for owner, identity in (("b", ONE["id"]), ("a", TWO["id"]), ("a", "..")):
        with pytest.raises(NotFound):
            store.require(owner, identity)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: writing then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_and_names_no_path(store: Store) -> None:
    store.put("a", ONE, FILES)
    big = {**FILES, "adapter_model.safetensors": b"x" * 900_000}
    with full_disk(500_000), pytest.raises(StorageFailed) as caught:
        store.put("a", TWO, big)
    assert str(store.folder) not in str(caught.value)
    assert listing(store) == [ONE["id"]]
    assert rows(store) == [(ONE["id"],)]
    assert store.put("a", TWO, big)[1]


def test_what_a_killed_process_had_begun_goes_and_nothing_else(store: Store) -> None:
    store.clear_begun()  # also where nothing was ever stored
    store.put("a", ONE, FILES)
    code = (
        "import os, sys; from pathlib import Path; from api.service.store import Store;"
        "os.replace = os.rename = Path.rename = lambda *_: os.kill(os.getpid(), 9);"
        "store = Store(Path(sys.argv[1]), quota_bytes=10**6);"
        f"store.put('a', {TWO!r}, {FILES!r})"
    )
    assert tiny.start_python(code, str(store.folder)).wait(60) == -9
    assert len(listing(store)) == 2
    store.clear_begun()
    assert listing(store) == [ONE["id"]]
    assert store.get("a", ONE["id"])["rank"] == 8


def test_files_that_two_adapters_have_are_one_on_the_disk(store: Store) -> None:
    other = {**FILES, "adapter_config.json": b"[]\n"}
    store.put("a", ONE, FILES)
    store.put("a", TWO, other)
    one, two = (store.path(record["id"]) for record in (ONE, TWO))
    assert (one / WEIGHTS).samefile(two / WEIGHTS)
    assert not (one / "adapter_config.json").samefile(two / "adapter_config.json")
    assert store.used() == SIZE * 2  # each counts
    store.delete("a", ONE["id"])
    assert store.files("a", store.get("a", TWO["id"])) == other


def without_links(*_: object) -> None:
    raise OSError(errno.ENOTSUP, "Operation not supported")


@pytest.mark.parametrize("how", ["changed", "gone", "no links"])
def test_what_cannot_be_linked_is_written(
    store: Store, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", ONE, FILES)
    weights = store.path(ONE["id"], WEIGHTS)
    if how == "changed":
        weights.write_bytes(FILES[WEIGHTS][::-1])
    elif how == "gone":
        weights.unlink()
    else:
        monkeypatch.setattr(os, "link", without_links)
    store.put("a", TWO, FILES)
    assert store.files("a", store.get("a", TWO["id"])) == FILES
    assert how == "gone" or not weights.samefile(store.path(TWO["id"], WEIGHTS))


def test_a_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StorageFailed):
        Store(tmp_path / "data", quota_bytes=SIZE).put("a", ONE, FILES)


def remove_file(store: Store) -> None:
    (store.folder / "adapters" / ONE["id"] / "adapter_config.json").unlink()


def change_file(store: Store) -> None:
    (store.folder / "adapters" / ONE["id"] / "adapter_config.json").write_bytes(b"[]\n")


def remove_folder(store: Store) -> None:
    shutil.rmtree(store.folder / "adapters" / ONE["id"])


def remove_database(store: Store) -> None:
    for path in store.folder.glob("owners.sqlite3*"):
        path.unlink()


def remove_everything(store: Store) -> None:
    shutil.rmtree(store.folder)


@pytest.mark.parametrize(
    "harm", [remove_file, change_file, remove_folder, remove_database, remove_everything]
)
def test_what_was_harmed_by_hand_is_absent_until_put_again(
    store: Store, harm: Callable[[Store], None]
) -> None:
    store.put("a", ONE, FILES)
    harm(store)
    with pytest.raises(NotFound):
        store.get("a", ONE["id"])
    with pytest.raises(NotFound):
        store.read("a", ONE["id"], "adapter_config.json")
    assert store.put("a", ONE, FILES)[1]
    assert store.read("a", ONE["id"], "adapter_config.json")[0] == b"{}\n"
    remove_folder(store)
    store.delete("a", ONE["id"])
    assert rows(store) == []


def test_one_of_many_concurrent_puts_is_new(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def put(_: int) -> tuple[Any, bool]:
        own = Store(tmp_path / "data", quota_bytes=10**6)
        start.wait()
        return own.put("a", ONE, FILES)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(put, range(8)))
    assert [new for _, new in results].count(True) == 1
    assert all(record == results[0][0] for record, _ in results)


def test_a_put_waits_for_another_process_that_sets_the_store_up(store: Store) -> None:
    store.folder.mkdir()
    other = sqlite3.connect(store.folder / "owners.sqlite3", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # before write-ahead logging is on
    release = threading.Timer(0.3, other.close)
    release.start()
    assert store.put("a", ONE, FILES)[1]
    release.join()


def test_puts_and_deletes_may_cross(store: Store) -> None:
    def churn(owner: str) -> None:
        for _ in range(15):
            store.put(owner, ONE, FILES)
            store.delete(owner, ONE["id"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, "abcd"))
    assert listing(store) == []
    assert rows(store) == []


def test_an_owner_s_own_quota_counts_what_is_the_owner_s(tmp_path: Path) -> None:
    quotas = {"a": SIZE, "b": 2 * SIZE}
    store = Store(tmp_path, quota_bytes=10**6, quota_of=quotas.get)
    for owner in "bac":  # one adapter of three owners counts for each
        assert store.put(owner, ONE, FILES)[1]
    assert not store.put("a", ONE, FILES)[1], "what is there already needs no room"
    with pytest.raises(QuotaExceeded, match=f"{2 * SIZE:,} bytes of {SIZE:,}"):
        store.put("a", TWO, FILES)
    assert listing(store) == [ONE["id"]] and rows(store) == [(ONE["id"],)]
    for owner in "bc":
        assert store.put(owner, TWO, FILES)[1]
    with pytest.raises(QuotaExceeded):  # also if it is stored for others
        store.put("a", TWO, FILES)
    with pytest.raises(NotFound):
        store.get("a", TWO["id"])
    remove_file(store)
    assert store.put("a", ONE, FILES)[1], "what is restored takes no more room than before"
    store.delete("a", ONE["id"])
    assert store.put("a", TWO, FILES)[1]
