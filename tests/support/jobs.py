"""Jobs over HTTP, for the tests of the service."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest import JSON, TASK, client_of_service, engine_of, post
from starlette.testclient import TestClient

from api.cli.main import main
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from verification.artifact import Artifact, Context
from verification.hook import Finding
from verification.run import Hook

EXAMPLES = [{"input": f"It was number {i}.", "output": "positive"} for i in range(6)]
TRAINED: dict[str, Any] = {"description": TASK, "examples": EXAMPLES, "refine": 3}
ENDED = ("done", "failed", "interrupted", "cancelled")


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


@pytest.fixture
def service(settings: Settings, engine: Engine) -> Service:
    return Service(settings, engine)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of_service(service) as client:
        yield client


class Gate:
    """A hook that goes on when the test says so."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, subject: Artifact, context: Context) -> list[Finding]:
        context.progress(0.5)
        self.started.set()
        while not self.go.wait(0.01):
            context.progress(0.5)
        evidence = {"id": subject.recorded("id")}
        return [Finding("gate", "opened", "info", "the gate was opened", evidence)]


class Halt:
    """Holds a service's training after its first step, until `go`."""

    def __init__(self, service: Service) -> None:
        self.started, self.go = threading.Event(), threading.Event()
        work = service.jobs._work

        def held(job: Any, share: Any) -> Any:
            def step(done: float) -> None:
                share(done)
                self.started.set()
                while not self.go.wait(0.01):
                    share(done)

            return work(job, step)

        service.jobs._work = held


def stored(settings: Settings) -> list[str]:
    folder = settings.data / "adapters"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def gate_of(service: Service) -> Gate:
    gate = Gate()
    service.hooks["gate"] = Hook("gate", 0.0, gate)
    return gate


def made(client: TestClient, text: str = TASK) -> str:
    answer = post(client, {"description": text})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def verify(client: TestClient, adapter: str, body: Any = None) -> Any:
    url = f"/v1/adapters/{adapter}/verify"
    return client.post(url) if body is None else send(client, url, body)


def send(client: TestClient, url: str, body: Any) -> Any:
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
