"""Request bodies: limited in size and time, declared as JSON, in UTF-8, without NaN and twins.

They are checked before FastAPI reads them.

FastAPI's own `max_body_size` answers in plain text, and Python's JSON takes NaN and any encoding.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, NoReturn

import anyio
from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import BodyTooLarge, BodyTooSlow, MalformedBody, NotJson

MAX_BODY_BYTES = 1024 * 1024
# Who sends a byte now and then would else hold a connection, or a place for uploads, for ever.
BODY_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 16 * 1024


class JsonRequest(Request):
    """A request whose `body()` is limited and whose `json()` is strict."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._body = b"".join([chunk async for chunk in limited(self, MAX_BODY_BYTES)])
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = _parse(await self.body())
        return self._json


class JsonRoute(APIRoute):
    """A route whose JSON body is read and checked before FastAPI validates it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        field = self.body_field
        if field is None:
            return handler

        async def checked(request: Request) -> Response:
            request = JsonRequest(request.scope, request.receive)
            body = await request.body()
            if not body and not field.field_info.is_required():
                return await handler(request)
            _require_json(request.headers.get("content-type", ""))
            await request.json()
            return await handler(request)

        return checked


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces.

    Raises:
        BodyTooLarge: its declared length is over the limit, or what was received.
        BodyTooSlow: it was waited for longer than BODY_SECONDS and what its bytes may take.
    """
    declared, received = request.headers.get("content-length", ""), 0
    async with aclosing(request.stream()) as stream:
        if declared.isdecimal() and int(declared[:18]) > limit:
            raise _too_large(limit)
        async for chunk in _in_time(stream):
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            yield chunk


async def _in_time(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What a stream gives. Raises BodyTooSlow."""
    left = BODY_SECONDS
    while True:
        started, chunk = time.monotonic(), None
        with anyio.move_on_after(left) as waiting:
            chunk = await anext(stream, None)
        if waiting.cancelled_caught:
            raise BodyTooSlow(
                f"the body comes at less than {MIN_BYTES_PER_SECOND:,} bytes a second"
            )
        if chunk is None:
            return
        left += len(chunk) / MIN_BYTES_PER_SECOND - (time.monotonic() - started)
        yield chunk


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body exceeds {limit:,} bytes")


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _require_json(content_type: str) -> None:
    kind, _, subtype = media_type(content_type).partition("/")
    if kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise NotJson("the body must have the Content-Type application/json")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedBody("the body has a number that is too long") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Readers differ in which of two equal names counts, so there may be one only."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise MalformedBody(f"the body has the field {name!r} twice")
        content[name] = value
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"the body is not JSON: {name} is not a JSON number")
