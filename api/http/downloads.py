"""Files over HTTP: entity tags, ranges, and whether a client wants bytes or JSON."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fastapi import Request, Response
from starlette import responses
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from api.errors import RangeNotSatisfiable
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
    Raises RangeNotSatisfiable while it is being sent.
    """
    cache = "private, max-age=31536000, immutable" if immutable else REVALIDATED
    headers = {"ETag": f'"{sha256}"', "Cache-Control": cache}
    response = _Download(path, 200, headers, media_type, stat_result=path.stat())
    if _CONDITIONS.is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    # Starlette applies a Range to HEAD as well; RFC 9110 defines it for GET alone.
    return Response(headers=response.headers) if request.method == "HEAD" else response


def stream_response(
    request: Request, parts: Callable[[], Iterator[bytes]], size: int, name: str, media_type: str
) -> Response:
    """Content that is in no file, for the client to keep as one, or 304 if the client has it.

    Args:
        parts: gives the content, the same at each call; what is read first gives its digest.
        size: of the content, in bytes.
        name: of the client's file.
    """
    sha256 = hashlib.sha256()
    for part in parts():
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
    return responses.StreamingResponse(parts(), headers=headers, media_type=media_type)


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


class _Download(responses.FileResponse):
    """A file whose Range is ignored, as RFC 9110 allows, if it is malformed or asks for several.

    It has no date: under a name that goes back to an older version, one would say that a client's
    copy of the newer version is current.
    """

    chunk_size = PIECE

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
