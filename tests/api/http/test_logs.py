"""Request ids, and what is logged of a request: where it went and how long it took, no more."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rest import (  # noqa: F401  (fixtures)
    TASK,
    UNKNOWN_ID,
    assert_problem,
    bearer,
    client,
    engine,
    lasting,
    post,
    settings,
)
from starlette.testclient import TestClient

from api.http.logs import configure_logging
from api.service.service import Service
from api.service.settings import LogFormat

ID = re.compile(r"[0-9a-f]{32}")


@contextmanager
def logged(monkeypatch: pytest.MonkeyPatch, log_format: LogFormat) -> Iterator[io.StringIO]:
    """What a service writes; afterwards all loggers are as they were."""
    names = ("", "lorasmith", "uvicorn")
    levels = [logging.getLogger(name).level for name in names]
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    text = io.StringIO()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", text)
            configure_logging(log_format)
        yield text
    finally:
        root.handlers = handlers
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)


def objects(text: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


def test_an_answer_is_named_as_its_request_or_anew(lasting: TestClient) -> None:
    for sent in ("a", "4bf92f35-77b3.4da6_a", "x" * 128):
        for path in ("/health/live", "/v1/adapters", "/nonsense"):
            assert lasting.get(path, headers={"X-Request-Id": sent}).headers["x-request-id"] == sent
    seen = {lasting.get("/health/live").headers["x-request-id"] for _ in range(3)}
    for sent in ("", "a b", "x" * 129, "a\tb", '{"a": 1}', "../a", "ü"):
        answer = lasting.get("/health/live", headers={"X-Request-Id": sent.encode("latin-1")})  # type: ignore[dict-item]
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 10 and all(ID.fullmatch(identity) for identity in seen)


def test_a_problem_names_the_request(lasting: TestClient) -> None:
    headers = {"X-Request-Id": "mine"}
    answers = [
        lasting.get(f"/v1/adapters/{UNKNOWN_ID}", headers=headers),
        lasting.get("/nonsense", headers=headers),
        lasting.get("/health/live", headers={**headers, "Host": "evil.example"}),
        post(lasting, b"{", **headers),
    ]
    for answer in answers:
        body = assert_problem(answer, answer.status_code)
        assert body["instance"] == "urn:lorasmith:request:mine"


def test_a_line_is_an_object_with_route_status_and_duration(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logged(monkeypatch, "json") as text:
        post(client, {"description": TASK}, **{"X-Request-Id": "one"})
        client.get(f"/v1/adapters/{UNKNOWN_ID}?q=secret", headers=bearer("lsk_secret"))
        client.get("/v1/search", params={"q": TASK})
        client.get("/secret"), client.request("BREW", "/v1/adapters")
    lines = [line for line in objects(text) if line["logger"] == "lorasmith.access"]
    assert [(x["method"], x["route"], x["status"], x["level"]) for x in lines] == [
        ("POST", "/v1/adapters", 201, "info"),
        ("GET", "/v1/adapters/{id}", 404, "info"),
        ("GET", "/v1/search", 200, "info"),
        ("GET", "unmatched", 404, "info"),
        ("other", "/v1/adapters", 405, "info"),
    ]
    assert lines[0]["request_id"] == "one" and ID.fullmatch(lines[1]["request_id"])
    assert all(0 < line["seconds"] < 60 for line in lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    for private in (TASK, "secret", "BREW", UNKNOWN_ID):
        assert private not in text.getvalue()


def test_an_accident_is_logged_under_its_request_and_answered_with_it(
    client: TestClient, service_of: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(service_of.store, "get", broken)
    with logged(monkeypatch, "json") as text:
        answer = client.get(f"/v1/adapters/{UNKNOWN_ID}", headers={"X-Request-Id": "broken"})
    assert_problem(answer, 500, "internal")
    assert answer.headers["x-request-id"] == "broken"
    access = next(line for line in objects(text) if line["logger"] == "lorasmith.access")
    assert (access["request_id"], access["status"]) == ("broken", 500)


@pytest.fixture
def service_of(client: TestClient) -> Service:
    app: Any = client.app
    return app.state.service


def test_what_threads_log_has_the_request_and_the_traceback_in_one_line(
    client: TestClient, service_of: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*_: Any) -> None:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger("lorasmith.api").exception("it %s", "broke")

    monkeypatch.setattr(service_of.store, "delete", noisy)
    with logged(monkeypatch, "json") as text:
        client.delete(f"/v1/adapters/{UNKNOWN_ID}", headers={"X-Request-Id": "thread"})
        logging.getLogger("lorasmith.api").warning("outside")
    first, _, last = objects(text)
    assert (first["message"], first["level"], first["request_id"]) == (
        "it broke",
        "error",
        "thread",
    )
    assert first["exception"].endswith("ValueError: two\nlines")
    assert (last["message"], last["request_id"]) == ("outside", None)


def test_text_for_a_person_has_the_same(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logged(monkeypatch, "text") as text:
        client.get("/v1/adapters?cursor=secret", headers={"X-Request-Id": "mine"})
        logging.getLogger("elsewhere").info("not shown"), logging.getLogger("a").warning("shown")
    line, other = text.getvalue().splitlines()
    assert re.fullmatch(r"\S+Z INFO mine GET /v1/adapters 422 \d+ ms", line)
    assert other.endswith("Z WARNING - shown")
