"""The client without input and output: a flow yields requests and pauses, and returns its result.

Every method of a client is one flow, written once. What sends its requests, and waits, is the
client that runs it, with or without asyncio.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from lorasmith_client.errors import require_success

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A request to the service.

    Attributes:
        path: with its variables quoted.
        query: members that are None are left out.
        json: the body, if `content` is None and this is not.
        sink: takes the body of a success, piece by piece; None to have it in the response.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sink: Callable[[bytes], object] | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of httpx's `stream`."""
        query = {name: value for name, value in self.query.items() if value is not None}
        body = {"json": self.json} if self.content is None and self.json is not None else {}
        return {
            "method": self.method, "url": self.path, "params": query, "content": self.content,
            "headers": self.headers, **body,
        }  # fmt: skip


@dataclass(frozen=True)
class Pause:
    """Waiting, in seconds."""

    seconds: float


Flow = Generator[Request | Pause, Any, T]


def ask(request: Request) -> Flow[httpx.Response]:
    """The answer to a request. Raises Problem, UnexpectedAnswer."""
    response = yield request
    require_success(response)
    return response


def get(path: str, **query: Any) -> Flow[httpx.Response]:
    """The answer to a GET. Raises Problem, UnexpectedAnswer."""
    return (yield from ask(Request("GET", path, query)))


def post(path: str, json: Any = None, key: str | None = None) -> Flow[httpx.Response]:
    """The answer to a POST; `key` names it, so that it may be sent again. Raises as `get` does."""
    return (yield from ask(Request("POST", path, json=json, headers=named(key))))


def delete(path: str) -> Flow[httpx.Response]:
    """The answer to a DELETE. Raises as `get` does."""
    return (yield from ask(Request("DELETE", path)))


def named(key: str | None) -> dict[str, str]:
    """The header of a request that may be sent again under its own name."""
    return {} if key is None else {"Idempotency-Key": key}


def segment(text: str) -> str:
    """A text as one part of a path, whatever is in it."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="@")
