"""Requests and problems, for the tests of the service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

import pretrained
from api.http.app import create_app
from api.http.listening import listen, server_config
from api.http.problems import PROBLEMS
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine, read_generator
from generator.resources import Resources
from library.store.open import open_library

JSON = {"Content-Type": "application/json"}

TASK = "Say whether the review is positive or negative."

LOCALHOST = "http://localhost:8000"  # a name of the service

UNKNOWN_ID = "ad_" + "0" * 40


def engine_of(settings: Settings, checkpoint: Path, encoder: Any) -> Engine:
    """An engine as the settings have it, whose encoder is loaded already."""
    library = open_library(settings.library or str(pretrained.folder("library")))
    return Engine([read_generator(checkpoint)], Resources(library, encoders=[encoder]))


@pytest.fixture(scope="module")
def engine(checkpoint: Path, encoder: Any) -> Engine:
    return engine_of(Settings(), checkpoint, encoder)


@pytest.fixture
def settings(tmp_path: Path, checkpoint: Path) -> Settings:
    return Settings(data=tmp_path / "data", checkpoints={"text-to-lora": checkpoint})


@contextmanager
def client_of(settings: Settings, engine: Engine | None) -> Iterator[TestClient]:
    with client_of_service(Service(settings, engine)) as client:
        yield client


@contextmanager
def client_of_service(service: Service) -> Iterator[TestClient]:
    app = create_app(service)
    with TestClient(app, LOCALHOST, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serving(app: FastAPI) -> Iterator[int]:
    """The port of a real server on loopback."""
    server = uvicorn.Server(server_config(app))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings, engine) as client:
        yield client


@pytest.fixture(scope="module")
def lasting(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for the tests that leave no trace in it."""
    with client_of(Settings(data=tmp_path_factory.mktemp("lasting")), engine) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    """The header of a request with a key."""
    return {"Authorization": f"Bearer {key}"}


def use(client: TestClient, key: str) -> None:
    """Send a key with every request from now on."""
    client.headers.update(bearer(key))


def post(client: TestClient, body: Any = None, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/adapters", content=content, headers={**JSON, **headers})


def assert_problem(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {*body} - {"instance"} == {"code", "detail", "status", "title", "type"}
    request = response.headers.get("x-request-id")  # of the service's own answers
    assert body.get("instance") == (request and f"urn:lorasmith:request:{request}")
    assert body["status"] == status == PROBLEMS[body["code"]].status
    assert body["type"] == PROBLEMS[body["code"]].type
    assert body["detail"] and "\n" not in body["detail"] and "Traceback" not in body["detail"]
    assert code is None or body["code"] == code
    return body
