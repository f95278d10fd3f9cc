"""The Python client when things go wrong: problems, busy services, false answers, keys."""

import asyncio
import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asked import kind  # noqa: F401  (fixture)
from rest import UNKNOWN_ID, serving
from stored import nothing_made

from api.http.app import create_app
from api.http.problems import PROBLEMS, problem
from api.service.job_store import State
from api.service.keys import KeyStore
from api.service.service import Service
from api.service.settings import Settings
from lorasmith_client import (
    AsyncClient,
    Busy,
    Client,
    ClientError,
    Conflict,
    Denied,
    DigestMismatch,
    NotFound,
    Problem,
    UnexpectedAnswer,
    Unreachable,
)
from lorasmith_client.answers import ENDED
from lorasmith_client.connection import Connection
from lorasmith_client.flow import segment

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(100_000)}
URL = f"/v1/adapters/{UNKNOWN_ID}"
ADAPTER: dict[str, Any] = {
    "id": UNKNOWN_ID, "sha256": "", "generator": "g", "base_model": "b", "layout_digest": "",
    "rank": 1, "seed": 0, "start": None, "usage": None, "expected": None, "refined": None,
    "chosen": {"strategy": "g", "reason": "", "neighbours": [], "predicted_recovery": None},
    "report": {"verdict": "accept", "findings": []},
    "files": {
        name: {
            "url": f"https://elsewhere.example/{name}", "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for name, content in FILES.items()
    },
}  # fmt: skip

Handler = Callable[[httpx.Request], httpx.Response]


def downloads(files: dict[str, bytes]) -> Handler:
    """A service that has one adapter, whose files are these."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "service.example"
        if request.url.path == URL:
            return httpx.Response(200, json=ADAPTER)
        return httpx.Response(200, content=files.get(request.url.path.split("/")[-1], b"no tar"))

    return answer


def faked(kind: Any, answer: Handler, **options: Any) -> Any:
    transport = httpx.MockTransport(answer)
    return kind("http://service.example", transport=transport, **options)


def told(code: str, **headers: str) -> httpx.Response:
    answer = problem(code, "a sentence", headers)
    return httpx.Response(answer.status_code, content=answer.body, headers=answer.headers)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that clients wait; nobody does."""
    seconds: list[float] = []

    async def note(value: float) -> None:
        seconds.append(value)

    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(asyncio, "sleep", note)
    return seconds


# Problems


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_is_one_error(kind: Any, code: str) -> None:
    classes = {401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 429: Busy, 503: Busy}
    status = PROBLEMS[code].status
    with pytest.raises(ClientError, match=r"^a sentence$") as caught:
        faked(kind, lambda _: told(code)).get(UNKNOWN_ID)
    error = caught.value
    assert type(error) is classes.get(status, Problem)
    assert (error.code, error.detail, error.status) == (code, "a sentence", status)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (type(error), vars(error))


JSON_PROBLEM = {"headers": {"content-type": "application/problem+json"}}


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, {"text": "<html>"}),
        (200, {"json": []}),
        (200, {"json": {**ADAPTER, "rank": "1"}}),
        (200, {"json": {name: ADAPTER[name] for name in ADAPTER if name != "files"}}),
        (500, {"text": "Internal Server Error"}),
        (502, {"json": {"code": "x", "detail": "y", "status": 502}}),
        (500, {"text": "{", **JSON_PROBLEM}),
        (500, {"json": {}, **JSON_PROBLEM}),
        (307, {"headers": {"location": "https://elsewhere.example/"}}),
    ],
)
def test_what_is_no_answer_of_the_service_is_said_to_be_none(
    kind: Any, status: int, content: dict[str, Any]
) -> None:
    def once(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "service.example"  # a redirect is not followed
        return httpx.Response(status, **content)

    with pytest.raises(UnexpectedAnswer):
        faked(kind, once, key="secret").get(UNKNOWN_ID)


def test_fields_that_are_not_known_yet_do_no_harm(kind: Any) -> None:
    newer = {**ADAPTER, "new": {"a": 1}}
    assert faked(kind, lambda _: httpx.Response(200, json=newer)).get(UNKNOWN_ID).id == UNKNOWN_ID


def test_a_service_that_is_not_there(kind: Any) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        kind("http://127.0.0.1:9").live()


def test_paths_are_of_one_part_each() -> None:
    local = httpx.Client(base_url="http://127.0.0.1:1")
    for text in ("..", ".", "a/b", "a?b", "a#b", "ä", "%2e", "a b"):
        url = local.build_request("GET", f"/v1/x/{segment(text)}").url
        assert url.raw_path.count(b"/") == 3 and url.path == f"/v1/x/{text}" and not url.query


def test_states_that_end_a_job_are_the_services() -> None:
    assert {*ENDED} == {*State.__args__} - {"queued", "running"}


# Busy services


@pytest.mark.parametrize("code", ["overloaded", "rate-limited", "not-ready"])
def test_a_busy_service_is_asked_again_when_it_says(
    kind: Any, paused: list[float], code: str
) -> None:
    answers = iter(
        [
            told(code, **{"Retry-After": "7"}),
            told(code, **{"Retry-After": "0"}),
            httpx.Response(200, json=ADAPTER),
        ]
    )
    made = faked(kind, lambda _: next(answers)).create("a task")
    assert made.id == UNKNOWN_ID and paused == [7, 1]


def test_patience_ends(kind: Any, paused: list[float]) -> None:
    busy = faked(kind, lambda _: told("overloaded", **{"Retry-After": "7"}), patience=20)
    with pytest.raises(Busy) as caught:
        busy.get(UNKNOWN_ID)
    assert caught.value.retry_after == 7 and paused == [7, 7]


@pytest.mark.parametrize("when", [{}, {"Retry-After": "Sat, 28 Nov 2026 13:00:00 GMT"}])
def test_without_a_number_of_seconds_nobody_waits(
    kind: Any, paused: list[float], when: dict[str, str]
) -> None:
    with pytest.raises(Busy) as caught:
        faked(kind, lambda _: told("overloaded", **when)).get(UNKNOWN_ID)
    assert caught.value.retry_after is None and not paused


def test_other_problems_are_not_asked_again(kind: Any, paused: list[float]) -> None:
    with pytest.raises(Problem):
        faked(kind, lambda _: told("quota-exceeded", **{"Retry-After": "1"})).get(UNKNOWN_ID)
    assert not paused


# Downloads


def test_the_url_in_an_answer_is_not_used(kind: Any, tmp_path: Path) -> None:
    folder = faked(kind, downloads(FILES)).download(UNKNOWN_ID, tmp_path / "a")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES


@pytest.mark.parametrize("change", [b"x", b"", b"\0" + bytes(100_000)])
def test_a_file_that_is_not_what_it_should_be_leaves_nothing(
    kind: Any, tmp_path: Path, change: bytes
) -> None:
    false = faked(kind, downloads({**FILES, "adapter_model.safetensors": change}))
    with pytest.raises(DigestMismatch):
        false.download(UNKNOWN_ID, tmp_path / "a")
    with pytest.raises(DigestMismatch):  # no ETag
        false.read_file(UNKNOWN_ID, "adapter_model.safetensors")
    with pytest.raises(DigestMismatch):
        false.download_archive(UNKNOWN_ID, tmp_path / "a.tar")
    assert not list(tmp_path.iterdir())


def test_an_endless_file_is_left_at_once(kind: Any, tmp_path: Path) -> None:
    class Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield bytes(1000)

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == URL:
            return httpx.Response(200, json=ADAPTER)
        return httpx.Response(200, stream=Endless())

    with pytest.raises(DigestMismatch, match="longer than 2 bytes"):
        faked(kind, answer).download(UNKNOWN_ID, tmp_path / "a")


def test_a_download_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"{"
            await asyncio.Event().wait()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == URL:
            return httpx.Response(200, json=ADAPTER)
        return httpx.Response(200, stream=Silent())

    async def give_up() -> None:
        async with faked(AsyncClient, answer) as client, asyncio.timeout(0.1):
            await client.download(UNKNOWN_ID, tmp_path / "a")

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "..", "."])
def test_a_file_lands_in_its_folder_alone(kind: Any, tmp_path: Path, name: str) -> None:
    file = ADAPTER["files"]["adapter_config.json"]
    answer = httpx.Response(200, json={**ADAPTER, "files": {name: file}})
    with pytest.raises(UnexpectedAnswer):
        faked(kind, lambda _: answer).download(UNKNOWN_ID, tmp_path / "inner" / "a")
    assert not list((tmp_path / "inner").iterdir()) and len(list(tmp_path.iterdir())) == 1


# Keys and settings


@pytest.fixture
def key(tmp_path: Path) -> str:
    return KeyStore(tmp_path / "data").create("laptop")[1]


@pytest.fixture
def locked(key: str, tmp_path: Path) -> Iterator[str]:
    """A service with keys."""
    app = create_app(Service(Settings(data=tmp_path / "data"), nothing_made()))
    with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


def test_the_key_is_an_argument_or_in_the_environment(
    kind: Any, locked: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASMITH_API_KEY", raising=False)
    with pytest.raises(Denied) as caught:
        kind(locked).list()
    assert caught.value.code == "unauthenticated"
    kind(locked).live()
    assert kind(locked, key).list().adapters == []
    monkeypatch.setenv("LORASMITH_API_KEY", key)
    monkeypatch.setenv("LORASMITH_URL", locked)
    assert kind().list().adapters == []


@pytest.mark.parametrize(
    "url", ["file:///etc", "ftp://host", "localhost:8000", "/v1", "http://", "http://a:b"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no http or https URL"):
        Client(url)


def test_a_key_that_cannot_be_one_is_refused_and_not_shown(kind: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["authorization"])
        return httpx.Response(200, json=ADAPTER)

    faked(kind, answer, key="lsk_secret\n").get(UNKNOWN_ID)
    assert asked == ["Bearer lsk_secret"]
    for key in ("lsk_sec\nret", "lsk_sec ret", "lsk_secrét"):
        with pytest.raises(ValueError, match=r"^the API key has characters") as caught:
            faked(kind, answer, key=key).get(UNKNOWN_ID)
        assert "ret" not in str(caught.value)
    assert "secret" not in repr(Connection(key="lsk_secret"))


def test_a_service_may_lie_under_a_path(kind: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=ADAPTER)

    transport = httpx.MockTransport(answer)
    kind("https://host.example/loras/", transport=transport).get(UNKNOWN_ID)
    assert asked == [f"/loras{URL}"]
