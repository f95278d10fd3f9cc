"""`/v1/names`: names of adapters, their versions, and the gate between them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse

from api.http.answers import ACCEPTED, LOCATION, accepted
from api.http.body import JsonRoute
from api.http.dependencies import CallerOf, ServiceOf
from api.http.name_bodies import (
    NameAnswer,
    NameList,
    PromoteRequest,
    PromotionAnswer,
    PublishRequest,
    VersionAnswer,
)
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.schemas import JobAnswer
from api.service.name_state import NAME

# Not validated: a name that nothing can have is not found (404), and not published (422).
NameOf = Annotated[str, Path(alias="name", json_schema_extra={"pattern": f"^{NAME.pattern}$"})]

router = APIRouter(prefix="/v1/names", tags=["names"], route_class=JsonRoute)


@router.get("", response_model=NameList, responses=documented("storage-failed"))
def list_names(service: ServiceOf, caller: CallerOf) -> Response:
    """List the names of the caller."""
    return JSONResponse({"names": [name.summary() for name in service.names.all(caller.owner)]})


@router.get("/{name}", response_model=NameAnswer, responses=documented("not-found"))
def show_name(name: NameOf, service: ServiceOf, caller: CallerOf) -> Response:
    """Get a name: its versions, which of them is current, its suite and its history."""
    return JSONResponse(service.names.get(caller.owner, name).to_dict())


@router.delete("/{name}", status_code=204, responses=documented("not-found", "storage-failed"))
def delete_name(name: NameOf, service: ServiceOf, caller: CallerOf) -> None:
    """Delete a name with its suite and history; adapters stay, and numbers go on from its last."""
    service.names.delete(caller.owner, name)


@router.post(
    "/{name}/versions",
    status_code=201,
    response_model=VersionAnswer,
    responses={
        200: {"description": "The adapter is this version already.", "model": VersionAnswer},
        201: {"description": "The new version.", "headers": LOCATION},
        **documented(*JSON_BODY, "not-found", "quota-exceeded", "storage-failed"),
    },
)
def publish_version(
    name: NameOf, body: PublishRequest, service: ServiceOf, caller: CallerOf
) -> Response:
    """Publish an adapter as the next version of a name; the current version stays."""
    suite = body.to_suite()
    version, new = service.names.publish(caller.owner, name, body.adapter, suite)
    location = f"/v1/adapters/{name}@v{version.number}"
    content = {"name": name, **version.to_dict()}
    return JSONResponse(content, 201 if new else 200, {"Location": location})


@router.post(
    "/{name}/promote",
    status_code=202,
    response_model=JobAnswer,
    responses={
        202: ACCEPTED,
        **documented(
            *JSON_BODY,
            *BUSY,
            "not-found",
            "conflict",
            "layout-mismatch",
            "unknown-name",
            "base-unreadable",
            "storage-failed",
        ),
    },
)
async def promote_version(
    name: NameOf, service: ServiceOf, caller: CallerOf, body: PromoteRequest | None = None
) -> Response:
    """Make a version the current one, if it passes as many rows of the suite as that does.

    Both are asked in the background; the job's result says whether the name has moved, and both
    numbers. Without a body the newest version is meant.
    """
    asked = body or PromoteRequest()
    return accepted(await service.promote(caller, name, asked.version, asked.at_least))


@router.post(
    "/{name}/rollback",
    response_model=PromotionAnswer,
    responses=documented("not-found", "conflict", "storage-failed"),
)
def rollback_name(name: NameOf, service: ServiceOf, caller: CallerOf) -> Response:
    """Go back to the version that was current before, without a gate."""
    return JSONResponse({"name": name, **service.names.rollback(caller.owner, name).to_dict()})
