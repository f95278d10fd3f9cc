"""One request to a server that is not ours: a bounded answer, no redirects, errors on one line."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from library.errors import LorasmithError


class NoAnswer(LorasmithError):
    """A server that cannot be reached, or whose answer does not end; the message says why."""

    code = "no-answer"


@dataclass(frozen=True)
class ServerAnswer:
    """The status and the body of an answer."""

    status: int
    content: bytes

    @property
    def parsed(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None


def ask(
    client: httpx2.Client,
    address: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float,
    most: int,
) -> ServerAnswer:
    """Ask for what is at an address; a POST of JSON if there is a body.

    Args:
        client: keeps connections.
        address: as `is_address` has it.
        body: JSON to send.
        headers: more of them.
        seconds: to wait for the whole answer.
        most: bytes of the answer.
    Raises NoAnswer.
    """
    method = "GET" if body is None else "POST"
    end, content = time.monotonic() + seconds, bytearray()
    try:
        with client.stream(
            method, address, json=body, headers=headers, timeout=seconds, follow_redirects=False
        ) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > most:
                    raise NoAnswer(f"its answer is longer than {most:,} bytes")
                if time.monotonic() > end:
                    raise NoAnswer(f"its answer takes longer than {seconds:,.0f} seconds")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise NoAnswer(one_line(error) or type(error).__name__) from error
    return ServerAnswer(response.status_code, bytes(content))


def is_address(url: str) -> bool:
    """Whether a text is a URL of a server, in plain ASCII."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and url.isascii() and url.isprintable() and " " not in url


def one_line(message: object) -> str:
    """A message from the other side on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(message)).split())
