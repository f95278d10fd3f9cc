"""Background jobs: a bounded queue and one worker, in a thread beside the event loop.

The queue is the store's, so that several processes may work on it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Literal

import anyio
from anyio import to_thread

from api.errors import NotReady, Overloaded, QuotaExceeded, StorageFailed, StorageUnreachable
from api.service.admission import ENDING, Waited, unobserved
from api.service.job_store import BEAT_SECONDS, INTERRUPTED, Cancelled, JobRow, JobStore, Keep
from generator.refine.process import TrainingLost
from library.errors import AdapterRefused, LorasmithError, MissingPath

Share = Callable[[float], None]  # called with the share of a job that is done
Work = Callable[[JobRow, Share], Keep]
LOOK_SECONDS = 1.0  # between two looks at what others have submitted
PATIENCE_SECONDS = 300  # for a database that does not answer, with a result that is to be stored
FAILED = "internal error; the log of the service has the details"


class Stopped(LorasmithError):
    """The service is being stopped."""


class Jobs:
    """Runs jobs one after another, in the order in which they were asked for.

    Args:
        store: records jobs and their results; other processes may take jobs from it too.
        work: runs a job and returns what stores and gives its result, which is called unless the
            job was cancelled. It often calls the function that it gets with the share that is
            done; that call ends a job that is to stop.
        waiting: how many may wait while one runs.
        retry_after: seconds that a refused client is told to wait.
        waited: called with the seconds that a job waited, when it begins.

    Attributes:
        running: how many run here, 0 or 1.
    """

    def __init__(
        self,
        store: JobStore,
        work: Work,
        *,
        waiting: int,
        retry_after: int,
        waited: Waited = unobserved,
    ) -> None:
        self.store, self._work, self._waited, self.running = store, work, waited, 0
        self._places, self._retry_after = waiting + 1, retry_after
        self._stopping = threading.Event()
        self._asked: anyio.Event | None = None  # set when there may be a job; None: not started

    async def submit(self, owner: str, adapter: str, request: Mapping[str, Any]) -> JobRow:
        """Queue a job of `owner`'s. For the event loop's thread only.

        Raises:
            NotReady: the worker has not been started, or is being stopped.
            Overloaded: the queue is full.
            StorageFailed: it cannot be stored.
        """
        if self._asked is None or self._stopping.is_set():
            told = ENDING if self._stopping.is_set() else "the service does not run jobs yet"
            raise NotReady(told, self._retry_after)
        add = self.store.add
        job = await to_thread.run_sync(add, owner, adapter, request, self._places)
        if job is None:
            message = f"{self._places} jobs are running or waiting; try again later"
            raise Overloaded(message, self._retry_after)
        self._asked.set()
        return job

    async def cancel(self, identity: str) -> JobRow:
        """Cancel a job unless it has ended; one that waits makes room. Raises NotFound."""
        return await to_thread.run_sync(self.store.cancel, identity)

    async def run(self) -> None:
        """Work until `stop`; jobs that wait then are for the next process that works on jobs."""
        self._stopping.clear()
        self._asked = anyio.Event()
        while not self._stopping.is_set():
            taken = await to_thread.run_sync(self._take)
            if taken is None:
                with anyio.move_on_after(LOOK_SECONDS):  # others may submit jobs too
                    await self._asked.wait()
                self._asked = anyio.Event()
                continue
            job, waited = taken
            self._waited(waited)
            self.running = 1
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._beat, job)
                    await to_thread.run_sync(self._one, job)
                    group.cancel_scope.cancel()
            finally:
                self.running = 0

    def stop(self) -> None:
        """Accept no more jobs; the running one ends when it next reports progress."""
        self._stopping.set()
        if self._asked is not None:
            self._asked.set()

    def _take(self) -> tuple[JobRow, float] | None:
        """The next job to run here, if there is one and time for it."""
        try:
            taken = self.store.take()
            if taken is not None and self._stopping.is_set():
                self.store.give_back(taken[0].id)
                return None
            return taken
        except StorageFailed as error:
            _log.error("jobs cannot be looked for: %s", error)
            return None

    async def _beat(self, job: JobRow) -> None:
        """Give signs of life until the job has ended."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            with suppress(StorageFailed):
                await to_thread.run_sync(self.store.beat, job.id)

    def _one(self, job: JobRow) -> None:
        """Run one job in a thread; its outcome is stored whatever happens."""

        def progress(share: float) -> None:
            if self._stopping.is_set():
                raise Stopped(INTERRUPTED)
            with suppress(StorageUnreachable):  # the work goes on; its end is what is to be stored
                self.store.advance(job.id, share)

        try:
            progress(0.0)
            self._complete(job, self._work(job, progress))
        except Cancelled:
            pass  # who cancelled it has recorded that
        except Stopped as error:
            self._close(job, "interrupted", str(error))
        except Exception as error:
            shown = _is_shown(error)
            if not shown:
                _log.exception("job %s failed", job.id)
            self._close(job, "failed", str(error) if shown else FAILED)

    def _complete(self, job: JobRow, keep: Keep) -> None:
        """Store the outcome, as soon as it can be. Raises as JobStore.complete."""
        keep = cache(keep)  # what was stored once is not stored again
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.store.complete(job.id, keep)
            except StorageUnreachable:
                if self._stopping.is_set() or time.monotonic() > end:
                    raise
            self._stopping.wait(LOOK_SECONDS)

    def _close(self, job: JobRow, state: Literal["failed", "interrupted"], error: str) -> None:
        try:
            self.store.fail(job.id, state, error)
        except Exception:
            _log.exception("the end of job %s cannot be stored", job.id)


_SHOWN = NotReady, QuotaExceeded, AdapterRefused, TrainingLost, StorageUnreachable


def _is_shown(error: Exception) -> bool:
    """True for errors of the request: those of the service may name its files."""
    if isinstance(error, _SHOWN):
        return True
    return (
        isinstance(error, LorasmithError)
        and error.status < 500
        and not isinstance(error, MissingPath)
    )


_log = logging.getLogger("lorasmith.api")
