"""`/v1/jobs/{id}/events`: a job as it goes on, by server-sent events."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.errors import NotFound, StorageFailed
from api.http.answers import job_body
from api.http.dependencies import CallerOf, ServiceOf
from api.http.problems import documented
from api.http.schemas import JobId
from api.service.job_store import JobRow

LOOK_SECONDS = 0.5  # between two looks at a job, which another process may work on

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


async def _job(id: JobId, service: ServiceOf, caller: CallerOf) -> JobRow:
    """The job, before the stream begins: after that there is no 404."""
    return await to_thread.run_sync(service.job, caller, id)


@router.get("/{id}/events", response_class=EventSourceResponse, responses=documented("not-found"))
async def follow_job(
    id: JobId, service: ServiceOf, caller: CallerOf, job: Annotated[JobRow, Depends(_job)]
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: an event `progress` at once and at every change, then one with its last state.

    That is `done`, `failed`, `cancelled` or `interrupted`; then the stream ends. The data of every
    event is the whole job, so nothing is lost between two connections. The stream also ends when
    the service stops, or the job can no longer be seen.
    """
    sent, retry = None, 1000 * service.settings.retry_after
    with suppress(NotFound, StorageFailed):
        while not service.draining():
            if (job.state, job.progress) != sent:
                sent = job.state, job.progress
                event = "progress" if job.state in ("queued", "running") else job.state
                yield ServerSentEvent(data=job_body(job), event=event, retry=retry)
                if event == job.state:
                    return
            await anyio.sleep(LOOK_SECONDS)
            job = await to_thread.run_sync(service.job, caller, id)
