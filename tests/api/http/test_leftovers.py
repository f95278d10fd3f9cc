"""Who is still sending when the answer is known gets the answer, on a real connection."""

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest
from rest import serving
from stored import nothing_made

from api.http.app import create_app
from api.http.body import MAX_BODY_BYTES
from api.service.service import Service
from api.service.settings import Settings

BODY = b"x" * 5 * MAX_BODY_BYTES  # more than the buffers of a connection hold
HOST = "Host: localhost"
TAR = "Content-Type: application/x-tar"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    service = Service(Settings(data=tmp_path_factory.mktemp("served")), nothing_made())
    with serving(create_app(service)) as port:
        yield port


def answer(port: int, *content: bytes) -> bytes:
    """All that comes until the connection is closed."""
    received = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        contextlib.suppress(ConnectionError),
    ):
        for piece in content:
            connection.sendall(piece)
        while piece := connection.recv(65536):
            received += piece
    return received


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "Connection: close", "", ""]).encode()


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        ("POST /v1/nothing HTTP/1.1", (HOST,), 404),
        ("POST /health/live HTTP/1.1", (HOST,), 405),
        ("POST /v1/adapters/import HTTP/1.1", (HOST, "Content-Type: text/plain"), 415),
        ("POST /v1/adapters/import HTTP/1.1", (HOST, TAR, "Idempotency-Key: \u00e9"), 422),
        ("POST /v1/adapters HTTP/1.1", ("Host: elsewhere",), 421),
        ("POST /v1/adapters HTTP/1.1", (HOST,), 413),
        ("POST /v1/adapters HTTP/1.1", (HOST, "No colon"), 400),
        ("POST /v1/adapters HTTP/1.1", (HOST, "X: \x00"), 400),
        ("POST /v1/adapters HTTP/1.1", (HOST, "Content-Length: 5"), 400),
    ],
)
def test_a_refused_body_does_not_cut_off_the_answer(
    port: int, line: str, fields: tuple[str, ...], status: int
) -> None:
    begun = head(line, *fields, f"Content-Length: {len(BODY)}")
    assert answer(port, begun, BODY).startswith(b"HTTP/1.1 %d" % status)


def test_what_is_never_read_is_not_read_for_ever(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.leftovers.DROPPED_BYTES", 1000)
    monkeypatch.setattr("api.http.heads.DROPPED_BYTES", 1000)
    unread = head("POST /v1/nothing HTTP/1.1", HOST, f"Content-Length: {len(BODY)}")
    for begun in (unread, b"none\r\n\r\n"):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
            pytest.raises(ConnectionError),
        ):
            connection.sendall(begun)
            for _ in range(100):
                connection.sendall(BODY)


def test_a_client_that_only_waits_is_answered_and_closed_in_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("leftovers", "heads"):
        monkeypatch.setattr(f"api.http.{module}.DROPPING_SECONDS", 0.3)
    unread = head("POST /v1/nothing HTTP/1.1", HOST, f"Content-Length: {len(BODY)}")
    assert answer(port, unread).startswith(b"HTTP/1.1 404")
    assert answer(port, b"none\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_body_that_is_none_is_400_once(port: int, caplog: pytest.LogCaptureFixture) -> None:
    begun = head("POST /v1/adapters HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    received = answer(port, begun, b"2\r\n{}\r\n", b"no length\r\n", b"x" * 100)
    assert received.startswith(b"HTTP/1.1 400") and received.count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
