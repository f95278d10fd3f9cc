"""Databases of a service: older ones are brought up to date once, newer ones are left alone."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import tiny
from sqlalchemy import Column, MetaData, Table, Text

from api.errors import StorageFailed
from api.http.app import run_server
from api.service.database import Database
from api.service.job_store import JobStore
from api.service.keys import KeyStore
from api.service.replies import Replies
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import LOCAL, Store
from api.service.tables import STORED

ONE = {"id": "ad_" + "1" * 40}
FILES = ("jobs.sqlite3", "keys.sqlite3", "owners.sqlite3", "replies.sqlite3")
# Waits for the others, then opens a store as `serve` does at its start.
PREPARE = """
import sys, time
from pathlib import Path
from api.service.service import Service
from api.service.settings import Settings
folder, mine, others = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
service = Service(Settings(data=folder))
mine.touch()
while len([*mine.parent.iterdir()]) < others:
    time.sleep(0.001)
service.prepare()
print(len(service.store.owned(None)), len(service.keys.all()))
"""


def run(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as rows:
        for statement in statements:
            rows.execute(statement)


def columns(file: Path, table: str) -> list[str]:
    with closing(sqlite3.connect(file)) as rows:
        return [row[1] for row in rows.execute(f"PRAGMA table_info({table})")]


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as rows:
        return rows.execute("PRAGMA user_version").fetchone()[0]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A data folder as the first versions left it."""
    folder = tmp_path / "data"
    Store(folder, quota_bytes=10**6).put("a", ONE, {"README.md": b"x"})
    KeyStore(folder).create("laptop")
    Replies(folder).prepare()
    job = JobStore(folder)
    job.add("a", ONE["id"], {"kind": "verify"})
    job.close()
    run(folder / "owners.sqlite3", "ALTER TABLE owners DROP COLUMN used")
    run(folder / "jobs.sqlite3", "ALTER TABLE jobs DROP COLUMN owner")
    for file in FILES:
        run(folder / file, "PRAGMA user_version = 0")
    return folder


def test_servers_that_start_at_once_bring_a_store_up_to_date_once(
    old: Path, tmp_path: Path
) -> None:
    before = columns(old / "owners.sqlite3", "owners"), columns(old / "jobs.sqlite3", "jobs")
    (tmp_path / "ready").mkdir()
    processes = [
        tiny.start_python(PREPARE, str(old), str(tmp_path / "ready" / str(number)), "3")
        for number in range(3)
    ]
    assert [tiny.output_of(process) for process in processes] == ["1 1\n"] * 3
    assert columns(old / "owners.sqlite3", "owners") == [*before[0], "used"]
    assert columns(old / "jobs.sqlite3", "jobs") == [*before[1], "owner"]
    assert [version(old / file) for file in FILES] == [2, 2, 1, 1]
    with closing(sqlite3.connect(old / "jobs.sqlite3")) as rows:
        assert rows.execute("SELECT owner FROM jobs").fetchall() == [(LOCAL,)]


def test_a_job_from_before_its_time_was_noted_has_not_waited_for_years(old: Path) -> None:
    run(
        old / "jobs.sqlite3",
        *(f"ALTER TABLE jobs DROP COLUMN {name}" for name in ("asked", "heard")),
    )
    taken = JobStore(old).take()
    assert taken is not None and taken[1] == 0


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    file = old / "owners.sqlite3"
    store = Store(old, quota_bytes=10**6)
    more = MetaData()
    for table in STORED.sorted_tables:
        table.to_metadata(more)
    Table("owners", more, Column("x", Text, nullable=False), extend_existing=True)
    broken = Database(file, more, "the adapter store", version=1)
    with pytest.raises(StorageFailed):  # rows that are there have no value for it
        broken.prepare()
    assert "used" not in columns(file, "owners") and version(file) == 0
    store.get("a", ONE["id"])
    assert "used" in columns(file, "owners") and version(file) == 1


@pytest.mark.parametrize("file", FILES)
def test_what_a_newer_version_wrote_is_refused_and_stays(old: Path, file: str) -> None:
    Service(Settings(data=old)).prepare()
    run(old / file, "PRAGMA user_version = 99", "PRAGMA wal_checkpoint(TRUNCATE)")
    digest = hashlib.sha256((old / file).read_bytes()).hexdigest()
    with pytest.raises(StorageFailed, match="newer lorasmith: it has schema 99") as caught:
        run_server(Settings(data=old, port=0))
    assert str(old) not in str(caught.value) and caught.value.exit_code == 1
    assert hashlib.sha256((old / file).read_bytes()).hexdigest() == digest


NOTES = MetaData()
Table("notes", NOTES, Column("text", Text, primary_key=True))


def noted(database: Database) -> list[str]:
    return [row[0] for row in database.query("SELECT text FROM notes ORDER BY text")]


def test_a_kept_connection_is_of_the_file_that_is_there(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.sqlite3", NOTES, "the notes")
    database.query("INSERT INTO notes VALUES (:text)", text="first")
    with database.connection() as reading:  # one is in use meanwhile, and kept afterwards
        assert reading.exec_driver_sql("SELECT count(*) FROM notes").scalar_one() == 1
        other = Database(tmp_path / "other.sqlite3", NOTES, "the notes")
        other.query("INSERT INTO notes VALUES (:text)", text="second")
        other.query("PRAGMA wal_checkpoint(TRUNCATE)")
        for beside in tmp_path.glob("notes.sqlite3-*"):
            beside.unlink()
        other.path.replace(database.path)
        assert noted(database) == ["second"]
    assert noted(database) == ["second"]
    database.path.unlink()
    for beside in tmp_path.glob("notes.sqlite3-*"):
        beside.unlink()
    assert noted(database) == []  # made again


def test_tables_that_are_dropped_are_made_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.sqlite3", NOTES, "the notes")
    database.query("INSERT INTO notes VALUES (:text)", text="first")
    run(database.path, "DROP TABLE notes")
    assert noted(database) == []


def test_who_reads_does_not_write(tmp_path: Path) -> None:
    database = Database(tmp_path / "notes.sqlite3", NOTES, "the notes")
    database.query("INSERT INTO notes VALUES (:text)", text="first")
    before = {file: file.read_bytes() for file in tmp_path.glob("notes.sqlite3*")}
    changed = database.path.stat().st_mtime_ns
    assert noted(database) == ["first"]
    assert database.path.stat().st_mtime_ns == changed
    assert {file: file.read_bytes() for file in before if "-shm" not in file.name} == {
        file: content for file, content in before.items() if "-shm" not in file.name
    }
