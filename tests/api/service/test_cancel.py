"""Training jobs that are cancelled, wait, or are interrupted, and requests beside them."""

import os
import signal
import time

import tiny
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TRAINED,
    Halt,
    client,
    ended,
    engine,
    library,
    made,
    service,
    settings,
    stored,
    tasks,
    verify,
)
from rest import TASK, assert_problem, client_of, client_of_service, post
from starlette.testclient import TestClient

from api.service.job_store import INTERRUPTED
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine


def test_cancelling_in_the_middle_leaves_nothing(
    service: Service, client: TestClient, settings: Settings
) -> None:
    halt = Halt(service)
    running = post(client, TRAINED).headers["location"]
    waiting = post(client, TRAINED).headers["location"]
    assert halt.started.wait(60)
    for job in (running, waiting):
        cancelled = client.delete(job)
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        assert client.delete(job).json() == client.get(job).json() == cancelled.json()
        assert cancelled.json()["error"] is cancelled.json()["adapter"] is None
    halt.go.set()
    after = ended(client, post(client, {**TRAINED, "seed": 1}).headers["location"])
    assert after["state"] == "done"
    assert stored(settings) == [after["adapter"]]
    assert client.delete(f"/v1/jobs/{after['id']}").json() == after  # it has ended
    assert stored(settings) == [after["adapter"]]
    assert client.get(running).json()["state"] == "cancelled"
    assert_problem(client.delete("/v1/jobs/job_" + "0" * 32), 404, "not-found")


def training_processes(count: int) -> set[int]:
    """The processes that train, once there are as many as this."""
    end = time.monotonic() + 60
    while len(found := tiny.children(b"spawn_main")) != count:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_training_is_killed_at_once_and_what_kills_it_is_told(
    client: TestClient, settings: Settings
) -> None:
    endless = {**TRAINED, "refine": 2000, "examples": EXAMPLES[:1]}
    cancelled = post(client, endless).headers["location"]
    training_processes(1)
    client.delete(cancelled)
    training_processes(0)
    killed = post(client, endless).headers["location"]
    for process in training_processes(1):
        os.kill(process, signal.SIGKILL)
    done = ended(client, killed)
    assert done["state"] == "failed" and "memory" in done["error"]
    assert client.get(cancelled).json()["state"] == "cancelled"
    assert stored(settings) == []


def test_while_a_job_trains_requests_go_on_and_cancelled_jobs_make_room(
    settings: Settings, engine: Engine
) -> None:
    """Requests also that ask the same base model."""
    service = Service(settings.model_copy(update={"job_queue_length": 1}), engine)
    with client_of_service(service) as client:
        halt = Halt(service)
        first = post(client, TRAINED).headers["location"]
        assert halt.started.wait(60)
        asked = {"description": TASK, "examples": EXAMPLES, "refine": 0}
        assert post(client, asked).status_code == 201
        assert client.get(first).json()["state"] == "running"
        for _ in range(3):
            queued = post(client, TRAINED)
            assert queued.status_code == 202, queued.text
            assert_problem(post(client, TRAINED), 429, "overloaded")
            client.delete(queued.headers["location"])
        halt.go.set()
        assert ended(client, first)["state"] == "done"


def test_a_verification_can_be_cancelled(client: TestClient) -> None:
    job = verify(client, made(client), {"hooks": ["behaviour"], "examples": EXAMPLES * 20})
    state = client.delete(job.headers["location"]).json()["state"]
    assert state in ("cancelled", "done")
    assert ended(client, job.headers["location"])["state"] == state


def test_a_stopped_service_interrupts_its_training(
    service: Service, settings: Settings, engine: Engine
) -> None:
    with client_of_service(service) as client:
        halt = Halt(service)
        jobs = [post(client, TRAINED).headers["location"] for _ in "12"]
        assert halt.started.wait(60)
        training_processes(1)
    training_processes(0)
    assert stored(settings) == []
    with client_of(settings, engine) as client:
        running, waiting = jobs
        body = client.get(running).json()
        assert (body["state"], body["error"]) == ("interrupted", INTERRUPTED)
        assert client.delete(running).json() == body
        assert ended(client, waiting)["state"] == "done"
        again = ended(client, post(client, TRAINED).headers["location"])
        assert again["state"] == "done"
        kept = f"/v1/jobs/{again['id']}"
    with client_of(settings, engine) as client:
        assert client.get(kept).json() == again
        assert client.delete(f"/v1/adapters/{again['adapter']}").status_code == 204
        assert client.get(kept).json() == again  # the job did happen
