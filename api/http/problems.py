"""Errors as `application/problem+json` (RFC 9457), each with a code from one listed set.

Every error of lorasmith carries its code; this is the one module that turns codes into answers.
Codes not listed are logged and answered as `internal`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.http.request_id import current_request_id
from library.errors import LorasmithError

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL = 500
_log = logging.getLogger("lorasmith.api")


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem; `code`, `status` and `title` never vary between occurrences."""

    code: str
    status: int
    title: str

    @property
    def type(self) -> str:
        return f"urn:lorasmith:problem:{self.code}"


PROBLEMS: dict[str, ProblemType] = {
    kind.code: kind
    for kind in (
        ProblemType("malformed-body", 400, "The body is not what it is declared as"),
        ProblemType("unauthenticated", 401, "A key is needed"),
        ProblemType("forbidden", 403, "The key does not permit this"),
        ProblemType("cross-origin", 403, "A web page of another origin asks"),
        ProblemType("not-found", 404, "Not found"),
        ProblemType("method-not-allowed", 405, "Method not allowed"),
        ProblemType("body-too-slow", 408, "The body comes too slowly"),
        ProblemType("conflict", 409, "What is stored does not permit this now"),
        ProblemType("layout-mismatch", 409, "The base model does not fit the generator"),
        ProblemType("encoder-mismatch", 409, "The index was built with another encoder"),
        ProblemType("idempotency-key-in-use", 409, "The first request is still being answered"),
        ProblemType("body-too-large", 413, "The body is too large"),
        ProblemType("not-json", 415, "The body is not declared as JSON"),
        ProblemType("not-tar", 415, "The body is not declared as a tar"),
        ProblemType("range-not-satisfiable", 416, "The range is outside the file"),
        ProblemType("misdirected", 421, "The service has another name"),
        ProblemType("invalid-field", 422, "A field is invalid"),
        ProblemType("invalid-description", 422, "The description is invalid"),
        ProblemType("unknown-name", 422, "Unknown generator, base model or hook"),
        ProblemType("not-searchable", 422, "The adapter cannot be used as a query"),
        ProblemType("unsupported-model", 422, "The base model cannot be adapted"),
        ProblemType("more-than-lora", 422, "The adapter is more than a LoRA"),
        ProblemType("idempotency-key-reused", 422, "The Idempotency-Key is another request's"),
        ProblemType("refused", 422, "What was sent makes an adapter that is refused"),
        ProblemType("overloaded", 429, "Too many requests are waiting"),
        ProblemType("rate-limited", 429, "Too many requests of one key"),
        ProblemType("internal", 500, "Internal error"),
        ProblemType("adapter-refused", 500, "A verification hook refused the adapter"),
        ProblemType("base-unreadable", 500, "The base model cannot be read"),
        ProblemType("index-unreadable", 500, "The index of the library cannot be read"),
        ProblemType("extra-missing", 501, "An optional package is not installed"),
        ProblemType("not-ready", 503, "The service is not ready"),
        ProblemType("storage-unreachable", 503, "The database or object store does not answer"),
        ProblemType("quota-exceeded", 507, "Quota exceeded"),
        ProblemType("storage-failed", 507, "The adapter cannot be stored"),
    )
}
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
# "default" also keeps FastAPI from documenting a 422 of its own on every path with a parameter.
ANY_OTHER: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other problem.", "content": _CONTENT}
}
# Problems of every route with a JSON body, and of every route that waits for the generator.
JSON_BODY = ("malformed-body", "body-too-slow", "body-too-large", "not-json", "invalid-field")
BUSY = ("not-ready", "overloaded")
GUARDED = (
    "unauthenticated",
    "forbidden",
    "cross-origin",
    "misdirected",
    "rate-limited",
)  # of every route that takes a key
INTERNAL = "internal error; the log of the service has the details"


def problem(code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for a listed code; `detail` is one sentence for the client."""
    return problem_response(PROBLEMS[code], detail, headers)


def problem_response(
    kind: ProblemType, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer for a kind of problem, listed or an application's own."""
    content = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": _presentable(detail),
        "code": kind.code,
    }
    request_id = current_request_id.get()
    if request_id is not None:
        content["instance"] = f"urn:lorasmith:request:{request_id}"
    return JSONResponse(content, kind.status, headers=headers, media_type=MEDIA_TYPE)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for problems with these codes."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({PROBLEMS[code].status for code in codes}):
        kinds = [PROBLEMS[code] for code in codes if PROBLEMS[code].status == status]
        text = "; ".join(f"{kind.title} (`{kind.code}`)" for kind in kinds)
        responses[status] = {"description": f"{text}.", "content": _CONTENT}
    return responses


async def problem_of(
    request: Request, error: LorasmithError | RequestValidationError
) -> JSONResponse:
    """The answer for an error that a route raised."""
    of = of_lorasmith if isinstance(error, LorasmithError) else _of_validation
    return await of(request, error)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(LorasmithError, of_lorasmith)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_routing)
    app.add_exception_handler(ClientDisconnect, _of_disconnect)
    app.add_exception_handler(Exception, _of_accident)


async def of_lorasmith(request: Request, error: Exception) -> JSONResponse:
    """The answer for an error of lorasmith."""
    code = getattr(error, "code", "internal")
    if code not in PROBLEMS:
        _log.error("%s %r failed", request.method, request.url.path, exc_info=error)
        return problem("internal", INTERNAL)
    return problem(code, str(error), getattr(error, "headers", None))


async def any_problem(request: Request, error: Exception) -> Response:
    """The answer for any error; what nobody expected is logged."""
    if isinstance(error, LorasmithError):
        return await of_lorasmith(request, error)
    if isinstance(error, RequestValidationError):
        return await _of_validation(request, error)
    _log.error("%s %r failed", request.method, request.url.path, exc_info=error)
    return await _of_accident(request, error)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem("invalid-field", _sentence(error.errors()[0]))


async def _of_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem("not-found", "there is no such path", error.headers)
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        detail = f"{request.method} is not allowed; allowed: {allowed}"
        return problem("method-not-allowed", detail, {"Allow": allowed})
    return await _of_accident(request, error)


async def _of_disconnect(request: Request, error: Exception) -> Response:
    return problem("malformed-body", "the connection was closed before the end of the body")


async def _of_accident(request: Request, error: Exception) -> Response:
    return problem("internal", INTERNAL)


def _methods(request: Request) -> list[str]:
    """The methods of the path; Starlette's own Allow names those of its first route alone."""
    allowed = []
    for method in ("GET", "HEAD", "POST", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            allowed.append(method)
    return allowed


def _sentence(error: Any) -> str:
    """One sentence about one field, from an error of pydantic."""
    field = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "string_unicode":
        return f"{field or 'the name of a field'} is not valid UTF-8"
    if not field:
        return "the body must be a JSON object"
    if error["type"] == "missing":
        return f"the field '{field}' is required"
    if error["type"] == "extra_forbidden":
        return f"there is no field {field!r}"
    message = error["msg"]
    return f"{field}: {message[0].lower()}{message[1:]}"


def _presentable(text: str) -> str:
    """One short line without lone surrogates, which UTF-8 cannot encode."""
    text = " ".join(text.split())
    text = text if len(text) <= MAX_DETAIL else f"{text[: MAX_DETAIL - 1]}…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
