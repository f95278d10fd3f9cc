"""Jobs and their results in SQLite, where they outlive the process that ran them.

A process that works on jobs holds a lock on a file for as long as it lives. A job that is running
under a lock that nobody holds was interrupted, however its process ended; one that waits is taken
over by the next process that works on jobs, and by one alone.
"""

import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from api.errors import NotFound
from api.service.sqlite import SqliteFile
from api.service.store import LOCAL
from library.errors import LorasmithError

Kind = Literal["verify", "create", "refine", "compose", "promote"]
State = Literal["queued", "running", "done", "failed", "interrupted", "cancelled"]
Keep = Callable[[], Mapping[str, Any]]
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
HISTORY = 1000  # jobs; older ones are deleted once they have ended
INTERRUPTED = "the service stopped before the job was done; submit it again"

_OPEN = "state IN ('queued', 'running')"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, adapter TEXT NOT NULL,
    worker TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL, wanted TEXT NOT NULL,
    result TEXT, error TEXT
) STRICT;
"""


# Jobs from before there were keys have no owner of their own.
_OWNER = ("jobs", "owner", f"TEXT NOT NULL DEFAULT '{LOCAL}'")


@dataclass(frozen=True)
class JobRow:
    """A job: its request, state and outcome.

    Attributes:
        owner: who submitted it.
        adapter: id of the adapter that it is about; empty until there is one.
        progress: from 0 to 1.
        request: the JSON that it was asked for with.
        result: of a job that is done.
        error: one sentence, of a job that failed or was interrupted.
    """

    id: str
    owner: str
    adapter: str
    state: State
    progress: float
    request: dict[str, Any]
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def kind(self) -> Kind:
        """What it does; jobs from before there were kinds verify."""
        return self.request.get("kind", "verify")


class Cancelled(LorasmithError):
    """A job that somebody cancelled while it ran."""


class JobStore:
    """The jobs of one data folder.

    Args:
        folder: holds `jobs.sqlite3` and the locks of working processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Also a damaged file is reported: jobs can be asked for again once it is removed.
        self._database = SqliteFile(
            folder / "jobs.sqlite3", _SCHEMA, "the job store", sqlite3.DatabaseError, (_OWNER,), 1
        )
        self._lock: FileLock | None = None
        self._guard = threading.Lock()

    def prepare(self) -> None:
        """Bring the file up to date. Raises StorageFailed."""
        self._database.prepare()

    def add(self, owner: str, adapter: str, request: Mapping[str, Any]) -> JobRow:
        """A new job, queued with this process. Raises StorageFailed."""
        identity = f"job_{secrets.token_hex(16)}"
        worker = self._worker()
        with self._database.transaction() as rows:
            rows.execute(
                "INSERT INTO jobs (id, owner, adapter, worker, state, progress, wanted)"
                " VALUES (?, ?, ?, ?, 'queued', 0, ?)",
                (identity, owner, adapter, worker, json.dumps(request)),
            )
            rows.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running') AND number NOT IN"
                " (SELECT number FROM jobs ORDER BY number DESC LIMIT ?)",
                (HISTORY,),
            )
        return JobRow(identity, owner, adapter, "queued", 0.0, dict(request))

    def adopt(self) -> JobRow | None:
        """The oldest job that waits with a process that is no more, now with this one.

        None if there is no such job. Raises StorageFailed.
        """
        if not self._database.path.exists():
            return None
        waiting = "SELECT DISTINCT worker FROM jobs WHERE state = 'queued'"
        gone = [w for (w,) in self._database.query(waiting) if not self._alive(w)]
        if not gone:
            return None
        worker = self._worker()
        with self._database.transaction() as rows:
            row = rows.execute(
                f"UPDATE jobs SET worker = ? WHERE number = (SELECT min(number) FROM jobs WHERE"
                f" state = 'queued' AND worker IN ({', '.join('?' * len(gone))}))"
                " RETURNING id, owner, adapter, state, progress, wanted",
                (worker, *gone),
            ).fetchone()
        if row is None:
            return None  # another process was quicker
        identity, owner, adapter, state, progress, request = row
        return JobRow(identity, owner, adapter, state, progress, json.loads(request))

    def get(self, identity: str, owner: str | None = None) -> JobRow:
        """The job in its present state, if it is the owner's, or anybody's where that is None.

        Raises NotFound.
        """
        columns = "id, owner, adapter, state, progress, wanted, result, error, worker"
        rows = self._database.query(
            f"SELECT {columns} FROM jobs WHERE id = ?1 AND owner = coalesce(?2, owner)",
            *(identity, owner),
        )
        if not rows:
            raise NotFound("there is no such job")
        *fields, request, result, error, worker = rows[0]
        details = {"request": json.loads(request), "result": json.loads(result or "null")}
        job = JobRow(*fields, **details, error=error)
        if job.state == "running" and not self._alive(worker):
            return replace(job, state="interrupted", error=INTERRUPTED)
        return job

    def advance(self, identity: str, progress: float) -> None:
        """Record that the job is running, and its progress, which never decreases.

        Raises Cancelled.
        """
        running = self._database.query(
            "UPDATE jobs SET state = 'running', progress = max(progress, ?)"
            f" WHERE id = ? AND {_OPEN} RETURNING id",
            min(progress, 1.0),
            identity,
        )
        if not running:
            raise Cancelled("the job was cancelled")

    def complete(self, identity: str, keep: Keep) -> None:
        """Record that a job is done, with what `keep` returns.

        What `keep` stores is stored before the job can be cancelled, or not at all.
        Raises Cancelled, StorageFailed, and as `keep` does.
        """
        with self._database.transaction() as rows:
            query = f"SELECT 1 FROM jobs WHERE id = ? AND {_OPEN}"
            if rows.execute(query, (identity,)).fetchone() is None:
                raise Cancelled("the job was cancelled")
            result = keep()
            rows.execute(
                "UPDATE jobs SET state = 'done', progress = 1, result = ?1,"
                " adapter = iif(adapter = '', ?2, adapter) WHERE id = ?3",
                (json.dumps(result), result.get("id", ""), identity),
            )

    def fail(self, identity: str, state: Literal["failed", "interrupted"], error: str) -> None:
        """Record the end of a job without a result, unless it was cancelled."""
        self._database.query(
            f"UPDATE jobs SET state = ?, error = ? WHERE id = ? AND {_OPEN}",
            state,
            error,
            identity,
        )

    def cancel(self, identity: str) -> JobRow:
        """Cancel a job unless it has ended; the job as it is then. Raises NotFound."""
        if self.get(identity).state in ("queued", "running"):
            self._database.query(
                f"UPDATE jobs SET state = 'cancelled' WHERE id = ? AND {_OPEN}", identity
            )
        return self.get(identity)

    def close(self) -> None:
        """Release the lock: what this process has begun and not finished counts as interrupted."""
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
