"""Verification jobs over HTTP: queued, worked on, kept, stopped; nothing replaced but the model."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from jobs import (  # noqa: F401  (fixtures)
    ENDED,
    TASK,
    client,
    client_of,
    ended,
    generator,
    library,
    made,
    settings,
    tasks,
    verify,
)
from rest import UNKNOWN_ID, assert_problem, post
from starlette.testclient import TestClient

from api.errors import NotFound
from api.http.app import create_app
from api.http.schemas import JobAnswer
from api.service.job_store import INTERRUPTED, JobStore
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from library.errors import MissingPath, OutputError
from verification.artifact import Artifact, Context
from verification.hook import Finding
from verification.run import Hook

EXAMPLES = [{"input": f"It was number {i}.", "output": "positive"} for i in range(6)]


class Gate:
    """A hook that goes on when the test says so."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, subject: Artifact, context: Context) -> list[Finding]:
        self.started.set()
        while not self.go.wait(0.01):
            context.progress(0.5)
        about = {"id": subject.said("id")}
        return [Finding("gate", "opened", "info", "the gate was opened", about)]


def with_gate(client: TestClient) -> Gate:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    gate = Gate()
    service.hooks["gate"] = Hook("gate", 0.0, gate)
    return gate


# What a job says


def test_a_job_measures_behaviour_on_the_request_s_examples(client: TestClient) -> None:
    adapter = made(client)
    asked = verify(client, adapter, {"hooks": ["behaviour"], "examples": EXAMPLES})
    assert asked.status_code == 202
    body = asked.json()
    JobAnswer.model_validate(body)
    assert asked.headers["location"] == f"/v1/jobs/{body['id']}"
    assert (body["adapter"], body["hooks"]) == (adapter, ["behaviour"])
    done = ended(client, asked.headers["location"])
    assert (done["state"], done["progress"], done["error"]) == ("done", 1.0, None)
    JobAnswer.model_validate(done)
    (finding,) = done["result"]["findings"]
    evidence = finding["evidence"]
    others = ["task0", "task1", "task2", "mean of the rivals"]
    assert list(evidence["losses"]) == ["this adapter", "no adapter", *others]
    assert evidence["examples"] == len(EXAMPLES)
    assert evidence["source"] == "request"
    better = evidence["margin"] > 0
    assert (finding["code"] != "behaviour-no-better") is better
    assert done["result"]["verdict"] == ("accept" if better else "warn")


def test_without_examples_the_nearest_stored_task_s_are_used(
    settings: Settings, engine: Engine, tasks: Path
) -> None:
    with client_of(settings.model_copy(update={"tasks": tasks}), engine) as client:
        asked = {"hooks": ["behaviour"]}
        done = ended(client, verify(client, made(client), asked).headers["location"])
        (finding,) = done["result"]["findings"]
        assert finding["evidence"]["source"] == "task1"
        assert 0 < finding["evidence"]["similarity"] <= 1


def test_without_any_example_nothing_is_claimed(client: TestClient) -> None:
    asked = {"hooks": ["behaviour"]}
    done = ended(client, verify(client, made(client), asked).headers["location"])
    (finding,) = done["result"]["findings"]
    assert (finding["code"], finding["severity"]) == ("behaviour-unmeasured", "info")
    assert done["result"]["verdict"] == "accept"


def test_what_the_shipped_calibrations_do_not_fit_is_told_and_the_library_is_compared_with(
    client: TestClient,
) -> None:
    adapter = post(client, {"description": TASK, "generator": "nearest"}).json()["id"]
    asked = verify(client, adapter, {"hooks": ["agreement", "neighbours", "screening"]})
    done = ended(client, asked.headers["location"])
    JobAnswer.model_validate(done)
    assert done["hooks"] == ["agreement", "neighbours", "screening"]
    findings = {finding["code"]: finding for finding in done["result"]["findings"]}
    assert list(findings) == [  # the quicker first
        "screening-not-applicable",
        "neighbours-copy",
        "neighbours-e-diem",
        "agreement-not-applicable",
    ]
    near = findings["neighbours-copy"]["evidence"]["nearest"]
    assert {row["task"] for row in near} == {"task0", "task1", "task2"}
    again = client.get(asked.headers["location"])
    assert again.json() == done


def test_every_hook_but_the_limited_one_runs_when_none_is_named(client: TestClient) -> None:
    asked = verify(client, made(client), {"examples": EXAMPLES})
    quick = ["format", "integrity", "signature", "target", "statistics", "base"]
    slow = ["screening", "neighbours", "agreement", "behaviour"]
    assert asked.json()["hooks"] == [*quick, *slow]
    done = ended(client, asked.headers["location"])
    told = {finding["hook"] for finding in done["result"]["findings"]}
    assert {"statistics", *slow} <= told  # the other quick ones have nothing to say


def test_behaviour_that_cannot_be_measured_says_why(client: TestClient) -> None:
    long = [{"input": "word " * 5000, "output": "positive"}]
    asked = {"hooks": ["behaviour"], "examples": long}
    done = ended(client, verify(client, made(client), asked).headers["location"])
    assert done["state"] == "done"
    (finding,) = done["result"]["findings"]
    assert finding["code"] == "behaviour-unmeasured" and "tokens" in finding["message"]


@pytest.mark.parametrize(
    "error", [RuntimeError("/secret"), MissingPath("/secret"), OutputError("/secret")]
)
def test_an_accident_in_a_hook_tells_nothing(client: TestClient, error: Exception) -> None:
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    def broken(subject: Artifact, context: Context) -> list[Finding]:
        raise error

    service.hooks["broken"] = Hook("broken", 0.0, broken)
    job = verify(client, made(client), {"hooks": ["broken"]}).headers["location"]
    done = ended(client, job)
    assert done["state"] == "failed"
    assert "secret" not in json.dumps(done)


def test_examples_that_no_hook_would_read_are_refused(client: TestClient) -> None:
    asked = {"hooks": ["neighbours"], "examples": EXAMPLES}
    assert_problem(verify(client, made(client), asked), 422, "invalid-field")


def test_tasks_that_are_not_there_are_told_at_the_start(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(MissingPath, match="no task folder"):
        create_app(settings.model_copy(update={"tasks": tmp_path / "none"}), engine)


def test_adapters_are_made_on_trial_while_another_s_behaviour_is_measured(
    client: TestClient,
) -> None:
    """Both run on the same base model."""
    adapter, many = made(client), EXAMPLES * 5
    job = verify(client, adapter, {"hooks": ["behaviour"], "examples": many}).headers["location"]
    for number in range(3):
        text = f"Another task, number {number}."
        answer = post(client, {"description": text, "examples": EXAMPLES})
        assert answer.status_code == 201, answer.text
    assert ended(client, job)["state"] == "done"


# The queue


def test_progress_grows_and_jobs_take_turns(client: TestClient) -> None:
    gate, adapter = with_gate(client), made(client)
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
    with client_of(settings.model_copy(update={"job_queue_length": 1}), engine) as client:
        gate, adapter = with_gate(client), made(client)
        jobs = [verify(client, adapter, {"hooks": ["gate"]}).headers["location"] for _ in "12"]
        refused = verify(client, adapter, {"hooks": ["gate"]})
        assert_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "7"
        gate.go.set()
        assert [ended(client, job)["state"] for job in jobs] == ["done", "done"]
        assert verify(client, adapter, {"hooks": ["gate"]}).status_code == 202


def test_a_deleted_adapter_takes_its_jobs_along(client: TestClient) -> None:
    gate, adapter, other = with_gate(client), made(client), made(client, "Something else.")
    job = verify(client, adapter, {"hooks": ["gate"]}).headers["location"]
    assert gate.started.wait(30)
    assert client.delete(f"/v1/adapters/{adapter}").status_code == 204
    assert_problem(client.get(job), 404, "not-found")
    assert_problem(verify(client, adapter), 404, "not-found")
    after = verify(client, other, {"hooks": ["behaviour"]}).headers["location"]
    assert ended(client, after)["state"] == "done"  # the first one has ended: its hook was told
    assert not gate.go.is_set()


def test_a_damaged_job_store_ends_no_worker(client: TestClient, settings: Settings) -> None:
    gate, adapter = with_gate(client), made(client)
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


# Stopping and starting again


def test_a_stopped_service_interrupts_and_keeps(settings: Settings, engine: Engine) -> None:
    with client_of(settings, engine) as client:
        gate, adapter = with_gate(client), made(client)
        done = verify(client, adapter, {"hooks": ["behaviour"]}).headers["location"]
        kept = ended(client, done)
        running, queued = (
            verify(client, adapter, {"hooks": ["gate"]}).headers["location"] for _ in "12"
        )
        assert gate.started.wait(30)
    with client_of(settings, engine) as client:
        assert client.get(done).json() == kept
        for job in (running, queued):
            body = client.get(job).json()
            assert (body["state"], body["error"]) == ("interrupted", INTERRUPTED)
        again = verify(client, adapter, {"hooks": ["behaviour"]}).headers["location"]
        assert ended(client, again)["state"] == "done"


KILLED = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
job = store.add("ad_x", {"hooks": []})
store.advance(job.id, 0.25)
print(job.id, flush=True)
time.sleep(600)
"""


def test_the_job_of_a_killed_process_counts_as_interrupted(tmp_path: Path) -> None:
    process = tiny.start_python(KILLED, str(tmp_path))
    try:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        store = JobStore(tmp_path)
        assert store.get(identity).state == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = store.get(identity)
    assert (left.state, left.progress, left.error) == ("interrupted", 0.25, INTERRUPTED)


def test_old_jobs_make_room_and_unfinished_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.job_store.KEPT", 3)
    store = JobStore(tmp_path)
    jobs = [store.add("ad_x", {"hooks": []}) for _ in range(6)]
    for job in jobs[1:]:
        store.finish(job.id, "done", {"findings": []})
    last = store.add("ad_x", {"hooks": []})
    assert store.get(jobs[0].id).state == "queued"
    for job in jobs[1:4]:
        with pytest.raises(NotFound):
            store.get(job.id)
    assert {store.get(job.id).state for job in jobs[4:]} == {"done"}
    store.close()
    assert store.get(last.id).state == "interrupted"


# Refusing


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
    assert client.post(job).headers["allow"] == "GET"
    ended(client, job)


def test_before_the_service_has_started_no_job_is_taken(settings: Settings, engine: Engine) -> None:
    client = TestClient(create_app(settings, engine))  # without its lifespan nobody works
    answer = verify(client, made(client))
    assert_problem(answer, 503, "not-ready")
    assert answer.headers["retry-after"] == "7"
