"""`POST /v1/adapters/batch`: adapters for many descriptions by one request."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError, WithJsonSchema

from api.http.answers import adapter_body
from api.http.body import JsonRoute
from api.http.dependencies import CallerOf, ServiceOf
from api.http.problems import JSON_BODY, any_problem, documented
from api.http.requests import AdapterRequest, Strict
from api.http.schemas import AdapterAnswer, Problem
from api.service.callers import Caller
from api.service.job_store import JobRow
from api.service.service import Service
from library.errors import UsageError

MAX_REQUESTS = 64
TRAINED = "examples, inputs and write_inputs are for POST /v1/adapters: training is a job"

# Checked one by one, so that what is wrong with one is no matter to the others.
Item = Annotated[Any, WithJsonSchema({"type": "object"})]

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)


class BatchRequest(Strict):
    """The adapters to create."""

    requests: list[Item] = Field(
        min_length=1,
        max_length=MAX_REQUESTS,
        description="Bodies of POST /v1/adapters, without examples, inputs and write_inputs.",
    )


class BatchAnswer(BaseModel):
    """What each request would have been answered, in their order."""

    results: list[AdapterAnswer | Problem]


@router.post(
    "/batch",
    response_model=BatchAnswer,
    responses=documented(*JSON_BODY, "internal"),
)
async def create_adapters(
    body: BatchRequest, request: Request, service: ServiceOf, caller: CallerOf
) -> Response:
    """Create an adapter for each of several descriptions.

    Each is the one that `POST /v1/adapters` makes of its request, byte for byte, or the problem
    that it would have had, which has a `code` and changes nothing for the others.
    """
    return JSONResponse(
        {"results": [await _result(item, request, service, caller) for item in body.requests]}
    )


async def _result(item: Any, request: Request, service: Service, caller: Caller) -> dict[str, Any]:
    try:
        wanted = _validated(item)
        adapter = await service.create(caller, wanted.generator, wanted.to_request(), wanted.base)
    except Exception as error:
        return json.loads(bytes((await any_problem(request, error)).body))
    assert not isinstance(adapter, JobRow)  # there is nothing to train on
    return adapter_body(adapter.record)


def _validated(item: Any) -> AdapterRequest:
    """Raises RequestValidationError as the route of one adapter does, UsageError."""
    try:
        wanted = AdapterRequest.model_validate(item)
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from error
    if wanted.examples or wanted.inputs or wanted.write_inputs:
        raise UsageError(TRAINED)
    return wanted
