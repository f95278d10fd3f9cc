"""Background jobs: a bounded queue and one worker, in a thread beside the event loop."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from api.errors import NotReady, Overloaded, QuotaExceeded, StorageFailed
from api.service.admission import ENDING, Admission, Waited, unobserved
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
        waited: called with the seconds that a job waited, when it begins.

    Attributes:
        running: how many run, 0 or 1.
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
        self._admission = Admission("jobs", waiting=waiting, retry_after=retry_after)
        self._stopping = threading.Event()
        self._queue: MemoryObjectSendStream[JobRow] | None = None
        self._waiting: dict[str, float] = {}  # when each job came that holds a place in the queue

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

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
            self._line_up(queue, job)
        except BaseException as error:
            self._admission.leave()
            if isinstance(error, anyio.ClosedResourceError):
                raise NotReady(ENDING, self._admission.retry_after) from error
            raise
        return job

    async def cancel(self, identity: str) -> JobRow:
        """Cancel a job unless it has ended; one that waits makes room. Raises NotFound.

        For the event loop's thread only.
        """
        job = await to_thread.run_sync(self.store.cancel, identity)
        if self._waiting.pop(identity, None) is not None:
            self._admission.leave()
        return job

    async def run(self) -> None:
        """Work until `stop`; jobs that wait then are for the next process that works on jobs."""
        send, receive = anyio.create_memory_object_stream[JobRow](math.inf)
        self._stopping.clear()
        try:
            with send, receive:
                self._queue = send
                await self._adopt()
                async for job in receive:
                    came = self._waiting.pop(job.id, None)
                    if came is None or self._stopping.is_set():
                        continue
                    self._waited(time.monotonic() - came)
                    self.running = 1
                    try:
                        await to_thread.run_sync(self._one, job)
                    finally:
                        self.running = 0
                        self._admission.leave()
                    await self._adopt()
        finally:
            self.store.close()

    async def _adopt(self) -> None:
        """Queue what waits with processes that were stopped or killed, as far as there is room."""
        while (queue := self._queue) is not None:
            try:
                self._admission.enter()
            except (NotReady, Overloaded):
                return
            job = None
            try:
                job = await to_thread.run_sync(self.store.adopt)
                if job is not None:
                    self._line_up(queue, job)
            except StorageFailed:
                _log.exception("jobs of an earlier process cannot be looked for")
            except anyio.ClosedResourceError:
                job = None  # stopped meanwhile: it is for the next process
            finally:
                if job is None:
                    self._admission.leave()
            if job is None:
                return

    def _line_up(self, queue: MemoryObjectSendStream[JobRow], job: JobRow) -> None:
        queue.send_nowait(job)
        self._waiting[job.id] = time.monotonic()

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
