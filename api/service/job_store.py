"""Jobs and their results in a database, where they outlive the process that ran them.

Those that wait are in no process's hands: whichever is free takes the oldest, and one alone does.
A process gives signs of life of the job that it runs; without them the job was interrupted, and
whoever looks at it first records that, so that it never ends otherwise.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.exc import DatabaseError

from api.errors import NotFound, StorageFailed
from api.service.database import Database, run
from api.service.tables import JOBS, jobs
from library.errors import LorasmithError

Kind = Literal["verify", "create", "refine", "compose", "promote"]
State = Literal["queued", "running", "done", "failed", "interrupted", "cancelled"]
Keep = Callable[[], Mapping[str, Any]]
JOB_ID = re.compile(r"job_[0-9a-f]{32}")
HISTORY = 1000  # jobs; older ones are deleted once they have ended
BEAT_SECONDS = 5  # between two signs of life of a running job
SILENT_SECONDS = 30  # without one, after which its process counts as gone
INTERRUPTED = "the service stopped before the job was done; submit it again"

_OPEN = "state IN ('queued', 'running')"
_FIELDS = "id, owner, adapter, state, progress, wanted, result, error"


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
    """The jobs of a service.

    Args:
        folder: holds `jobs.sqlite3`.
        database: URL of PostgreSQL in place of that.

    Attributes:
        worker: name of this process, for the job that it runs.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.worker = secrets.token_hex(8)
        # Also a damaged file is reported: jobs can be asked for again once it is removed.
        file, label = folder / "jobs.sqlite3", "the job store"
        self._database = Database(file, JOBS, label, database, failure=DatabaseError, version=2)

    def prepare(self) -> None:
        """Bring the table up to date. Raises StorageFailed."""
        self._database.prepare()

    def add(
        self, owner: str, adapter: str, request: Mapping[str, Any], places: int = HISTORY
    ) -> JobRow | None:
        """A new job, queued; None if so many wait or are run by this process already.

        Raises StorageFailed.
        """
        identity, now = f"job_{secrets.token_hex(16)}", time.time()
        with self._database.transaction() as rows:
            if run(rows, _TAKEN_PLACES, worker=self.worker).scalar_one() >= places:
                return None
            run(
                rows,
                "INSERT INTO jobs"
                " (id, owner, adapter, worker, state, progress, wanted, asked, heard) VALUES"
                " (:id, :owner, :adapter, '', 'queued', 0, :wanted, :now, :now)",
                id=identity,
                owner=owner,
                adapter=adapter,
                wanted=json.dumps(request),
                now=now,
            )
            run(
                rows,
                f"DELETE FROM jobs WHERE NOT {_OPEN} AND number NOT IN"
                " (SELECT number FROM jobs ORDER BY number DESC LIMIT :most)",
                most=HISTORY,
            )
        return JobRow(identity, owner, adapter, "queued", 0.0, dict(request))

    def take(self) -> tuple[JobRow, float] | None:
        """The oldest job that waits, now running with this process, and the seconds it waited.

        None if there is no such job. To be called when this process runs none: one that it still
        had, as its end could not be stored, was interrupted. Raises StorageFailed.
        """
        if not self._database.exists:
            return None
        self.close()
        now = time.time()
        oldest = select(jobs.c.number).where(jobs.c.state == "queued").order_by(jobs.c.number)
        one = oldest.limit(1).with_for_update(skip_locked=True).scalar_subquery()
        fields = [jobs.c[name] for name in _FIELDS.split(", ")]
        taken = update(jobs).where(jobs.c.number == one, jobs.c.state == "queued")
        taken = taken.values(state="running", worker=self.worker, heard=now)
        with self._database.connection() as rows:
            found = rows.execute(taken.returning(*fields, jobs.c.asked)).first()
        if found is None:
            return None
        asked = found[-1] or now  # of jobs from before it was noted
        return _job(found[:-1]), max(0.0, now - asked)

    def give_back(self, identity: str) -> None:
        """Let a job that was taken and not begun wait again. Raises StorageFailed."""
        self._database.query(
            f"UPDATE jobs SET state = 'queued', worker = '' WHERE id = :id AND {_OPEN}", id=identity
        )

    def waiting(self) -> int:
        """How many wait, for whichever process. Raises StorageFailed."""
        return self._database.query("SELECT count(*) FROM jobs WHERE state = 'queued'")[0][0]

    def get(self, identity: str, owner: str | None = None) -> JobRow:
        """The job in its present state, if it is the owner's, or anybody's where that is None.

        Raises NotFound.
        """
        found = self._database.query(
            f"SELECT {_FIELDS}, worker, heard FROM jobs"
            " WHERE id = :id AND owner = coalesce(:owner, owner)",
            id=identity,
            owner=owner,
        )
        if not found:
            raise NotFound("there is no such job")
        *fields, worker, heard = found[0]
        job = _job(fields)
        silent = abs(time.time() - heard) > SILENT_SECONDS  # clocks are also put back
        silent &= time.monotonic() - self._database.away > SILENT_SECONDS  # else nobody was heard
        if job.state == "running" and worker != self.worker and silent:
            return self._interrupted(job, heard)
        return job

    def _interrupted(self, job: JobRow, heard: float) -> JobRow:
        """A job whose process is silent, unless that is heard of at this very moment."""
        with suppress(StorageFailed):  # who reads needs no disk that can be written
            if not self._database.query(
                "UPDATE jobs SET state = 'interrupted', error = :error"
                " WHERE id = :id AND state = 'running' AND heard = :heard RETURNING id",
                id=job.id,
                error=INTERRUPTED,
                heard=heard,
            ):
                return self.get(job.id)
        return replace(job, state="interrupted", error=INTERRUPTED)

    def beat(self, identity: str) -> None:
        """A sign of life of the job that this process runs. Raises StorageFailed."""
        self._database.query(
            "UPDATE jobs SET heard = :now"
            " WHERE id = :id AND state = 'running' AND worker = :worker",
            id=identity,
            now=time.time(),
            worker=self.worker,
        )

    def advance(self, identity: str, progress: float) -> None:
        """Record that the job runs here, and its progress, which never decreases.

        Raises Cancelled.
        """
        running = self._database.query(
            "UPDATE jobs SET state = 'running', worker = :worker, heard = :now,"
            " progress = CASE WHEN progress < :progress THEN :progress ELSE progress END"
            f" WHERE id = :id AND {_OPEN} RETURNING id",
            id=identity,
            progress=min(progress, 1.0),
            worker=self.worker,
            now=time.time(),
        )
        if not running:
            raise Cancelled("the job was cancelled")

    def complete(self, identity: str, keep: Keep) -> None:
        """Record that a job is done, with what `keep` returns.

        What `keep` stores is stored before the job can be cancelled, or not at all.
        Raises Cancelled, StorageFailed, and as `keep` does.
        """
        with self._database.transaction(exclusive=False) as rows:
            # The change locks the row, which whoever cancels waits for.
            still = f"UPDATE jobs SET heard = :now WHERE id = :id AND {_OPEN} RETURNING id"
            if run(rows, still, id=identity, now=time.time()).first() is None:
                raise Cancelled("the job was cancelled")
            result = keep()
            run(
                rows,
                "UPDATE jobs SET state = 'done', progress = 1, result = :result,"
                " adapter = CASE adapter WHEN '' THEN :made ELSE adapter END WHERE id = :id",
                id=identity,
                result=json.dumps(result),
                made=result.get("id", ""),
            )

    def fail(self, identity: str, state: Literal["failed", "interrupted"], error: str) -> None:
        """Record the end of a job without a result, unless it was cancelled."""
        self._database.query(
            f"UPDATE jobs SET state = :state, error = :error WHERE id = :id AND {_OPEN}",
            id=identity,
            state=state,
            error=error,
        )

    def cancel(self, identity: str) -> JobRow:
        """Cancel a job unless it has ended; the job as it is then. Raises NotFound."""
        if self.get(identity).state in ("queued", "running"):
            self._database.query(
                f"UPDATE jobs SET state = 'cancelled' WHERE id = :id AND {_OPEN}", id=identity
            )
        return self.get(identity)

    def close(self) -> None:
        """What this process has begun and not finished is interrupted. Raises StorageFailed."""
        if not self._database.exists:
            return
        self._database.query(
            "UPDATE jobs SET state = 'interrupted', error = :error"
            " WHERE worker = :worker AND state = 'running'",
            worker=self.worker,
            error=INTERRUPTED,
        )


_TAKEN_PLACES = (
    "SELECT count(*) FROM jobs WHERE state = 'queued' OR (state = 'running' AND worker = :worker)"
)


def _job(fields: Sequence[Any]) -> JobRow:
    *known, request, result, error = fields
    details = {"request": json.loads(request), "result": json.loads(result or "null")}
    return JobRow(*known, **details, error=error)
