"""Settings, and the service behind a real uvicorn on loopback."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from rest import engine_of, serving

from api.errors import ListenError
from api.http.app import create_app, run_server
from api.http.body import MAX_BODY_BYTES
from api.http.listening import listen
from api.http.schemas import AdapterAnswer
from api.service.keys import KeyStore
from api.service.service import UPLOADS, Service
from api.service.settings import Settings, load_settings, require_loopback
from generator.engine import Engine
from library.errors import MissingPath, UnknownName, UsageError

TASK = "Say whether the review is positive or negative."


@pytest.fixture(scope="module")
def engine(checkpoint: Path, encoder: Any) -> Engine:
    return engine_of(Settings(), checkpoint, encoder)


@pytest.fixture
def settings(tmp_path: Path, checkpoint: Path) -> Settings:
    return Settings(data=tmp_path / "data", checkpoints={"text-to-lora": checkpoint})


# Settings


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path))
    monkeypatch.setenv("LORASMITH_PORT", "")
    monkeypatch.setenv("LORASMITH_BASES", json.dumps({"mine": str(tmp_path)}))
    settings = load_settings(queue_length=1)
    assert (settings.data, settings.port, settings.queue_length) == (tmp_path, 8000, 1)
    assert settings.base().name == settings.base("mine").name == "mine"
    assert settings.base().path == str(tmp_path)
    with pytest.raises(UnknownName):
        settings.base(str(tmp_path))
    monkeypatch.setenv("LORASMITH_PORT", "99999")
    with pytest.raises(UsageError, match="port"):
        load_settings()
    monkeypatch.delenv("LORASMITH_PORT")
    monkeypatch.setenv("LORASMITH_BASES", "{")
    with pytest.raises(UsageError, match="bases"):
        load_settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_fine(host: str) -> None:
    require_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.org", "127.0.0.1.x"])
def test_other_hosts_are_refused_without_keys(host: str, settings: Settings) -> None:
    with pytest.raises(UsageError, match="loopback"):
        require_loopback(host)
    with pytest.raises(UsageError, match=r"loopback only.* lorasmith keys create"):
        run_server(settings.model_copy(update={"host": host}))


def test_with_keys_other_hosts_are_fine(settings: Settings) -> None:
    KeyStore(settings.data).create("laptop")
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):  # it gets as far as listening
        run_server(settings.model_copy(update={"host": "192.0.2.1"}))


# A real server


@pytest.fixture(scope="module")
def port(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    service = Service(Settings(data=tmp_path_factory.mktemp("served")), engine)
    with serving(create_app(service)) as port:
        yield port


def talk(port: int, *pieces: bytes) -> tuple[int, bytes]:
    """Send pieces as they are; the status and the body of the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        while len(body) < length and not head.startswith(b"HEAD"):
            body += connection.recv(65536)
        return int(head.split()[1]), body[:length]


def request_head(*fields: str) -> bytes:
    lines = [
        "POST /v1/adapters HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_long_body_is_413_whatever_its_length_is_said_to_be(port: int) -> None:
    mebibytes = b"x" * 3 * MAX_BODY_BYTES
    chunked = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(48)) + b"0\r\n\r\n"
    honest = talk(port, request_head(f"Content-Length: {len(mebibytes)}"), mebibytes)
    unsaid = talk(port, request_head("Transfer-Encoding: chunked"), chunked)
    started = time.monotonic()
    boasting = talk(port, request_head("Content-Length: 999999999999"), b"{}")
    assert time.monotonic() - started < 10
    for status, body in (honest, unsaid, boasting):
        assert status == 413
        assert json.loads(body)["code"] == "body-too-large"
    modest = talk(port, request_head("Content-Length: 10"), b'{"a": 1}  ' + b"x" * 100)
    assert modest[0] == 422


def test_a_client_that_leaves_early_does_no_harm(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request_head("Content-Length: 1000") + b'{"descr')
    status, body = talk(port, b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"status": "ready"})


@pytest.mark.parametrize("path", ["/v1/adapters", "/v1/adapters/import"])
def test_a_body_that_comes_too_slowly_is_408(
    port: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.body.BODY_SECONDS", 0.3)
    kind = "x-tar" if path.endswith("import") else "json"
    head = request_head("Content-Length: 1000").replace(b"/v1/adapters", path.encode())
    head = head.replace(b"application/json", b"application/" + kind.encode())
    for _ in range(UPLOADS + 1):  # each gives its place back
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head)
            with contextlib.suppress(OSError):
                for _ in range(8):
                    connection.sendall(b"x")
                    time.sleep(0.1)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408") and b"body-too-slow" in answer


def test_a_connection_without_a_whole_head_is_closed_in_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.heads.HEAD_SECONDS", 0.5)
    asked = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for first, begun in ((b"", b""), (b"", b"GET /"), (asked, b"GET /")):
        with socket.create_connection(("127.0.0.1", port), timeout=4) as connection:
            connection.sendall(first)
            answer = b""
            while first and not answer.endswith(b'"ready"}'):
                answer += connection.recv(65536)
            started = time.monotonic()
            connection.sendall(begun)
            assert connection.recv(65536) == b""
            assert 0.4 < time.monotonic() - started < 4  # uvicorn itself: 5 s, or never


def test_a_request_that_takes_longer_than_a_head_may_is_answered(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.heads.HEAD_SECONDS", 0.2)
    content = json.dumps({"description": "Translate into French."}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_head(f"Content-Length: {len(content)}"))
        time.sleep(0.5)
        connection.sendall(content)
        assert connection.recv(65536).startswith(b"HTTP/1.1 201")


def test_a_chunked_request_is_answered(port: int) -> None:
    content = json.dumps({"description": TASK}).encode()
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    status, body = talk(port, request_head("Transfer-Encoding: chunked"), chunks)
    assert status == 201
    AdapterAnswer.model_validate_json(body)


def test_short_answers_are_sent_at_once() -> None:
    async def option() -> int:
        connected = asyncio.get_running_loop().create_future()
        listener = listen("127.0.0.1", 0)

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            connected.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accept, sock=listener):
            with socket.create_connection(listener.getsockname()):
                return await asyncio.wait_for(connected, 10)

    assert asyncio.run(option())


def test_a_taken_port_is_one_sentence(port: int, settings: Settings) -> None:
    with pytest.raises(ListenError, match=f"127.0.0.1:{port}") as caught:
        run_server(settings.model_copy(update={"port": port}))
    assert caught.value.exit_code == 1


def test_serve_ends_with_the_reason_if_the_generator_cannot_be_loaded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.app.configure_logging", lambda log_format: None)
    with pytest.raises(MissingPath, match="no checkpoint"):
        run_server(
            settings.model_copy(
                update={"port": 0, "checkpoints": {"text-to-lora": tmp_path / "none"}}
            )
        )


def test_serve_starts_and_ctrl_c_stops_it(tmp_path: Path, checkpoint: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from api.http.app import run_server;"
        "from api.service.settings import Settings; "
        "checkpoints = {'text-to-lora': Path(sys.argv[2])};"
        "run_server(Settings(port=0, data=Path(sys.argv[1]), checkpoints=checkpoints))"
    )
    process = tiny.start_python(code, str(tmp_path), str(checkpoint))
    assert process.stderr is not None
    line = process.stderr.readline()
    port = int(line.split("http://127.0.0.1:")[1].split(";")[0])
    page = process.stderr.readline().split()[-1]
    assert page == f"http://127.0.0.1:{port}/"
    assert talk(port, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
    assert talk(port, b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] in (200, 503)
    secret = b"GET /v1/search?q=my%20secret HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert talk(port, secret)[0] in (200, 503)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "GET /v1/search " in errors and "secret" not in output + errors
