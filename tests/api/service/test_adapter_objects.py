"""Adapters in an object store: whole or not there, served from a cache that stays small."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny

from api.errors import NotFound, StorageUnreachable
from api.service.store import Store
from library.canonical import digest
from library.errors import UsageError

ONE, TWO = ({"id": f"ad_{number * 40}"} for number in "12")
FILES = {"README.md": b"made here", "adapter_model.safetensors": b"weights" * 1000}


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    (tmp_path / "objects").mkdir()
    return tmp_path / "objects"


def store_of(folder: Path, objects: Path, **options: Any) -> Store:
    """A store with files of its own and rows that others share."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "owners.sqlite3").is_symlink():
        (folder / "owners.sqlite3").symlink_to(objects.parent / "rows.sqlite3")
    return Store(folder, quota_bytes=10**6, objects=f"file://{objects}", **options)


def kept(objects: Path) -> list[str]:
    return sorted(str(path.relative_to(objects)) for path in objects.rglob("*") if path.is_file())


def cached(store: Store) -> list[str]:
    return sorted(path.name for path in (store.folder / "cached").glob("ad_*"))


def test_what_is_stored_is_read_elsewhere_and_goes_with_its_last_owner(
    tmp_path: Path, objects: Path
) -> None:
    here, there = (store_of(tmp_path / name, objects) for name in ("here", "there"))
    record, new = here.put("a", ONE, FILES)
    assert new and not there.put("a", ONE, FILES)[1] and there.put("b", ONE, FILES)[1]
    assert there.files("a", there.get("a", ONE["id"])) == FILES
    assert there.path(ONE["id"], "README.md").read_bytes() == FILES["README.md"]
    assert kept(objects) == sorted(f"{ONE['id']}/{digest(data)}" for data in FILES.values())
    there.delete("a", ONE["id"])
    assert here.get("b", ONE["id"]) == record
    there.delete("b", ONE["id"])
    assert kept(objects) == [] and cached(there) == []
    with pytest.raises(NotFound):
        here.read(None, ONE["id"], "README.md")


def test_files_that_were_imported_give_way_as_one_step(tmp_path: Path, objects: Path) -> None:
    here, there = (store_of(tmp_path / name, objects) for name in ("here", "there"))
    sent = {**FILES, "README.md": b"sent"}
    here.put("a", ONE, sent, imported=True)
    assert there.files("a", there.get("a", ONE["id"])) == sent
    there.put("a", ONE, FILES)
    assert here.files("a", here.get("a", ONE["id"])) == FILES, "what is cached is looked at"


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_what_is_lost_or_changed_is_absent_until_it_is_made_again(
    tmp_path: Path, objects: Path, harm: str
) -> None:
    here, there = (store_of(tmp_path / name, objects) for name in ("here", "there"))
    here.put("a", ONE, FILES)
    file = objects / ONE["id"] / digest(FILES["README.md"])
    file.unlink() if harm == "lost" else file.write_bytes(b"other")
    with pytest.raises(NotFound):
        there.read("a", ONE["id"], "README.md")
    assert there.put("a", ONE, FILES)[1]
    assert there.read("a", ONE["id"], "README.md")[0] == FILES["README.md"]


KILLED = """
import os, sys
from pathlib import Path
import obstore
from api.service.store import Store
put, sent = obstore.put, []
def last(*arguments):
    if sent:
        os.kill(os.getpid(), 9)
    sent.append(put(*arguments))
obstore.put = last
store = Store(Path(sys.argv[1]), quota_bytes=10**6, objects=sys.argv[2])
store.put("a", {"id": sys.argv[3]}, {"one": b"1", "two": b"2"})
"""


def test_what_a_killed_process_had_begun_is_not_seen(tmp_path: Path, objects: Path) -> None:
    store = store_of(tmp_path / "here", objects)
    process = tiny.start_python(KILLED, str(store.folder), f"file://{objects}", TWO["id"])
    assert process.wait(60) == -signal.SIGKILL and len(kept(objects)) == 1
    with pytest.raises(NotFound):
        store.get("a", TWO["id"])
    assert store.owned(None) == [] and store.used() == 0
    assert store.put("a", TWO, FILES)[1]
    store.delete("a", TWO["id"])
    assert kept(objects) == [], "what was left over goes with it"


def test_the_cache_stays_small_and_may_be_removed(
    tmp_path: Path, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, FILES.values()))
    monkeypatch.setattr("api.service.adapter_objects.CACHE_BYTES", 2 * size)
    store = store_of(tmp_path / "here", objects)
    adapters = [{"id": f"ad_{number:040x}"} for number in range(5)]
    for number, adapter in enumerate(adapters):
        store.put("a", adapter, FILES)
        os.utime(store.path(adapter["id"]), (number, number))
    assert cached(store) == [adapter["id"] for adapter in adapters[-2:]]
    for adapter in adapters:
        assert store.files("a", store.get("a", adapter["id"])) == FILES
        assert len(cached(store)) <= 2


def test_what_lies_in_the_folder_alone_is_no_cache(
    tmp_path: Path, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.adapter_objects.CACHE_BYTES", 0)
    before = Store(tmp_path / "here", quota_bytes=10**6)
    before.put("a", ONE, FILES)
    after = Store(tmp_path / "here", quota_bytes=10**6, objects=f"file://{objects}")
    after.put("a", TWO, FILES)
    assert before.files("a", before.get("a", ONE["id"])) == FILES


def test_many_may_want_what_is_not_cached_yet(tmp_path: Path, objects: Path) -> None:
    here, there = (store_of(tmp_path / name, objects) for name in ("here", "there"))
    record, _ = here.put("a", ONE, FILES)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            shutil.rmtree(there.folder / "cached", ignore_errors=True)
            found = pool.map(lambda _: there.files("a", record), range(4))
            assert [*found] == [FILES] * 4


def test_a_store_that_does_not_answer_is_503_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.adapter_objects.RETRIES", 0)
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ALLOW_HTTP", "true"),
                        ("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "secret")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    store = Store(tmp_path, quota_bytes=10**6, objects="s3://bucket/prefix")
    with pytest.raises(StorageUnreachable, match="the object store of adapters cannot be reached"):
        store.put("a", ONE, FILES)
    assert store.owned(None) == [] and cached(store) == []


@pytest.mark.parametrize("url", ["s3:///prefix", "file:///no/such/folder"])
def test_what_is_no_object_store_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="the object store cannot be opened"):
        Store(tmp_path, quota_bytes=1, objects=url)
