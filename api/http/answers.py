"""Stored records and jobs as bodies of responses."""

from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from api.http.schemas import AdapterAnswer
from api.service.job_store import JobRow
from api.service.store import StoredRecord

LOCATION: dict[str, Any] = {"Location": {"schema": {"type": "string"}}}
ACCEPTED: dict[str, Any] = {"description": "The job is queued.", "headers": LOCATION}


def adapter_url(record: StoredRecord) -> str:
    """Path of a stored adapter."""
    return f"/v1/adapters/{record['id']}"


def adapter_body(record: StoredRecord) -> dict[str, Any]:
    """A stored adapter as JSON; what an older record lacks is null."""
    files = {
        name: {"url": f"{adapter_url(record)}/files/{name}", **file}
        for name, file in record["files"].items()
    }
    return {name: record.get(name) for name in AdapterAnswer.model_fields} | {"files": files}


def job_response(job: JobRow) -> Response:
    """A job."""
    return JSONResponse(job_body(job))


def accepted(job: JobRow) -> Response:
    """202 for a job that was queued."""
    return JSONResponse(job_body(job), 202, {"Location": f"/v1/jobs/{job.id}"})


def job_body(job: JobRow) -> dict[str, Any]:
    """A job as JSON."""
    result = job.result
    if result is not None and job.kind in ("create", "refine"):
        result = adapter_body(result)
    return {
        "id": job.id,
        "kind": job.kind,
        "adapter": job.adapter or None,
        "state": job.state,
        "progress": job.progress,
        "result": result,
        "error": job.error,
        "hooks": job.request.get("hooks"),
    }
