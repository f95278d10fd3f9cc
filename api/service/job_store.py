"""Jobs and their results in SQLite, where they outlive the process that ran them.

A process that works on jobs holds a lock on a file for as long as it lives. A job that is queued or
running under a lock that nobody holds was interrupted, however its process ended.
"""

import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from api.errors import NotFound
from api.service.sqlite import SqliteFile

State = Literal["queued", "running", "done", "failed", "interrupted"]
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
HISTORY = 1000  # jobs; older ones are deleted once they have ended
INTERRUPTED = "the service stopped before the job was done; submit it again"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, adapter TEXT NOT NULL,
    worker TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL, wanted TEXT NOT NULL,
    result TEXT, error TEXT
) STRICT;
"""


@dataclass(frozen=True)
class JobRow:
    """A job about one adapter: its request, state and outcome.

    Attributes:
        progress: from 0 to 1.
        request: the JSON that it was asked for with.
        result: of a job that is done.
        error: one sentence, of a job that failed or was interrupted.
    """

    id: str
    adapter: str
    state: State
    progress: float
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: str | None = None


class JobStore:
    """The jobs of one data folder.

    Args:
        folder: holds `jobs.sqlite3` and the locks of working processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Also a damaged file is reported: jobs can be asked for again once it is removed.
        self._database = SqliteFile(
            folder / "jobs.sqlite3", _SCHEMA, "the job store", sqlite3.DatabaseError
        )
        self._lock: FileLock | None = None
        self._guard = threading.Lock()

    def add(self, adapter: str, request: Mapping[str, Any]) -> JobRow:
        """A new job, queued with this process. Raises StorageFailed."""
        identity = f"job_{secrets.token_hex(16)}"
        worker = self._worker()
        with self._database.transaction() as rows:
            rows.execute(
                "INSERT INTO jobs (id, adapter, worker, state, progress, wanted)"
                " VALUES (?, ?, ?, 'queued', 0, ?)",
                (identity, adapter, worker, json.dumps(request)),
            )
            rows.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND number NOT IN"
                " (SELECT number FROM jobs ORDER BY number DESC LIMIT ?)",
                (HISTORY,),
            )
        return JobRow(identity, adapter, "queued", 0.0, dict(request))

    def get(self, identity: str) -> JobRow:
        """The job in its present state. Raises NotFound."""
        columns = "id, adapter, state, progress, wanted, result, error, worker"
        rows = self._database.query(f"SELECT {columns} FROM jobs WHERE id = ?", identity)
        if not rows:
            raise NotFound("there is no such job")
        *fields, request, result, error, worker = rows[0]
        details = {"request": json.loads(request), "result": json.loads(result or "null")}
        job = JobRow(*fields, **details, error=error)
        if job.state in ("queued", "running") and not self._alive(worker):
            return replace(job, state="interrupted", error=INTERRUPTED)
        return job

    def advance(self, identity: str, progress: float) -> None:
        """Record that the job is running, and its progress, which never decreases."""
        self._database.query(
            "UPDATE jobs SET state = 'running', progress = max(progress, ?) WHERE id = ?",
            min(progress, 1.0),
            identity,
        )

    def finish(
        self,
        identity: str,
        state: State,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Record the end of a job."""
        self._database.query(
            "UPDATE jobs SET state = ?1, progress = iif(?1 = 'done', 1, progress), result = ?2,"
            " error = ?3 WHERE id = ?4",
            state,
            json.dumps(result),
            error,
            identity,
        )

    def close(self) -> None:
        """Release the lock: what this process has not finished counts as interrupted."""
        with self._guard:
            if self._lock is not None:
                Path(self._lock.lock_file).unlink(missing_ok=True)
                self._lock.release()
                self._lock = None

    def _worker(self) -> str:
        """This process's name, which is its lock's; the lock is taken with the first job."""
        with self._guard:
            if self._lock is None or not Path(self._lock.lock_file).exists():
                path = self._lock_path(secrets.token_hex(8))
                lock = FileLock(path, timeout=0, thread_local=False)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    lock.acquire()
                except OSError as error:
                    raise self._database.failed(error) from error
                self._lock = lock
            return Path(self._lock.lock_file).stem

    def _lock_path(self, worker: str) -> Path:
        return self.folder / "workers" / f"{worker}.lock"

    def _alive(self, worker: str) -> bool:
        path = self._lock_path(worker)
        with self._guard:  # two looks at once would take each other for the worker
            if not path.exists():
                return False
            try:
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)  # its process was killed
            except OSError as error:
                return isinstance(error, Timeout)
        return False
