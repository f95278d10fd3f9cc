"""Background jobs: a bounded queue and one worker, in a thread beside the event loop."""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from api.errors import NotReady, QuotaExceeded
from api.service.admission import Admission
from api.service.job_store import INTERRUPTED, Cancelled, JobRow, JobStore, Keep
from generator.refine.process import TrainingLost
from library.errors import AdapterRefused, LorasmithError, MissingPath

Share = Callable[[float], None]  # called with the share of a job that is done
Work = Callable[[JobRow, Share], Keep]
FAILED = "internal error; the log of the service has the details"


class Stopped(LorasmithError):
    """The service is being stopped."""


class Jobs:
    """Runs jobs one after another, in the order in which they were asked for.

    Args:
        store: records jobs and their results.
        work: runs a job and returns what stores and gives its result, which is called unless the
            job was cancelled. It often calls the function that it gets with the share that is
            done; that call ends a job that is to stop.
        waiting: how many may wait while one runs.
        retry_after: seconds that a refused client is told to wait.
    """

    def __init__(self, store: JobStore, work: Work, *, waiting: int, retry_after: int) -> None:
        self.store, self._work = store, work
        self._admission = Admission("jobs", waiting=waiting, retry_after=retry_after)
        self._stopping = threading.Event()
        self._queue: MemoryObjectSendStream[JobRow] | None = None
        self._waiting: set[str] = set()  # ids of jobs that hold a place in the queue

    async def submit(self, owner: str, adapter: str, request: Mapping[str, Any]) -> JobRow:
        """Queue a job of `owner`'s. For the event loop's thread only.

        Raises:
            NotReady: the worker has not been started, or is being stopped.
            Overloaded: the queue is full.
            StorageFailed: it cannot be stored.
        """
        queue = self._queue
        if queue is None:
            raise NotReady("the service does not run jobs yet", self._admission.retry_after)
        self._admission.enter()
        try:
            job = await to_thread.run_sync(self.store.add, owner, adapter, request)
            queue.send_nowait(job)
            self._waiting.add(job.id)
        except BaseException as error:
            self._admission.leave()
            if isinstance(error, anyio.ClosedResourceError):
                message = "the service is being stopped"
                raise NotReady(message, self._admission.retry_after) from error
            raise
        return job

    async def cancel(self, identity: str) -> JobRow:
        """Cancel a job unless it has ended; one that waits makes room. Raises NotFound.

        For the event loop's thread only.
        """
        job = await to_thread.run_sync(self.store.cancel, identity)
        if identity in self._waiting:
            self._waiting.remove(identity)
            self._admission.leave()
        return job

    async def run(self) -> None:
        """Work until `stop`; jobs that remain then are marked as interrupted."""
        send, receive = anyio.create_memory_object_stream[JobRow](math.inf)
        self._stopping.clear()
        try:
            with send, receive:
                self._queue = send
                async for job in receive:
                    if job.id not in self._waiting:
                        continue
                    self._waiting.remove(job.id)
                    try:
                        await to_thread.run_sync(self._one, job)
                    finally:
                        self._admission.leave()
        finally:
            self.store.close()

    def stop(self) -> None:
        """Accept no more jobs; the running one ends when it next reports progress."""
        self._stopping.set()
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _one(self, job: JobRow) -> None:
        """Run one job in a thread; its outcome is stored whatever happens."""

        def progress(share: float) -> None:
            if self._stopping.is_set():
                raise Stopped(INTERRUPTED)
            self.store.advance(job.id, share)

        try:
            progress(0.0)
            self.store.complete(job.id, self._work(job, progress))
        except Cancelled:
            pass  # who cancelled it has recorded that
        except Stopped as error:
            self._close(job, "interrupted", str(error))
        except Exception as error:
            shown = _is_shown(error)
            if not shown:
                _log.exception("job %s failed", job.id)
            self._close(job, "failed", str(error) if shown else FAILED)

    def _close(self, job: JobRow, state: Literal["failed", "interrupted"], error: str) -> None:
        try:
            self.store.fail(job.id, state, error)
        except Exception:
            _log.exception("the end of job %s cannot be stored", job.id)


def _is_shown(error: Exception) -> bool:
    """True for errors of the request: those of the service may name its files."""
    if isinstance(error, NotReady | QuotaExceeded | AdapterRefused | TrainingLost):
        return True
    return (
        isinstance(error, LorasmithError)
        and error.status < 500
        and not isinstance(error, MissingPath)
    )


_log = logging.getLogger("lorasmith.api")
