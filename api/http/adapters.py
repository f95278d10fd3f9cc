"""`/v1/adapters`: create, list and delete adapters, show them and download their files."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from api.http.answers import (
    ACCEPTED,
    BINARY,
    CREATED,
    LOCATION,
    accepted,
    adapter_body,
    created,
)
from api.http.body import JsonRoute
from api.http.dependencies import CallerOf, ServiceOf
from api.http.downloads import BYTES, file_response
from api.http.idempotency import KEYED, OnceOf
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.requests import AdapterRequest, RefineRequest
from api.http.schemas import AdapterAnswer, AdapterList, JobAnswer
from api.service.job_store import JobRow
from api.service.name_state import REFERENCE
from api.service.store import ADAPTER_ID
from library.peft.provenance import PROVENANCE_FILE, README_FILE, SIGNATURE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

MEDIA_TYPES = {
    CONFIG_FILE: "application/json",
    WEIGHTS_FILE: BYTES,
    PROVENANCE_FILE: "application/json",
    SIGNATURE_FILE: "application/json",
    README_FILE: "text/markdown",
}
# The id follows from these. The others also tell what was near when the adapter was made.
IDENTIFIED = (CONFIG_FILE, WEIGHTS_FILE)
# Neither is validated: an id or name that no adapter can have is not found (404).
Called = Annotated[
    str,
    Path(
        alias="id",
        description="Id, or a name of yours with `@v2`, `@current` or nothing behind it.",
        json_schema_extra={"pattern": f"^({ADAPTER_ID.pattern}|{REFERENCE.pattern})$"},
    ),
]


async def _id_of(called: Called, service: ServiceOf, caller: CallerOf) -> str:
    """The id that a path means. Raises NotFound."""
    return await to_thread.run_sync(service.names.resolve, caller.owner, called)


AdapterId = Annotated[str, Depends(_id_of)]
Limit = Annotated[int, Query(ge=1, le=100, description="Largest number of adapters.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern=f"^{ADAPTER_ID.pattern}$",
        description="`next` of the page before; without it, the first page.",
    ),
]
FileName = Annotated[str, Path(json_schema_extra={"enum": sorted(MEDIA_TYPES)})]

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)


@router.post(
    "",
    status_code=201,
    response_model=AdapterAnswer,
    responses={
        **CREATED,
        202: {
            "description": "The job that trains it on the examples or inputs is queued; its result "
            "will be the new adapter.",
            "model": JobAnswer,
            "headers": LOCATION,
        },
        **documented(
            *JSON_BODY,
            *BUSY,
            *KEYED,
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
async def create_adapter(
    body: AdapterRequest, request: Request, service: ServiceOf, caller: CallerOf, once: OnceOf
) -> Response:
    """Create an adapter from a description; the same request returns the same adapter.

    With examples or inputs to train on, the answer is a job. Without, and with `Accept:
    application/octet-stream`, it is adapter_model.safetensors itself.
    """

    async def create() -> Response:
        made = await service.create(caller, body.generator, body.to_request(), body.base)
        if isinstance(made, JobRow):
            return accepted(made)
        return await created(request, service, caller, made)

    return await once(create)


@router.post(
    "/{id}/refine",
    status_code=202,
    response_model=JobAnswer,
    responses={
        202: ACCEPTED,
        **documented(
            *JSON_BODY,
            *BUSY,
            *KEYED,
            "not-found",
            "layout-mismatch",
            "unknown-name",
            "unsupported-model",
            "more-than-lora",
            "base-unreadable",
            "internal",
            "storage-failed",
        ),
    },
)
async def refine_stored(
    id: AdapterId, body: RefineRequest, service: ServiceOf, caller: CallerOf, once: OnceOf
) -> Response:
    """Train a stored adapter further, in the background, into a new adapter.

    On examples, on a teacher's answers to inputs, or on both.
    """

    async def refine() -> Response:
        return accepted(await service.refine(caller, id, body.to_request()))

    return await once(refine)


@router.get("", response_model=AdapterList, responses=documented("invalid-field", "storage-failed"))
def get_adapters(
    service: ServiceOf, caller: CallerOf, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """List the adapters of the caller, by id; an admin's are everybody's."""
    records, after = service.store.page(caller.sees, limit, cursor or "")
    return JSONResponse({"adapters": [adapter_body(record) for record in records], "next": after})


@router.get("/{id}", response_model=AdapterAnswer, responses=documented("not-found"))
def get_adapter(id: AdapterId, service: ServiceOf, caller: CallerOf) -> Response:
    """Get an adapter."""
    return JSONResponse(adapter_body(service.store.get(caller.sees, id)))


@router.delete("/{id}", status_code=204, responses=documented("not-found", "conflict"))
def delete_adapter(id: AdapterId, service: ServiceOf, caller: CallerOf) -> None:
    """Delete an adapter; one that is a version of a name stays as long as that."""
    service.store.delete(caller.sees, id)


@router.head("/{id}/files/{name}", include_in_schema=False)
@router.get(
    "/{id}/files/{name}",
    response_class=Response,
    responses={
        200: {
            "description": "The file; its ETag is its SHA-256.",
            "content": {
                **BINARY,
                "application/json": {"schema": {"type": "object"}},
                "text/markdown": {"schema": {"type": "string"}},
            },
        },
        206: {"description": "The range that was requested.", "content": BINARY},
        304: {"description": "The client's copy is current."},
        **documented("not-found", "range-not-satisfiable"),
    },
)
def get_file(
    id: AdapterId, name: FileName, request: Request, service: ServiceOf, caller: CallerOf
) -> Response:
    """Download a file of an adapter, or a range of it."""
    _, sha256 = service.store.read(caller.sees, id, name)  # the digest is checked here
    path, media_type = service.store.path(id, name), MEDIA_TYPES[name]
    lasting = name in IDENTIFIED and request.path_params["id"] == id  # a name may move
    return file_response(request, path, sha256, media_type, immutable=lasting)
