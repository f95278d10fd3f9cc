"""Jobs and their results, kept in SQLite, so that they outlive the process that ran them.

A process that works on jobs holds a lock on a file for as long as it lives. A job that is queued or
running under a lock that nobody holds was interrupted, however its process ended.
"""

import fcntl
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from api.errors import NotFound, StorageFailed
from api.service.store import BUSY_SECONDS

State = Literal["queued", "running", "done", "failed", "interrupted"]
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
KEPT = 1000  # finished jobs; the oldest go first
INTERRUPTED = "the service stopped before the job was done; ask again"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, adapter TEXT NOT NULL,
    worker TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL, wanted TEXT NOT NULL,
    result TEXT, error TEXT
) STRICT;
"""


@dataclass(frozen=True)
class JobRow:
    """What is asked about an adapter, how far it is, and what came out.

    Attributes:
        progress: from 0 to 1.
        wanted: the request, as JSON.
        result: of a job that is done.
        error: one sentence, of a job that failed or was interrupted.
    """

    id: str
    adapter: str
    state: State
    progress: float
    wanted: dict[str, Any]
    result: dict[str, Any] | None = None
    error: str | None = None


class JobStore:
    """The jobs of one data folder.

    Args:
        folder: holds `jobs.sqlite3` and the locks of working processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: tuple[str, IO[str]] | None = None
        self._holding = threading.Lock()

    def add(self, adapter: str, wanted: Mapping[str, Any]) -> JobRow:
        """A new job, queued with this process. Raises StorageFailed."""
        identity = f"job_{secrets.token_hex(16)}"
        worker = self._worker()
        with self._rows() as rows:
            rows.execute(
                "INSERT INTO jobs (id, adapter, worker, state, progress, wanted)"
                " VALUES (?, ?, ?, 'queued', 0, ?)",
                (identity, adapter, worker, json.dumps(wanted)),
            )
            rows.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND number NOT IN"
                " (SELECT number FROM jobs ORDER BY number DESC LIMIT ?)",
                (KEPT,),
            )
        return JobRow(identity, adapter, "queued", 0.0, dict(wanted))

    def get(self, identity: str) -> JobRow:
        """A job as it stands. Raises NotFound."""
        with self._rows() as rows:
            row = rows.execute(
                "SELECT adapter, state, progress, wanted, result, error, worker FROM jobs"
                " WHERE id = ?",
                (identity,),
            ).fetchone()
        if row is None:
            raise NotFound("there is no such job")
        adapter, state, progress, wanted, result, error, worker = row
        if state in ("queued", "running") and not self._alive(worker):
            state, error = "interrupted", INTERRUPTED
        found = json.loads(result) if result else None
        return JobRow(identity, adapter, state, progress, json.loads(wanted), found, error)

    def advance(self, identity: str, progress: float) -> None:
        """The job is running and has come so far; it never goes back."""
        with self._rows() as rows:
            rows.execute(
                "UPDATE jobs SET state = 'running', progress = max(progress, ?) WHERE id = ?",
                (min(progress, 1.0), identity),
            )

    def finish(
        self,
        identity: str,
        state: State,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """The job has ended."""
        with self._rows() as rows:
            rows.execute(
                "UPDATE jobs SET state = ?, progress = iif(? = 'done', 1, progress), result = ?,"
                " error = ? WHERE id = ?",
                (state, state, None if result is None else json.dumps(result), error, identity),
            )

    def close(self) -> None:
        """Let the lock go: what this process has not finished counts as interrupted."""
        with self._holding:
            if self._held is not None:
                name, handle = self._held
                self._lock(name).unlink(missing_ok=True)
                handle.close()
                self._held = None

    def _worker(self) -> str:
        """This process's name, under a lock that is taken with the first job."""
        with self._holding:
            if self._held is not None and self._lock(self._held[0]).exists():
                return self._held[0]
            name = secrets.token_hex(8)
            try:
                self._lock(name).parent.mkdir(parents=True, exist_ok=True)
                handle = self._lock(name).open("w")
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StorageFailed(_cannot_use(error)) from error
            self._held = name, handle
            return name

    def _lock(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker}.lock"

    def _alive(self, worker: str) -> bool:
        try:
            with self._lock(worker).open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def _rows(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own for each call; the table is made anew if the file is gone."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(self.folder / "jobs.sqlite3", timeout=BUSY_SECONDS)
            ) as rows:
                with suppress(sqlite3.OperationalError):
                    rows.execute("PRAGMA journal_mode = WAL")
                rows.executescript(_SCHEMA)
                with rows:
                    yield rows
        except (OSError, sqlite3.DatabaseError) as error:
            raise StorageFailed(_cannot_use(error)) from error


def _cannot_use(error: BaseException) -> str:
    """Without the path, which is no business of a client."""
    return f"the job store cannot be used: {getattr(error, 'strerror', None) or error}"
