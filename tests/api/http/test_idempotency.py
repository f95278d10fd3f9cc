"""Idempotency-Key: a repetition gets the first answer, and nothing is done for it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TASK,
    TRAINED,
    client,
    ended,
    engine,
    library,
    made,
    service,
    settings,
    stored,
    tasks,
)
from rest import JSON, assert_problem, use
from starlette.testclient import TestClient

from api.service import replies
from api.service.replies import Replies, Reply
from api.service.service import Service
from api.service.settings import Settings

BYTES = "application/octet-stream"
NAMED = {"description": TASK, "generator": "text-to-lora"}


def send(client: TestClient, url: str, body: Any, key: str | None, **headers: str) -> Any:
    named = {} if key is None else {"Idempotency-Key": key}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(url, content=content, headers={**JSON, **named, **headers})


def told(answer: Any) -> tuple[Any, ...]:
    kept = ("location", "content-type", "x-adapter-id", "content-length")
    return answer.status_code, answer.content, *(answer.headers.get(name) for name in kept)


def requests(client: TestClient) -> dict[str, tuple[str, Any, dict[str, str]]]:
    """One of each kind that takes a key: url, body, headers."""
    one, other = made(client), made(client, "Name the colour.")
    tar = client.get(f"/v1/adapters/{other}/archive").content
    client.delete(f"/v1/adapters/{other}")
    rows = {"examples": EXAMPLES, "steps": 1}
    return {
        "create": ("/v1/adapters", NAMED, {}),
        "bytes": ("/v1/adapters", NAMED, {"Accept": BYTES}),
        "train": ("/v1/adapters", TRAINED, {}),
        "refine": (f"/v1/adapters/{one}/refine", rows, {}),
        "compose": ("/v1/adapters/compose", {"adapters": [one, one]}, {}),
        "import": ("/v1/adapters/import", tar, {"Content-Type": "application/x-tar"}),
    }


@pytest.mark.parametrize("kind", ["create", "bytes", "train", "refine", "compose", "import"])
def test_the_first_answer_comes_again_without_work(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url, body, headers = requests(client)[kind]
    first = send(client, url, body, "mine", **headers)
    assert first.status_code == (202 if kind in ("train", "refine") else 201), first.text
    if first.status_code == 202:
        assert ended(client, first.headers["location"])["state"] == "done"
    for name in ("create", "refine", "compose", "import_adapter"):
        monkeypatch.setattr(service, name, None)
    again = send(client, url, body, "mine", **headers)
    assert told(again) == told(first)


def test_another_request_with_the_key_is_422(client: TestClient, settings: Settings) -> None:
    identity = send(client, "/v1/adapters", NAMED, "k").json()["id"]
    rows = {"examples": EXAMPLES, "steps": 1}
    for url, body, headers in (
        ("/v1/adapters", {**NAMED, "seed": 1}, {}),
        ("/v1/adapters", NAMED, {"Accept": BYTES}),
        ("/v1/adapters/compose", {"adapters": [identity]}, {}),
        (f"/v1/adapters/{identity}/refine", rows, {}),
        ("/v1/adapters/import", b"any", {"Content-Type": "application/x-tar"}),
    ):
        answer = send(client, url, body, "k", **headers)
        assert_problem(answer, 422, "idempotency-key-reused")
    assert stored(settings) == [identity]
    assert send(client, "/v1/adapters", NAMED, None).status_code == 200  # without a key, as ever
    assert send(client, "/v1/adapters", NAMED, "other").status_code == 200


def test_keys_are_the_caller_s_own(client: TestClient, service: Service) -> None:
    (_, ann), (_, ben) = service.keys.create("ann"), service.keys.create("ben")
    use(client, ann)
    first = send(client, "/v1/adapters", NAMED, "k")
    use(client, ben)
    other = send(client, "/v1/adapters", {**NAMED, "seed": 1}, "k")
    assert (first.status_code, other.status_code) == (201, 201)
    assert first.json()["id"] != other.json()["id"]


def test_while_the_first_runs_the_second_is_409(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go, make = threading.Event(), threading.Event(), service._making.generate

    def held(*arguments: Any) -> Any:
        started.set()
        assert go.wait(30)
        return make(*arguments)

    monkeypatch.setattr(service._making, "generate", held)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, client, "/v1/adapters", NAMED, "k")
        assert started.wait(30)
        assert_problem(send(client, "/v1/adapters", NAMED, "k"), 409, "idempotency-key-in-use")
        other = send(client, "/v1/adapters", {**NAMED, "seed": 1}, "k")
        assert_problem(other, 422, "idempotency-key-reused")
        go.set()
        assert first.result().status_code == 201
    assert told(send(client, "/v1/adapters", NAMED, "k")) == told(first.result())


def test_after_a_problem_the_key_is_free(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(service._making, "generate", fail)
        assert_problem(send(client, "/v1/adapters", NAMED, "k"), 500, "internal")
    wrong = {"description": TASK, "generator": "magic"}
    assert_problem(send(client, "/v1/adapters", wrong, "k"), 422, "unknown-name")
    assert send(client, "/v1/adapters", NAMED, "k").status_code == 201


def test_weights_that_were_deleted_do_not_come_again(client: TestClient) -> None:
    first = send(client, "/v1/adapters", NAMED, "k", Accept=BYTES)
    client.delete(first.headers["location"])
    assert_problem(send(client, "/v1/adapters", NAMED, "k", Accept=BYTES), 404, "not-found")


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "caf\xe9"])
def test_a_key_is_short_and_printable(client: TestClient, key: str) -> None:
    sent = {**JSON, "Idempotency-Key": key.encode("latin-1")}
    answer = client.post("/v1/adapters", content=json.dumps(NAMED), headers=sent)
    assert "Idempotency-Key" in assert_problem(answer, 422, "invalid-field")["detail"]


REPLY = Reply(201, {"location": "/x"}, b"{}")


def test_answers_go_after_a_day_and_the_oldest_beyond_a_number(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "MAX_REPLIES", 3)
    store = Replies(settings.data)
    for number in range(5):
        store.keep("ann", str(number), "f", REPLY)
    store.keep("ben", "0", "f", REPLY)
    again = Replies(settings.data)  # as after a restart
    assert [again.begin("ann", str(number), "f") for number in range(5)] == [None] * 2 + [REPLY] * 3
    assert again.begin("ben", "0", "f") == REPLY
    now = replies.time.time()
    monkeypatch.setattr(replies.time, "time", lambda: now + replies.KEPT_SECONDS + 1)
    assert again.begin("ben", "0", "g") is None
