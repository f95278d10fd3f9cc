"""Keys over HTTP: when one is needed, which are refused, and what each scope permits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest import (  # noqa: F401  (fixtures)
    TASK,
    UNKNOWN_ID,
    assert_problem,
    bearer,
    client,
    client_of,
    engine,
    lasting,
    post,
    settings,
)
from starlette.testclient import TestClient

from api.http.body import MAX_BODY_BYTES
from api.service.keys import KeyStore
from api.service.settings import Settings
from generator.engine import Engine

PRIVATE = [
    ("GET", "/v1/generators"),
    ("GET", "/v1/base-models"),
    ("GET", "/v1/search?q=x"),
    ("POST", "/v1/adapters"),
    ("GET", f"/v1/adapters/{UNKNOWN_ID}"),
    ("DELETE", f"/v1/adapters/{UNKNOWN_ID}"),
    ("GET", f"/v1/adapters/{UNKNOWN_ID}/files/README.md"),
    ("HEAD", f"/v1/adapters/{UNKNOWN_ID}/files/README.md"),
    ("POST", f"/v1/adapters/{UNKNOWN_ID}/refine"),
    ("POST", f"/v1/adapters/{UNKNOWN_ID}/verify"),
    ("GET", "/v1/jobs/job_0"),
    ("GET", "/v1/jobs/job_0/events"),
    ("GET", "/v1/library"),
    ("GET", "/v1/library/map"),
    ("GET", f"/v1/library/{UNKNOWN_ID}"),
    ("GET", f"/v1/adapters/{UNKNOWN_ID}/archive"),
    ("GET", "/metrics"),
    ("GET", "/v1/names"),
    ("GET", "/v1/names/router"),
    ("DELETE", "/v1/names/router"),
    ("POST", "/v1/names/router/versions"),
    ("POST", "/v1/names/router/promote"),
    ("POST", "/v1/names/router/rollback"),
    ("DELETE", "/v1/jobs/job_0"),
    ("GET", "/v1/nonsense"),
    ("PUT", "/v1/adapters"),
    ("GET", "/v1"),
    ("GET", "/v1/%2e%2e/health/live"),
    ("GET", "/health/live/"),
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("locked"))


@pytest.fixture(scope="module")
def locked(keys: KeyStore, engine: Engine) -> Iterator[TestClient]:
    """A service with keys."""
    keys.create("first")
    with client_of(Settings(data=keys.folder), engine) as client:
        yield client


def test_without_keys_nothing_is_asked_for_and_what_is_sent_does_not_matter(
    lasting: TestClient,
) -> None:
    for headers in ({}, bearer("nonsense"), {"Authorization": "Basic eDp5"}):
        assert lasting.get("/v1/base-models", headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_with_keys_every_route_needs_one(locked: TestClient, method: str, path: str) -> None:
    answer = locked.request(method, path)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.status_code == 401
    if method != "HEAD":
        assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/openapi.json", "/docs"])
def test_what_stays_open(locked: TestClient, path: str) -> None:
    for headers in ({}, bearer("nonsense")):
        assert locked.get(path, headers=headers).status_code == 200


def test_only_a_bearer_key_that_is_valid_is_one(locked: TestClient, keys: KeyStore) -> None:
    key, text = keys.create("laptop")
    other, another = keys.create("desk")
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {text}"}
        assert locked.get("/v1/base-models", headers=headers).status_code == 200
    mixed = f"lsk_{key.id}_{another.rsplit('_', 1)[1]}"
    wrong = ["", text, f"Basic {text}", f"Bearer{text}", "Bearer", "Bearer ", "Bearer é"]
    wrong += [f"Bearer {word}" for word in (key.id, mixed, f"{text} {text}", text[:-1], f"{text}0")]
    for value in wrong:
        answer = locked.get("/v1/base-models", headers={"Authorization": value.encode("latin-1")})
        assert_problem(answer, 401, "unauthenticated")
        assert other.id not in answer.text and text not in answer.text


def test_a_revoked_key_is_refused_by_the_next_request(locked: TestClient, keys: KeyStore) -> None:
    key, text = keys.create("laptop")
    assert locked.get("/v1/base-models", headers=bearer(text)).status_code == 200
    KeyStore(keys.folder).revoke(key.id)
    body = assert_problem(locked.get("/v1/base-models", headers=bearer(text)), 401)
    assert "revoked" in body["detail"]


def test_the_first_key_locks_a_service_that_runs_and_its_revocation_does_not_open_it(
    client: TestClient, settings: Settings
) -> None:
    assert client.get("/v1/base-models").status_code == 200
    keys = KeyStore(settings.data)
    key, text = keys.create("laptop")
    assert_problem(client.get("/v1/base-models"), 401, "unauthenticated")
    assert client.get("/v1/base-models", headers=bearer(text)).status_code == 200
    keys.revoke(key.id)
    assert_problem(client.get("/v1/base-models"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [
        (["read"], True, False),
        (["write"], False, True),
        (["read", "write"], True, True),
        (["admin"], True, True),
    ],
)
def test_scopes(
    locked: TestClient, keys: KeyStore, scopes: list[str], reads: bool, writes: bool
) -> None:
    headers = bearer(keys.create("laptop", scopes)[1])
    for method, path in PRIVATE:
        answer = locked.request(method, path, headers=headers)
        may = reads if method in ("GET", "HEAD") else writes
        assert (answer.status_code == 403) == (not may), (method, path)
        assert answer.status_code != 401
    if not writes:
        body = assert_problem(post(locked, {"description": TASK}, **headers), 403, "forbidden")
        assert "scope write" in body["detail"]


def test_who_may_not_ask_is_told_so_whatever_the_body_is(
    locked: TestClient, keys: KeyStore
) -> None:
    reader = bearer(keys.create("viewer", ["read"])[1])
    for body in (b"{", b"{}", b" " * (MAX_BODY_BYTES + 1)):
        assert_problem(post(locked, body), 401)
        assert_problem(post(locked, body, **reader), 403)


def test_keys_that_cannot_be_read_let_nobody_in(client: TestClient, settings: Settings) -> None:
    _, text = KeyStore(settings.data).create("laptop")
    for path in settings.data.glob("keys.sqlite3*"):
        path.write_bytes(b"no database, " * 1000)
    for headers in ({}, bearer(text)):
        assert_problem(client.get("/v1/base-models", headers=headers), 500, "internal")
    assert client.get("/health/live").status_code == 200


def test_another_host_than_loopback_needs_keys_even_if_there_are_none(
    engine: Engine, tmp_path: Path
) -> None:
    with client_of(Settings(data=tmp_path, host="0.0.0.0"), engine) as client:
        assert_problem(client.get("/v1/base-models"), 401, "unauthenticated")
        headers = bearer(KeyStore(tmp_path).create("laptop")[1])
        assert client.get("/v1/base-models", headers=headers).status_code == 200


def test_the_document_names_the_key(lasting: TestClient) -> None:
    document: Any = lasting.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, methods in document["paths"].items():
        for method in methods.values():
            open_to_all = path.startswith("/health")
            assert method.get("security") == (None if open_to_all else [{"key": []}])
            assert ("401" in method["responses"]) != open_to_all
    assert "lsk_" not in json.dumps(document)
