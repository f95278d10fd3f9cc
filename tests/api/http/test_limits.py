"""Quotas, full queues, a service that is loading, bases that do not fit, accidents."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

import tiny
from rest import TASK, assert_problem, client, client_of, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine


def test_over_the_quota_is_507(tmp_path: Path, engine: Engine) -> None:
    with client_of(Settings(data=tmp_path, quota_bytes=10**6), engine) as client:
        first = post(client, {"description": TASK})
        assert first.status_code == 201
        assert_problem(post(client, {"description": "Other."}), 507, "quota-exceeded")
        assert len(list((tmp_path / "adapters").iterdir())) == 1
        client.delete(first.headers["location"])
        assert post(client, {"description": "Other."}).status_code == 201


def test_a_full_line_is_503_with_retry_after(tmp_path: Path, engine: Engine) -> None:
    settings = Settings(data=tmp_path, queue_length=0, retry_after=7)
    with client_of(settings, engine) as client, ThreadPoolExecutor(2) as pool:
        with closing(sqlite3.connect(tmp_path / "owners.sqlite3", isolation_level=None)) as rows:
            rows.execute("BEGIN IMMEDIATE")  # no adapter can be stored meanwhile
            both = as_completed([pool.submit(post, client, {"description": TASK}) for _ in "12"])
            refused = next(both).result()
            assert client.get("/health/ready").status_code == 200
        assert_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "7"
        assert next(both).result().status_code == 201


def test_before_the_generator_is_loaded_only_life_is_shown(settings: Settings) -> None:
    client = TestClient(create_app(Service(settings)))  # without its lifespan nothing is loaded
    assert client.get("/health/live").json() == {"status": "live"}
    for answer in (
        client.get("/health/ready"),
        client.get("/v1/generators"),
        post(client, {"description": TASK}),
    ):
        assert_problem(answer, 503, "not-ready")
        assert answer.headers["retry-after"] == "2"


def test_a_base_that_does_not_fit_is_409(tmp_path: Path, engine: Engine) -> None:
    tiny.config("llama").save_pretrained(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    bases = {"tiny": str(tmp_path / "tiny"), "empty": str(tmp_path / "empty")}
    with client_of(Settings(data=tmp_path / "data", bases=bases), engine) as client:
        body = assert_problem(post(client, {"description": TASK}), 409, "layout-mismatch")
        assert "'tiny'" in body["detail"] and "text-to-lora" in body["detail"]
        assert_problem(post(client, {"description": TASK, "base": "empty"}), 500, "base-unreadable")


def test_an_accident_is_500_and_tells_nothing(client: TestClient, settings: Settings) -> None:
    settings.data.mkdir()
    (settings.data / "owners.sqlite3").write_bytes(b"not a database " * 100)
    body = assert_problem(post(client, {"description": TASK}), 500, "internal")
    assert "database" not in json.dumps(body)
