"""`/v1/jobs`: what became of work in the background."""

from anyio import to_thread
from fastapi import APIRouter, Response

from api.http.answers import job_response
from api.http.dependencies import CallerOf, ServiceOf
from api.http.problems import documented
from api.http.schemas import JobAnswer, JobId

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("/{id}", response_model=JobAnswer, responses=documented("not-found"))
async def get_job(id: JobId, service: ServiceOf, caller: CallerOf) -> Response:
    """Get a job: its state, progress and result."""
    return job_response(await to_thread.run_sync(service.job, caller, id))


@router.delete(
    "/{id}", response_model=JobAnswer, responses=documented("not-found", "storage-failed")
)
async def cancel_job(id: JobId, service: ServiceOf, caller: CallerOf) -> Response:
    """Cancel a job: nothing of it is stored. One that has ended stays as it is."""
    return job_response(await service.cancel(caller, id))
