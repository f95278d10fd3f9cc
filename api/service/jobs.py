"""Background jobs: a bounded queue, one worker, work in a thread beside the event loop."""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from api.errors import NotReady, Overloaded
from api.service.job_store import INTERRUPTED, JobRow, JobStore
from library.errors import LorasmithError, MissingPath

Progress = Callable[[float], None]
Work = Callable[[JobRow, Progress], Mapping[str, Any]]
FAILED = "the service failed while working on the job; its log says more"


class Stopped(LorasmithError):
    """The job is not wanted any more, or the service is being stopped."""


class Jobs:
    """Runs jobs one after another, in the order in which they were asked for.

    Args:
        store: where they are kept.
        work: does one, and returns its result. It calls the given function with the share that is
            done, often: that is where it is stopped.
        waiting: how many may wait while one runs.
        retry_after: seconds that a refused caller is told to wait.
    """

    def __init__(self, store: JobStore, work: Work, *, waiting: int, retry_after: int) -> None:
        self.store, self._work = store, work
        self._places, self._retry_after = waiting + 1, retry_after
        self._taken = 0
        self._stopping = threading.Event()
        self._queue: MemoryObjectSendStream[JobRow] | None = None

    async def submit(self, adapter: str, wanted: Mapping[str, Any]) -> JobRow:
        """Queue a job. For the event loop's thread only.

        Raises:
            NotReady: the worker has not been started, or is being stopped.
            Overloaded: the queue is full.
            StorageFailed: it cannot be written down.
        """
        if self._queue is None:
            raise NotReady("jobs are not being worked on yet", self._retry_after)
        if self._taken >= self._places:
            raise Overloaded(
                f"{self._taken} jobs are queued or running already; try again later",
                self._retry_after,
            )
        queue = self._queue
        self._taken += 1
        try:
            job = await to_thread.run_sync(self.store.add, adapter, wanted)
            queue.send_nowait(job)
        except BaseException as error:
            self._taken -= 1
            if isinstance(error, anyio.ClosedResourceError):
                raise NotReady("the service is being stopped", self._retry_after) from error
            raise
        return job

    async def run(self) -> None:
        """Work until `stop`; what is left then is marked as interrupted."""
        send, receive = anyio.create_memory_object_stream[JobRow](math.inf)
        self._stopping.clear()
        try:
            with send, receive:
                self._queue = send
                async for job in receive:
                    try:
                        await to_thread.run_sync(self._one, job)
                    finally:
                        self._taken -= 1
        finally:
            self.store.close()

    def stop(self) -> None:
        """Take no more jobs; the running one ends at its next sign of progress."""
        self._stopping.set()
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _one(self, job: JobRow) -> None:
        """One job from start to end, in a thread; whatever happens is written down."""

        def progress(share: float) -> None:
            if self._stopping.is_set():
                raise Stopped(INTERRUPTED)
            self.store.advance(job.id, share)

        try:
            progress(0.0)
            self.store.finish(job.id, "done", self._work(job, progress))
        except Stopped as error:
            self._close(job, "interrupted", str(error))
        except Exception as error:
            if _tells(error):
                self._close(job, "failed", str(error))
            else:
                _log.exception("job %s failed", job.id)
                self._close(job, "failed", FAILED)

    def _close(self, job: JobRow, state: Any, error: str) -> None:
        try:
            self.store.finish(job.id, state, error=error)
        except Exception:
            _log.exception("the end of job %s cannot be written down", job.id)


def _tells(error: Exception) -> bool:
    """Whether an error is the asker's affair: others are the service's, and may name its files."""
    if isinstance(error, MissingPath) or not isinstance(error, LorasmithError):
        return False
    return error.status < 500 or isinstance(error, NotReady)


_log = logging.getLogger("lorasmith.api")
