"""The requests of `fuzz`: sound ones as bytes, changed at random, and sent as they are."""

import json
import random
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# Values that stand at some edge: of integers, floats, text, JSON, SQL, paths, headers.
EDGES: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324, True, None,
    "", " ", "\0", "\ud800", "\u202e", "﷽" * 300, "x" * 9000, "../../etc/passwd", "..%2f..", "/",
    "' OR 1=1 --", "<script>alert(1)</script>", "{{7*7}}", "{input}", "\r\nX-Evil: 1",
    "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "hub:evil/evil", "a" * 64,
    "ad_" + "0" * 40, "job_" + "0" * 32, "name@v999999999", "name@current", [], {}, [[]], {"a": {}},
    [None] * 50, ["x"] * 1001,
)  # fmt: skip
JSON_KINDS = (
    "application/json", "application/json; charset=utf-16", "text/plain", "", "application/x-tar",
    "multipart/form-data; boundary=x", "application/vnd.api+json", "APPLICATION/JSON", "/", "é",
)  # fmt: skip
HEADERS = (
    "Range: bytes=0-", "Range: bytes=-1,5-", "Range: bytes=999999999999999999-", "If-Range: x",
    "If-None-Match: *", 'If-None-Match: "', "Accept: ;q=", "Accept: application/octet-stream",
    "Idempotency-Key: a", "Idempotency-Key: \x7f", "X-Request-Id: a", "X-Request-Id: ../é",
    "Authorization: Bearer x", "Authorization: Basic eDp5", "Host: evil.example", "Origin: null",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Length: 5",
    "Content-Length: -1", "Expect: 100-continue", "Connection: upgrade\r\nUpgrade: websocket",
    "X-Forwarded-For: 127.0.0.1", "traceparent: 00-x", "Last-Event-ID: 5", "Cookie: " + "a" * 9000,
    " folded: x", "No colon", "X: \x00",
)  # fmt: skip


@dataclass(frozen=True)
class Seeds:
    """A stored adapter's id, and its archive."""

    identity: str
    archive: bytes


def mutated(draw: random.Random, seeds: Seeds) -> bytes:
    """The bytes of one request."""
    kind = draw.random()
    if kind < 0.05:
        return draw.randbytes(draw.randrange(1, 400)) + b"\r\n\r\n"
    if kind < 0.15:
        body, content_type = _noise(draw, seeds.archive), "application/x-tar"
        if draw.random() < 0.5:
            body = body[: draw.choice((512, 1024, 5000, 10**6, len(body) - 1024))]
        method, path = "POST", "/v1/adapters/import"
    else:
        method, path, fields = _sound(draw, seeds)
        body = b"" if fields is None else _changed(draw, fields)
        content_type = JSON_KINDS[0] if draw.random() < 0.9 else draw.choice(JSON_KINDS)
    lines = [f"{method} {_path(draw, path)} HTTP/1.1", "Host: localhost"]
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    if draw.random() < 0.2:
        lines.insert(draw.randrange(1, len(lines) + 1), draw.choice(HEADERS))
    lines += ["Connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8", "replace") + body


def answered(port: int, request: bytes, seconds: float) -> bool:
    """Whether there was an answer, until the connection was closed.

    Raises TimeoutError: nothing came within the time.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        received, end = b"", time.monotonic() + seconds
        try:
            connection.sendall(request)
            while piece := connection.recv(65536):
                received = received or piece
                if time.monotonic() > end:
                    raise TimeoutError("an answer that does not end")
        except (ConnectionError, BrokenPipeError):
            pass
    return bool(received)


def _sound(draw: random.Random, seeds: Seeds) -> tuple[str, str, Any]:
    """Method, path and fields of the body, if it has one; few of them would make something."""
    of, pair = f"/v1/adapters/{seeds.identity}", [{"input": "a", "output": "b"}]
    asked = {"model": "SmolLM2-135M-Instruct", "max_tokens": 1, "temperature": 0}
    return draw.choice([
        ("POST", "/v1/adapters", {"description": "", "examples": None, "seed": 0, "rank": 8,
                                  "base": None, "generator": "auto", "strength": 1.0, "refine": 0}),
        ("POST", "/v1/adapters/batch", {"requests": [{"description": ""}, {"rank": 1}]}),
        ("POST", "/v1/adapters/compose", {"adapters": [seeds.identity], "weights": [1.0],
                                          "method": "cat", "rank": 1, "density": 0.5, "seed": 0}),
        ("POST", f"{of}/refine", {"examples": [], "inputs": None, "steps": 1, "seed": 0}),
        ("POST", f"{of}/verify", {"hooks": ["format"], "examples": None, "zk": None}),
        ("POST", "/v1/names/some-name/versions", {"adapter": seeds.identity, "suite": pair}),
        ("POST", "/v1/names/other/promote", {"version": 1, "at_least": 1}),
        ("POST", "/v1/names/other/rollback", None),
        ("POST", "/v1/completions", {**asked, "prompt": "x", "stop": ["a"], "logprobs": 1}),
        ("POST", "/v1/chat/completions", {**asked, "messages": [{"role": "user", "content": "x"}]}),
        ("GET", of, None), ("GET", f"{of}/files/adapter_config.json", None),
        ("HEAD", f"{of}/archive", None), ("GET", "/v1/adapters?limit=2&cursor=x", None),
        ("GET", "/v1/library?limit=5&cursor=x", None), ("GET", "/v1/library/map?q=x", None),
        ("GET", "/v1/search?q=x&k=3&by=weights&tag=a", None), ("GET", "/v1/names/other", None),
        ("GET", f"/v1/search?adapter={seeds.identity}&k=2", None), ("GET", "/v1/library/x", None),
        ("GET", "/v1/jobs/job_0", None), ("GET", "/v1/jobs/job_0/events", None),
        ("DELETE", "/v1/adapters/x", None), ("DELETE", "/v1/jobs/x", None), ("GET", "/", None),
        ("GET", "/page/main.js", None), ("GET", "/v1/models", None), ("GET", "/metrics", None),
        ("GET", f"/api/models/generated/{seeds.identity}/tree/main", None),
        ("GET", f"/generated/{seeds.identity}/resolve/main/README.md", None),
    ])  # fmt: skip


def _changed(draw: random.Random, fields: dict[str, Any]) -> bytes:
    """A body with some fields changed, or another body."""
    kind = draw.random()
    if kind < 0.05:
        return b"[" * draw.choice((10, 900, 1100, 100_000))
    if kind < 0.1:
        depth = draw.choice((10, 100, 500, 900, 5000))
        return json.dumps(dict.fromkeys(fields, 0)).encode()[:-1] + (
            b', "' + next(iter(fields)).encode() + b'2": ' + b'{"a":' * depth + b"1" + b"}" * depth
            + b"}"
        )  # fmt: skip
    changed = dict(fields)
    for _ in range(draw.randrange(1, 4)):
        name = draw.choice([*fields, "extra"])
        value = draw.choice(EDGES)
        changed[name] = [value] if draw.random() < 0.2 else value
    body = json.dumps(changed).encode()
    return _noise(draw, body) if kind < 0.25 else body


def _noise(draw: random.Random, content: bytes) -> bytes:
    """Content with some bytes changed."""
    noisy = bytearray(content)
    for _ in range(draw.randrange(1, 6)):
        noisy[draw.randrange(min(len(noisy), 20_000))] = draw.randrange(256)
    return bytes(noisy)


def _path(draw: random.Random, path: str) -> str:
    """The path, or one with a part of it changed."""
    if draw.random() < 0.6:
        return path
    parts = path.replace("=", "/=").split("/")
    edge = str(draw.choice(EDGES)).encode("utf-8", "replace")
    parts[draw.randrange(1, len(parts))] = quote(edge, safe="" if draw.random() < 0.7 else "/")
    return "/".join(parts).replace("/=", "=").replace(" ", "%20")
