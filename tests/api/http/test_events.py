"""A job followed by server-sent events, over a real connection where it matters."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
import uvicorn
from jobs import (  # noqa: F401  (fixtures)
    client,
    engine,
    gate_of,
    library,
    made,
    service,
    settings,
    tasks,
    verify,
)
from rest import JSON, TASK, assert_problem
from starlette.testclient import TestClient

from api.http import events
from api.http.app import create_app
from api.http.schemas import JobAnswer
from api.service.callers import Caller
from api.service.service import Service
from api.service.store import LOCAL

Event = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.02)


def parsed(block: str) -> Event:
    """One event: its name and its data; it names the time until a new try."""
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    assert sorted(fields) == ["data", "event", "retry"]
    assert fields["retry"] == "7000"  # retry_after of the settings
    job = json.loads(fields["data"])
    JobAnswer.model_validate(job)
    return fields["event"], job


def blocks(lines: Iterator[str]) -> Iterator[str]:
    block: list[str] = []
    for line in lines:
        if line:
            block.append(line)
        else:
            yield "\n".join(block)
            block = []


@contextmanager
def served(service: Service) -> Iterator[tuple[httpx.Client, uvicorn.Server]]:
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=30) as client:
                yield client, server
        finally:
            server.should_exit = True
            thread.join()


def gated(client: Any, service: Service) -> tuple[Any, str]:
    """A verification that waits, and the path of its job."""
    gate = gate_of(service)
    job = verify(client, made(client), {"hooks": ["gate"]}).headers["location"]
    assert gate.started.wait(30)
    return gate, job


def test_a_job_is_followed_from_its_present_state_to_its_end(service: Service) -> None:
    with served(service) as (client, _):
        gate, job = gated(client, service)
        with client.stream("GET", f"{job}/events", headers={"Last-Event-ID": "9"}) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-cache"
            stream = blocks(answer.iter_lines())
            name, first = parsed(next(stream))  # at once, while nothing changes
            assert (name, first["state"], first["progress"]) == ("progress", "running", 0.5)
            service.jobs.store.advance(first["id"], 0.75)
            name, second = parsed(next(stream))
            assert (name, second["state"], second["progress"]) == ("progress", "running", 0.75)
            gate.go.set()
            rest = [parsed(block) for block in stream]  # the stream ends by itself
        assert [name for name, _ in rest][-1] == "done"
        assert all(name == "progress" for name, _ in rest[:-1])
        assert rest[-1][1] == client.get(job).json()


def test_a_job_that_has_ended_is_one_event(client: TestClient, service: Service) -> None:
    gate, job = gated(client, service)
    client.delete(job)
    gate.go.set()
    (block,) = blocks(iter(client.get(f"{job}/events").text.split("\n")[:-1]))
    name, body = parsed(block)
    assert (name, body["state"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_job_that_came_to_nothing_says_how(
    state: Any, client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.jobs.store, "take", lambda *_, **__: None)  # nobody works on it
    job = service.jobs.store.add(LOCAL, "", {"kind": "create"})
    service.jobs.store.fail(job.id, state, "for a reason")
    (block,) = blocks(iter(client.get(f"/v1/jobs/{job.id}/events").text.split("\n")[:-1]))
    name, body = parsed(block)
    assert (name, body["error"]) == (state, "for a reason")


def test_a_job_that_nobody_may_see_is_404(client: TestClient, service: Service) -> None:
    for unknown in ("job_" + "0" * 32, "nonsense"):
        assert_problem(client.get(f"/v1/jobs/{unknown}/events"), 404, "not-found")
    gate, job = gated(client, service)
    adapter = client.get(job).json()["adapter"]
    gate.go.set()
    client.delete(f"/v1/adapters/{adapter}")
    assert_problem(client.get(f"{job}/events"), 404, "not-found")


def test_the_stream_ends_when_the_job_is_hidden(service: Service) -> None:
    with served(service) as (client, _):
        gate, job = gated(client, service)
        with client.stream("GET", f"{job}/events") as answer:
            stream = blocks(answer.iter_lines())
            _, body = parsed(next(stream))
            client.delete(f"/v1/adapters/{body['adapter']}")
            # The gate may have reported its progress after the first event.
            assert {parsed(block)[0] for block in stream} <= {"progress"}
        gate.go.set()


def test_comments_keep_an_idle_connection_alive(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    with served(service) as (client, _):
        gate, job = gated(client, service)
        with client.stream("GET", f"{job}/events") as answer:
            stream = blocks(answer.iter_lines())
            parsed(next(stream))
            assert [next(stream) for _ in range(2)] == [": ping", ": ping"]
        gate.go.set()


def test_nobody_looks_any_more_once_the_client_has_left(service: Service) -> None:
    looks = []
    job_of = service.job

    def looked(caller: Caller, identity: str) -> Any:
        looks.append(identity)
        return job_of(caller, identity)

    service.job = looked  # type: ignore[method-assign]
    with served(service) as (client, _):
        gate, job = gated(client, service)
        with client.stream("GET", f"{job}/events") as answer:
            parsed(next(blocks(answer.iter_lines())))
        deadline = time.monotonic() + 20
        before = -1
        while before != len(looks) and time.monotonic() < deadline:
            before = len(looks)
            time.sleep(0.3)  # fifteen looks
        assert before == len(looks)
        gate.go.set()


def test_a_server_that_stops_does_not_wait_for_a_stream(tmp_path: Path, checkpoint: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from api.http.app import run_server;"
        "import api.service.service as module; from api.service.settings import Settings;\n"
        "def work(self, job, share):\n"
        "    while True: time.sleep(0.05); share(0.5)\n"
        "module.Service._work = work\n"
        "checkpoints = {'text-to-lora': Path(sys.argv[2])}\n"
        "run_server(Settings(port=0, data=Path(sys.argv[1]), checkpoints=checkpoints))"
    )
    process = tiny.start_python(code, str(tmp_path), str(checkpoint))
    assert process.stderr is not None
    url = process.stderr.readline().split("listening on ")[1].split(";")[0]
    with httpx.Client(base_url=url, timeout=60) as client:
        while client.get("/health/ready").status_code == 503:
            time.sleep(0.1)
        body = {"description": TASK, "generator": "text-to-lora"}
        adapter = client.post("/v1/adapters", json=body).json()["id"]
        job = client.post(f"/v1/adapters/{adapter}/verify", headers=JSON).headers["location"]
        with client.stream("GET", f"{job}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("event: progress")
            process.send_signal(signal.SIGINT)
            late = threading.Timer(20, process.kill)
            late.start()
            list(lines)
    _, errors = process.communicate(timeout=60)
    late.cancel()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
