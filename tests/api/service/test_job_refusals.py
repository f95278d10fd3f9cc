"""Verification requests with something wrong: which problem."""

from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    client,
    ended,
    engine,
    library,
    made,
    service,
    settings,
    tasks,
    verify,
)
from rest import LOCALHOST, UNKNOWN_ID, assert_problem
from starlette.testclient import TestClient

from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "invalid-field"),
        ("behaviour", "invalid-field"),
        ({"hook": ["behaviour"]}, "invalid-field"),
        ({"hooks": "behaviour"}, "invalid-field"),
        ({"hooks": [1]}, "invalid-field"),
        ({"hooks": []}, "invalid-field"),
        ({"hooks": ["behaviour"] * 17}, "invalid-field"),
        ({"examples": [{"input": "a"}]}, "invalid-field"),
        ({"examples": [EXAMPLES[0]] * 257}, "invalid-field"),
        ({"hooks": ["nonsense"]}, "unknown-name"),
        ({"hooks": ["behaviour", "behaviour"]}, "invalid-field"),
        ({"zk": {"modules": 1}}, "invalid-field"),
        ({"hooks": ["zk"], "zk": {"modules": 0}}, "invalid-field"),
        ({"hooks": ["zk"], "zk": {"modules": 1000}}, "invalid-field"),
        ({"hooks": ["format", "zk"], "zk": {"modules": 5}}, "invalid-field"),
        ({"hooks": ["zk"], "zk": {"modules": "some"}}, "invalid-field"),
        ({"hooks": ["zk"], "zk": {"nonce": "short"}}, "invalid-field"),
        ({"hooks": ["zk"], "zk": {"nonce": "a line\nand another"}}, "invalid-field"),
        ({"examples": [{"input": "\ud800", "output": ""}]}, "invalid-field"),
    ],
)
def test_a_wrong_field_is_422(client: TestClient, body: Any, code: str) -> None:
    assert_problem(verify(client, made(client), body), 422, code)


def test_what_is_not_json_is_refused(client: TestClient) -> None:
    adapter = made(client)
    assert_problem(verify(client, adapter, b"{"), 400, "malformed-body")
    other = client.post(f"/v1/adapters/{adapter}/verify", content=b"{}")
    assert_problem(other, 415, "not-json")
    for empty in (b"null", b"{}", b'{"hooks": null, "examples": null}'):
        assert verify(client, adapter, empty).status_code == 202


def test_unknown_jobs_adapters_and_methods(client: TestClient) -> None:
    adapter = made(client)
    for path in ("/v1/jobs/job_" + "0" * 32, "/v1/jobs/..%2F..", "/v1/jobs/", "/v1/jobs"):
        assert_problem(client.get(path), 404, "not-found")
    for wrong in (UNKNOWN_ID, "nonsense", adapter.upper()):
        assert_problem(verify(client, wrong), 404, "not-found")
    answer = client.get(f"/v1/adapters/{adapter}/verify")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    job = verify(client, adapter).headers["location"]
    assert client.post(job).headers["allow"] == "GET, DELETE"
    ended(client, job)


def test_before_the_service_has_started_no_job_is_taken(settings: Settings, engine: Engine) -> None:
    app = create_app(Service(settings, engine))
    client = TestClient(app, LOCALHOST)  # its lifespan never starts
    answer = verify(client, made(client))
    assert_problem(answer, 503, "not-ready")
    assert answer.headers["retry-after"] == "7"
