"""Files over HTTP: entity tags, ranges, and whether a client wants bytes or JSON."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from fastapi import Request, Response
from starlette import responses
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from api.errors import NotFound, RangeNotSatisfiable
from library.files import PIECE

BYTES = "application/octet-stream"
REVALIDATED = "private, no-cache"  # kept by the client, who asks each time whether it holds
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-[0-9]{1,18})", re.IGNORECASE)
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_CONDITIONS = StaticFiles(check_dir=False)


def file_response(
    request: Request, path: Path, sha256: str, media_type: str, *, immutable: bool
) -> Response:
    """The file, 304 if the client has it, or the part of it that a Range asks for.

    Args:
        immutable: whether the path never has another content: then clients need not ask again.
    Raises RangeNotSatisfiable, or NotFound for a file that was just deleted, also while it is
    being sent.
    """
    cache = "private, max-age=31536000, immutable" if immutable else REVALIDATED
    headers = {"ETag": f'"{sha256}"', "Cache-Control": cache}
    with _still_there():
        size = path.stat()
    response = _Download(path, 200, headers, media_type, stat_result=size)
    if _CONDITIONS.is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    # Starlette applies a Range to HEAD as well; RFC 9110 defines it for GET alone.
    return Response(headers=response.headers) if request.method == "HEAD" else response


def stream_response(
    request: Request,
    paths: Sequence[Path],
    join: Callable[[Sequence[IO[bytes]]], Iterator[bytes]],
    size: int,
    name: str,
    media_type: str,
) -> Response:
    """Files joined into one for the client to keep, or 304 if the client has it.

    Args:
        paths: they are opened at once, so that whoever deletes them meanwhile changes nothing.
        join: gives the content from the files at their beginning, the same at each call; what is
            read first gives its digest.
        size: of the content, in bytes.
        name: of the client's file.
    Raises NotFound: they were just deleted.
    """
    with ExitStack() as opened:
        with _still_there():
            files = [opened.enter_context(path.open("rb")) for path in paths]
        sha256 = hashlib.sha256()
        for part in join(files):
            sha256.update(part)
        headers = {
            "ETag": f'"{sha256.hexdigest()}"',
            "Cache-Control": REVALIDATED,
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        if _CONDITIONS.is_not_modified(Headers(headers), request.headers):
            return NotModifiedResponse(Headers(headers))
        if request.method == "HEAD":
            return Response(headers=headers, media_type=media_type)
        content = _closing(opened.pop_all(), join(files))
        return responses.StreamingResponse(content, headers=headers, media_type=media_type)


def _closing(opened: ExitStack, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts, after which the files are closed."""
    with opened:
        yield from parts


def wants_bytes(accept: str) -> bool:
    """Whether an Accept header prefers octet-stream to JSON; a name goes before a wildcard."""
    qualities: dict[str, float] = {}
    for item in accept.split(","):
        media, _, parameters = item.partition(";")
        quality = _QUALITY.fullmatch(parameters.strip())
        qualities[media.strip().lower()] = float(quality[1]) if quality else 1.0
    anything = qualities.get("application/*", qualities.get("*/*", 0.0))

    def preference(media: str) -> tuple[float, bool]:
        return qualities.get(media, anything), media in qualities

    return preference(BYTES) > max(preference("application/json"), (0.0, True))


@contextmanager
def _still_there() -> Iterator[None]:
    """Raise NotFound where a file was deleted after it was looked up."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("the file was deleted meanwhile") from error


class _Download(responses.FileResponse):
    """A file whose Range is ignored, as RFC 9110 allows, if it is malformed or asks for several.

    It has no date: under a name that goes back to an older version, one would say that a client's
    copy of the newer version is current.
    """

    chunk_size = PIECE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as opened:  # who has it open reads it to its end, whoever deletes it
            with _still_there():
                file = opened.enter_context(Path(self.path).open("rb"))
            self.path = f"/dev/fd/{file.fileno()}"
            await super().__call__(scope, receive, send)

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        super().set_stat_headers(stat_result)
        del self.headers["last-modified"]

    def _should_use_range(self, http_if_range: str) -> bool:
        return http_if_range == self.headers["etag"]

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        match = _RANGE.fullmatch(http_range.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            return []
        try:
            return super()._parse_range_header(http_range, file_size)
        except responses.RangeNotSatisfiable as error:
            message = f"the file has {file_size:,} bytes; the range lies outside"
            raise RangeNotSatisfiable(message, file_size) from error
