"""Stored records and jobs as bodies of responses."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from api.http.downloads import BYTES, wants_bytes
from api.http.schemas import AdapterAnswer
from api.service.callers import Caller
from api.service.job_store import JobRow
from api.service.making import Created
from api.service.service import Service
from api.service.store import StoredRecord
from library.peft.write import WEIGHTS_FILE
from verification.run import server_timing

LOCATION: dict[str, Any] = {"Location": {"schema": {"type": "string"}}}
_MADE_BY = ("create", "refine", "compose")  # kinds of jobs whose result is an adapter
ACCEPTED: dict[str, Any] = {"description": "The job is queued.", "headers": LOCATION}

BINARY: dict[str, Any] = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
_HEADERS: dict[str, Any] = {
    **LOCATION,
    "X-Adapter-Id": {"schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Duration of each verification hook.",
        "schema": {"type": "string"},
    },
}
_KEPT: dict[str, Any] = {"model": AdapterAnswer, "content": BINARY, "headers": _HEADERS}
CREATED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The adapter existed already.", **_KEPT},
    201: {"description": "The new adapter.", **_KEPT},
}


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


async def created(request: Request, service: Service, caller: Caller, adapter: Created) -> Response:
    """201 for a new adapter, 200 for one that is there already; its weights for who wants bytes."""
    status, identity = 201 if adapter.new else 200, adapter.record["id"]
    headers = {"Location": adapter_url(adapter.record), "X-Adapter-Id": identity}
    if adapter.milliseconds:
        headers["Server-Timing"] = server_timing(adapter.milliseconds)
    if wants_bytes(request.headers.get("accept", "")):
        read = partial(service.store.read, caller.owner, identity, WEIGHTS_FILE)
        weights, _ = await to_thread.run_sync(read)
        return Response(weights, status, headers, BYTES)
    return JSONResponse(adapter_body(adapter.record), status, headers)


def job_response(job: JobRow) -> Response:
    """A job."""
    return JSONResponse(job_body(job))


def accepted(job: JobRow) -> Response:
    """202 for a job that was queued."""
    return JSONResponse(job_body(job), 202, {"Location": f"/v1/jobs/{job.id}"})


def job_body(job: JobRow) -> dict[str, Any]:
    """A job as JSON."""
    result = job.result
    if result is not None and job.kind in _MADE_BY:
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
