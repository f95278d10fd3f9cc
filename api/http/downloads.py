"""Files over HTTP: entity tags, ranges, and whether a client wants bytes or JSON.

Files are a few MB and their digest is checked on the way out, so they are read whole.
"""

import re

from fastapi import Request, Response

from api.errors import RangeNotSatisfiable

BYTES = "application/octet-stream"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def file_response(request: Request, content: bytes, sha256: str, media_type: str) -> Response:
    """The file, 304 if the client has it, or the part of it that a Range asks for.

    Raises RangeNotSatisfiable.
    """
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes"}
    if _matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    part = None
    if request.method == "GET" and request.headers.get("if-range", tag) == tag:
        part = parse_range(request.headers.get("range", ""), len(content))
    if part is None:
        return Response(content, headers=headers, media_type=media_type)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
    return Response(content[part.start : part.stop], 206, headers, media_type)


def parse_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for.

    None for no header, and for what RFC 9110 lets a server ignore: other units, several ranges,
    nonsense. Raises RangeNotSatisfiable if it lies outside the file.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, stop = size - min(int(match[2]), size), size
    else:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(f"the file has {size:,} bytes; the range lies outside", size)
    return range(start, stop)


def wants_bytes(accept: str) -> bool:
    """Whether an Accept header names octet-stream, and JSON less or not at all."""
    named: dict[str, float] = {}
    for item in accept.split(","):
        media, _, parameters = item.partition(";")
        quality = _QUALITY.fullmatch(parameters.strip())
        named[media.strip().lower()] = float(quality[1]) if quality else 1.0
    return named.get(BYTES, 0.0) > named.get("application/json", 0.0)


def _matches(if_none_match: str | None, tag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return tag in tags or tags == ["*"]
