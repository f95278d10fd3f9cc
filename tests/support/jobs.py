"""Jobs over HTTP, for the tests of the service."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rest import JSON, engine_of, post
from starlette.testclient import TestClient

from api.cli.main import main
from api.http.app import create_app
from api.service.settings import Settings
from generator.engine import Engine

TASK = "Say whether the review is positive or negative."

ENDED = ("done", "failed", "interrupted")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks with examples; the second is a review task."""
    folder = tmp_path_factory.mktemp("tasks")
    texts = ["Name the colour.", "Is the review positive or negative?", "Add the two numbers."]
    for n, text in enumerate(texts):
        rows = [{"input": f"{text} {i}", "output": f"answer {n}"} for i in range(70)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"task{n}.jsonl").write_text(lines)
        (folder / f"task{n}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def library(tasks: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libraries") / "small"
    command = ["library", "build", "--tasks", str(tasks), "--base", str(tiny_base)]
    sizes = ["--out", str(out), "--steps", "4", "--slots", "3", "--rows", "2", "--rank", "2"]
    assert main([*command, *sizes]) == 0
    return out


@pytest.fixture(scope="module")
def engine(small_checkpoint: Path, encoder: Any, library: Path) -> Engine:
    return engine_of(Settings(library=str(library)), small_checkpoint, encoder)


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path, library: Path) -> Settings:
    bases = {"tiny": str(tiny_base)}
    return Settings(data=tmp_path / "data", bases=bases, library=str(library), retry_after=7)


@contextmanager
def client_of(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    app = create_app(settings, engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings, engine) as client:
        yield client


def made(client: TestClient, text: str = TASK) -> str:
    answer = post(client, {"description": text})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def verify(client: TestClient, adapter: str, body: Any = None) -> Any:
    url = f"/v1/adapters/{adapter}/verify"
    if body is None:
        return client.post(url)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(url, content=content, headers=JSON)


def ended(client: TestClient, url: str, seconds: float = 60) -> dict[str, Any]:
    """The job once it has ended; its progress never falls on the way."""
    before, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        body = client.get(url).json()
        assert body["progress"] >= before
        before = body["progress"]
        if body["state"] in ENDED:
            return body
        time.sleep(0.02)
    raise AssertionError(f"{url} did not end")
