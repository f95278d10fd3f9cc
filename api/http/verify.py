"""`POST /v1/adapters/{id}/verify` and `/v1/jobs`: verification in the background."""

from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from api.http.adapters import AdapterId
from api.http.body import JsonRoute
from api.http.dependencies import ServiceOf
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.schemas import JobAnswer, JobId, VerifyRequest
from api.service.job_store import JobRow

router = APIRouter(prefix="/v1", tags=["verification"], route_class=JsonRoute)


@router.post(
    "/adapters/{id}/verify",
    status_code=202,
    response_model=JobAnswer,
    responses={
        202: {
            "description": "The job is queued.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **documented(
            *JSON_BODY, *BUSY, "not-found", "unknown-name", "extra-missing", "storage-failed"
        ),
    },
)
async def verify_adapter(
    id: AdapterId, service: ServiceOf, body: VerifyRequest | None = None
) -> Response:
    """Verify an adapter in the background; without a body, by all hooks but zk."""
    job = await service.verify(id, **(body or VerifyRequest()).arguments())
    return _answer(job, 202, {"Location": f"/v1/jobs/{job.id}"})


@router.get("/jobs/{id}", response_model=JobAnswer, responses=documented("not-found"))
async def get_job(id: JobId, service: ServiceOf) -> Response:
    """Get a job: its state, progress and result."""
    return _answer(await to_thread.run_sync(service.job, id))


def _answer(job: JobRow, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body: dict[str, Any] = {**asdict(job), "hooks": job.request["hooks"]}
    del body["request"]
    return JSONResponse(body, status, headers)
