"""`/v1/adapters`: create and delete adapters, show them and download their files."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from api.http.body import JsonRoute
from api.http.dependencies import ServiceOf
from api.http.downloads import BYTES, file_response, wants_bytes
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.schemas import AdapterAnswer, AdapterRequest
from api.service.store import ADAPTER_ID, LOCAL, StoredRecord
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from verification.run import server_timing

MEDIA_TYPES = {
    CONFIG_FILE: "application/json",
    WEIGHTS_FILE: BYTES,
    PROVENANCE_FILE: "application/json",
}
_BINARY: dict[str, Any] = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
_HEADERS: dict[str, Any] = {
    "Location": {"schema": {"type": "string"}},
    "X-Adapter-Id": {"schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Duration of each verification hook.",
        "schema": {"type": "string"},
    },
}

# Neither is validated: an id or name that no adapter can have is not found (404).
AdapterId = Annotated[str, Path(json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"})]
FileName = Annotated[str, Path(json_schema_extra={"enum": sorted(MEDIA_TYPES)})]

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)


@router.post(
    "",
    status_code=201,
    response_model=AdapterAnswer,
    responses={
        200: {
            "description": "The adapter existed already.",
            "model": AdapterAnswer,
            "content": _BINARY,
            "headers": _HEADERS,
        },
        201: {"description": "The new adapter.", "content": _BINARY, "headers": _HEADERS},
        **documented(
            *JSON_BODY,
            *BUSY,
            "layout-mismatch",
            "invalid-description",
            "unknown-name",
            "unsupported-model",
            "base-unreadable",
            "internal",
            "adapter-refused",
            "quota-exceeded",
            "storage-failed",
        ),
    },
)
async def create_adapter(body: AdapterRequest, request: Request, service: ServiceOf) -> Response:
    """Create an adapter from a description; the same request returns the same adapter.

    With `Accept: application/octet-stream` the response is adapter_model.safetensors itself.
    """
    adapter = await service.create(body.generator, body.to_request(), body.base)
    status = 201 if adapter.new else 200
    headers = {
        "Location": _url(adapter.record),
        "X-Adapter-Id": adapter.record["id"],
        "Server-Timing": server_timing(adapter.milliseconds),
    }
    if wants_bytes(request.headers.get("accept", "")):
        return Response(adapter.weights, status, headers, BYTES)
    return JSONResponse(_answer(adapter.record), status, headers)


@router.get("/{id}", response_model=AdapterAnswer, responses=documented("not-found"))
def get_adapter(id: AdapterId, service: ServiceOf) -> Response:
    """Get an adapter."""
    return JSONResponse(_answer(service.store.get(LOCAL, id)))


@router.delete("/{id}", status_code=204, responses=documented("not-found"))
def delete_adapter(id: AdapterId, service: ServiceOf) -> None:
    """Delete an adapter."""
    service.store.delete(LOCAL, id)


@router.head("/{id}/files/{name}", include_in_schema=False)
@router.get(
    "/{id}/files/{name}",
    response_class=Response,
    responses={
        200: {
            "description": "The file; its ETag is its SHA-256.",
            "content": {**_BINARY, "application/json": {"schema": {"type": "object"}}},
        },
        206: {"description": "The range that was requested.", "content": _BINARY},
        304: {"description": "The client's copy is current."},
        **documented("not-found", "range-not-satisfiable"),
    },
)
def get_file(id: AdapterId, name: FileName, request: Request, service: ServiceOf) -> Response:
    """Download a file of an adapter, or a range of it."""
    _, sha256 = service.store.read(LOCAL, id, name)  # the digest is checked here
    return file_response(request, service.store.path(id, name), sha256, MEDIA_TYPES[name])


def _url(record: StoredRecord) -> str:
    return f"/v1/adapters/{record['id']}"


def _answer(record: StoredRecord) -> dict[str, Any]:
    files = {
        name: {"url": f"{_url(record)}/files/{name}", **file}
        for name, file in record["files"].items()
    }
    return {**record, "files": files}
