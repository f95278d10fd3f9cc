"""Jobs: work of the service in the background."""

import time
from typing import TypeVar

from lorasmith_client.answers import Job
from lorasmith_client.errors import JobFailed, JobTimeout
from lorasmith_client.flow import Flow, Pause, delete, get, segment
from lorasmith_client.parsing import parsed

T = TypeVar("T")
LOOK_SECONDS = 0.5  # between two looks at a job, as often as the service looks itself


def get_job(job: str) -> Flow[Job]:
    """A job as it is now, by its id."""
    return parsed(Job, (yield from get(f"/v1/jobs/{segment(job)}")))


def cancel(job: str) -> Flow[Job]:
    """Cancel a job; one that has ended stays as it is, so look at its state."""
    return parsed(Job, (yield from delete(f"/v1/jobs/{segment(job)}")))


def wait(job: str, seconds: float | None = None) -> Flow[Job]:
    """A job once it has ended.

    Args:
        seconds: how long to wait at most (default: as long as it takes).
    Raises JobTimeout.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while not (now := (yield from get_job(job))).ended:
        if end is not None and time.monotonic() >= end:
            raise JobTimeout(f"{job} is {now.state} after {seconds:g} seconds")
        yield Pause(LOOK_SECONDS)
    return now


def result(job: Job, kind: type[T]) -> Flow[T]:
    """The result of a job, of which kind it is; waits for it. Raises JobFailed."""
    ended = yield from wait(job.id)
    if not isinstance(ended.result, kind):
        raise JobFailed(ended)
    return ended.result
