"""Databases of a service: a file of SQLite each in the data folder, or one PostgreSQL for several
replicas. Statements are ones that both understand; errors are without paths.
"""

import datetime
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    MetaData,
    QueuePool,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from api.errors import StorageFailed, StorageUnreachable
from library.canonical import digest
from library.errors import UsageError
from library.store.sql_database import database_url
from verification.zk.errors import MissingExtra

BUSY_SECONDS = 30  # for another writer
REACH_SECONDS = 10  # for a server to answer
SCHEMA = "lorasmith"  # of PostgreSQL, so that other tables may have the same names
_OPTIONS = (
    f"-c search_path={SCHEMA} -c lock_timeout={BUSY_SECONDS}s"
    f" -c idle_in_transaction_session_timeout={2 * BUSY_SECONDS}s"  # of a replica that is cut off
)


# Also what a server says that ends a session, or is no longer the one to write to.
_AWAY = OperationalError, InterfaceError, InternalError


class Database:
    """Some tables, which are made again if they are gone.

    Args:
        path: the file, where there is no server.
        tables: those of it.
        label: its name in errors.
        url: of PostgreSQL, which has the tables of all.
        failure: SQLite's errors that mean a disk that cannot be used; others are accidents.
        version: number of the schema, which is kept beside it; 0 leaves a file as it is. It goes up
            with columns that older tables lack, and get.
    Raises UsageError: the URL is none of PostgreSQL.
    """

    def __init__(
        self,
        path: Path,
        tables: MetaData,
        label: str,
        url: str | None = None,
        *,
        failure: type[DBAPIError] = OperationalError,
        version: int = 0,
    ) -> None:
        self.path, self.tables, self.label, self.version = path, tables, label, version
        self.file = not url
        self._url = postgres_url(url) if url else URL.create("sqlite", database=str(path))
        self._failures = (OSError, failure) if self.file else _AWAY
        self._prepared = False
        self.away = -math.inf  # when a server last did not answer, by time.monotonic

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored, as far as a look at the disk tells."""
        return not self.file or self.path.exists()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection that commits each statement.

        Raises StorageFailed, also for a newer schema, which stays as it is; StorageUnreachable.
        """
        try:
            with closing(self._engine().connect()) as rows:
                self._make_ready(rows)
                yield rows
        except self._failures as error:
            raise self.failed(error) from error

    @contextmanager
    def transaction(self, *, exclusive: bool = True) -> Iterator[Connection]:
        """Statements that are committed together at the end, and undone by an error.

        Args:
            exclusive: keeps other exclusive ones out until the end; SQLite has one writer anyway.
        """
        begin = "BEGIN IMMEDIATE" if self.file else "BEGIN"
        with self.connection() as rows, _together(rows, begin):
            if exclusive and not self.file:
                _lock(rows, self.path.stem)
            yield rows

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """What was stored at one moment, however many statements read it."""
        begin = "BEGIN" if self.file else "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        with self.connection() as rows, _together(rows, begin):
            yield rows

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of one statement. Raises StorageFailed."""
        with self.connection() as rows:
            found = run(rows, statement, **parameters)
            return [*found.fetchall()] if found.returns_rows else []

    def prepare(self) -> None:
        """Bring the tables up to date, as every connection does. Raises StorageFailed."""
        with self.connection():
            pass

    def failed(self, error: BaseException) -> StorageFailed:
        """The error for a client, without the path."""
        if not self.file and isinstance(error, DBAPIError):
            self.away = time.monotonic()
            return StorageUnreachable(f"the database of {self.label} cannot be reached now")
        cause = getattr(error, "orig", None) or error
        reason = getattr(cause, "strerror", None) or cause
        return StorageFailed(f"{self.label} cannot be used: {reason}")

    def _engine(self) -> Engine:
        """Connections that are kept, for the very file that is there, which is made if need be.

        A file that is removed, or replaced with its -wal and -shm removed, is another one, even
        while the old one is still open.
        """
        if not self.file:
            return _engine(self._url)
        if not self.path.exists():  # who reads writes nothing
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        there = self.path.stat()
        return _engine(self._url, (there.st_dev, there.st_ino))

    def _make_ready(self, rows: Connection) -> None:
        if self.file:
            if "schema" not in rows.info:  # what a kept connection keeps
                with suppress(OperationalError):
                    # Refused at once while others write; it lasts once it has been set.
                    rows.exec_driver_sql("PRAGMA journal_mode = WAL")
                rows.exec_driver_sql("PRAGMA foreign_keys = ON")
            if (self.label, *self._schema(rows)) != rows.info.get("schema"):
                self._update(rows)
                rows.info["schema"] = (self.label, *self._schema(rows))
        elif not self._prepared:
            with _together(rows, "BEGIN"):
                _lock(rows, SCHEMA)  # of replicas that start at once one makes the tables
                if run(rows, "SELECT to_regnamespace(:name)", name=SCHEMA).scalar() is None:
                    rows.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")  # not every role may
                rows.exec_driver_sql(_NUMBERS)
                self._update(rows)
            self._prepared = True

    def _update(self, rows: Connection) -> None:
        """Make what is lacking. Raises StorageFailed if the tables are newer than ours."""
        known = self._known_version(rows)
        if 0 < self.version < known:
            raise StorageFailed(
                f"{self.label} was written by a newer lorasmith: it has schema {known}, and this "
                f"one knows {self.version}"
            )
        for statement in _statements(self.tables, rows.engine):
            rows.exec_driver_sql(statement)
        if known < self.version:
            self._migrate(rows)

    def _schema(self, rows: Connection) -> tuple[int, int]:
        """SQLite's count of changes to tables, and the number that we keep."""
        numbers = "SELECT schema_version, user_version FROM pragma_schema_version"
        counted, known = rows.exec_driver_sql(f"{numbers}, pragma_user_version").one()
        return counted, known

    def _known_version(self, rows: Connection) -> int:
        if self.file:
            return rows.exec_driver_sql("PRAGMA user_version").scalar_one()
        number = "SELECT number FROM schema_numbers WHERE name = :name"
        return run(rows, number, name=self.path.stem).scalar() or 0

    def _migrate(self, rows: Connection) -> None:
        """Add the columns that are lacking; of several processes the first one does."""
        if not self.file:  # under the lock already
            self._add_columns(rows)
            number = "INSERT INTO schema_numbers VALUES (:name, :number)"
            number += " ON CONFLICT (name) DO UPDATE SET number = excluded.number"
            run(rows, number, name=self.path.stem, number=self.version)
            return
        with _together(rows, "BEGIN IMMEDIATE"):  # what is lacking is looked at under the lock
            self._add_columns(rows)
            rows.exec_driver_sql(f"PRAGMA user_version = {self.version}")

    def _add_columns(self, rows: Connection) -> None:
        for table in self.tables.sorted_tables:
            there = {column["name"] for column in inspect(rows).get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    added = CreateColumn(column).compile(dialect=rows.dialect)
                    rows.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")


_NUMBERS = """
CREATE TABLE IF NOT EXISTS schema_numbers (name TEXT PRIMARY KEY, number INTEGER NOT NULL)
"""


def postgres_url(text: str) -> URL:
    """The URL of a PostgreSQL. Raises UsageError for any other."""
    url = database_url(text)
    if url.get_backend_name() != "postgresql":
        raise UsageError("the database must be a PostgreSQL, as postgresql://user@host/name")
    return url


def run(rows: Connection, statement: str, **parameters: Any) -> CursorResult[Any]:
    """What a statement gives, with its parameters by name."""
    return rows.execute(text(statement), parameters)


def utc_now() -> str:
    """The time in UTC, to the second, as rows keep it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextmanager
def _together(rows: Connection, begin: str) -> Iterator[None]:
    """Commits what is done in the `with` block, or undoes it."""
    rows.exec_driver_sql(begin)
    try:
        yield
        rows.exec_driver_sql("COMMIT")
    except BaseException:
        if not rows.invalidated:  # else it is gone, and the transaction with it
            with suppress(DBAPIError):
                rows.exec_driver_sql("ROLLBACK")
        raise


def _lock(rows: Connection, name: str) -> None:
    """Keep others of the name out until the end of the transaction."""
    number = int(digest(f"lorasmith {name}".encode())[:15], 16)
    rows.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number})")


@lru_cache(maxsize=16)  # what falls out closes its connections
def _engine(url: URL, _file: tuple[int, int] | None = None) -> Engine:
    """A connection for each thread that needs one; five are kept. Raises MissingExtra: no driver.

    Args:
        _file: device and inode of the file, while whose connections are kept no other has them.
    """
    options: dict[str, Any]
    if url.get_backend_name() == "sqlite":
        options = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    else:
        options = {"connect_timeout": REACH_SECONDS, "options": _OPTIONS}
    try:
        return create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args=options,
            poolclass=QueuePool,
            max_overflow=-1,
            pool_pre_ping=url.get_backend_name() != "sqlite",  # one that was cut is replaced
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("PostgreSQL needs psycopg: pip install 'lorasmith[postgres]'") from error


def _statements(tables: MetaData, engine: Engine) -> list[str]:
    """Those that make the tables where they are not."""
    made: list[CreateTable | CreateIndex] = []
    for table in tables.sorted_tables:
        made.append(CreateTable(table, if_not_exists=True))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            made.append(CreateIndex(index, if_not_exists=True))
    return [str(one.compile(dialect=engine.dialect)) for one in made]
