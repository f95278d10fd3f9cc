"""SQLite files of a service: a connection a call, write-ahead logging, errors without paths."""

import datetime
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.errors import StorageFailed

BUSY_SECONDS = 30


@dataclass(frozen=True)
class SqliteFile:
    """One file and its tables, which are made again if the file is gone.

    Attributes:
        label: its name in errors.
        failure: SQLite's errors that mean a disk that cannot be used; others are accidents.
        later: columns that came after the tables: (table, name, declaration). Files without them
            get them.
        version: number of the schema, which the file keeps; 0 leaves the file as it is. It goes up
            with `later`.
    """

    path: Path
    schema: str
    label: str
    failure: type[sqlite3.Error] = sqlite3.OperationalError
    later: tuple[tuple[str, str, str], ...] = ()
    version: int = 0

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A new connection that commits each statement.

        Raises StorageFailed, also for a file of a newer schema, which stays as it is.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            ) as rows:
                with suppress(sqlite3.OperationalError):
                    # Refused at once while others write; it lasts once it has been set.
                    rows.execute("PRAGMA journal_mode = WAL")
                rows.execute("PRAGMA foreign_keys = ON")
                known = self._known_version(rows)
                rows.executescript(self.schema)
                if known < self.version:
                    self._migrate(rows)
                yield rows
        except (OSError, self.failure) as error:
            raise self.failed(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The one writer at a time: committed at the end, rolled back by an error."""
        with self.connection() as rows, rows:
            rows.execute("BEGIN IMMEDIATE")
            yield rows

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """What was stored at one moment, however many statements read it."""
        with self.connection() as rows, rows:
            rows.execute("BEGIN")
            yield rows

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """The rows of one statement. Raises StorageFailed."""
        with self.connection() as rows:
            return rows.execute(statement, parameters).fetchall()

    def prepare(self) -> None:
        """Bring the file up to date, as every connection does. Raises StorageFailed."""
        with self.connection():
            pass

    def _known_version(self, rows: sqlite3.Connection) -> int:
        """The version of the file. Raises StorageFailed if it is newer than ours."""
        (known,) = rows.execute("PRAGMA user_version").fetchone()
        if 0 < self.version < known:
            raise StorageFailed(
                f"{self.label} was written by a newer lorasmith: it has schema {known}, and this "
                f"one knows {self.version}"
            )
        return known

    def _migrate(self, rows: sqlite3.Connection) -> None:
        """Add what the file lacks of `later`; of several processes the first one does."""
        with rows:
            rows.execute("BEGIN IMMEDIATE")  # the lock; what is lacking is looked at under it
            for statement in self._lacking(rows):
                rows.execute(statement)
            rows.execute(f"PRAGMA user_version = {self.version}")

    def _lacking(self, rows: sqlite3.Connection) -> list[str]:
        """The statements that add what is missing."""
        return [
            f"ALTER TABLE {table} ADD COLUMN {name} {declaration}"
            for table, name, declaration in self.later
            if name not in {row[1] for row in rows.execute(f"PRAGMA table_info({table})")}
        ]

    def failed(self, error: BaseException) -> StorageFailed:
        """The error for a client, without the path."""
        reason = getattr(error, "strerror", None) or error
        return StorageFailed(f"{self.label} cannot be used: {reason}")


def utc_now() -> str:
    """The time in UTC, to the second, as rows keep it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
