"""The queue of jobs: turns, limits, deletion, damage, and a stopped service."""

import time
from typing import Any

from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    client,
    ended,
    engine,
    gate_of,
    library,
    made,
    service,
    settings,
    tasks,
    verify,
)
from rest import assert_problem, client_of, client_of_service
from starlette.testclient import TestClient

from api.service.job_store import INTERRUPTED
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine


def test_progress_grows_and_jobs_take_turns(service: Service, client: TestClient) -> None:
    gate, adapter = gate_of(service), made(client)
    first = verify(client, adapter, {"hooks": ["gate"]}).headers["location"]
    second = verify(client, adapter, {"hooks": ["behaviour"], "examples": EXAMPLES})
    assert gate.started.wait(30)
    time.sleep(0.05)
    running = client.get(first).json()
    assert (running["state"], running["progress"]) == ("running", 0.5)
    assert client.get(second.headers["location"]).json()["state"] == "queued"
    assert client.get("/health/ready").status_code == 200
    gate.go.set()
    assert ended(client, first)["result"]["findings"][0]["evidence"] == {"id": adapter}
    assert ended(client, second.headers["location"])["state"] == "done"


def test_a_full_queue_is_503_and_drains(settings: Settings, engine: Engine) -> None:
    service = Service(settings.model_copy(update={"job_queue_length": 1}), engine)
    with client_of_service(service) as client:
        gate, adapter = gate_of(service), made(client)
        jobs = [verify(client, adapter, {"hooks": ["gate"]}).headers["location"] for _ in "12"]
        refused = verify(client, adapter, {"hooks": ["gate"]})
        assert_problem(refused, 429, "overloaded")
        assert refused.headers["retry-after"] == "7"
        gate.go.set()
        assert [ended(client, job)["state"] for job in jobs] == ["done", "done"]
        assert verify(client, adapter, {"hooks": ["gate"]}).status_code == 202


def test_a_deleted_adapter_takes_its_jobs_along(service: Service, client: TestClient) -> None:
    gate, adapter, other = gate_of(service), made(client), made(client, "Something else.")
    job = verify(client, adapter, {"hooks": ["gate"]}).headers["location"]
    assert gate.started.wait(30)
    assert client.delete(f"/v1/adapters/{adapter}").status_code == 204
    assert_problem(client.get(job), 404, "not-found")
    assert_problem(verify(client, adapter), 404, "not-found")
    after = verify(client, other, {"hooks": ["behaviour"]}).headers["location"]
    assert ended(client, after)["state"] == "done"  # the first one has ended: its hook was told
    assert not gate.go.is_set()


def test_a_damaged_job_store_ends_no_worker(
    service: Service, client: TestClient, settings: Settings
) -> None:
    gate, adapter = gate_of(service), made(client)
    verify(client, adapter, {"hooks": ["gate"]})
    assert gate.started.wait(30)
    end = time.monotonic() + 30

    def answer(status: int) -> Any:
        while (asked := verify(client, adapter, {"hooks": ["gate"]})).status_code != status:
            assert time.monotonic() < end, asked.text
            if status == 507:  # what was being written may have mended the file
                damage()
        return asked

    def damage() -> None:
        for path in settings.data.glob("jobs.sqlite3*"):
            path.write_bytes(b"no database, " * 1000)

    damage()
    assert_problem(answer(507), 507, "storage-failed")
    gate.go.set()
    for path in settings.data.glob("jobs.sqlite3*"):
        path.unlink()
    asked = answer(202)
    assert ended(client, asked.headers["location"])["state"] == "done"


def test_a_stopped_service_interrupts_what_runs_and_keeps_what_waits(
    service: Service, settings: Settings, engine: Engine
) -> None:
    with client_of_service(service) as client:
        gate, adapter = gate_of(service), made(client)
        done = verify(client, adapter, {"hooks": ["behaviour"]}).headers["location"]
        kept = ended(client, done)
        running, queued = (
            verify(client, adapter, {"hooks": [hook]}).headers["location"]
            for hook in ("gate", "behaviour")
        )
        assert gate.started.wait(30)
    with client_of(settings, engine) as client:
        assert client.get(done).json() == kept
        body = client.get(running).json()
        assert (body["state"], body["error"]) == ("interrupted", INTERRUPTED)
        assert ended(client, queued)["state"] == "done"
        again = verify(client, adapter, {"hooks": ["behaviour"]}).headers["location"]
        assert ended(client, again)["state"] == "done"
