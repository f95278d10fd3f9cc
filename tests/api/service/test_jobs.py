"""Verification jobs over HTTP: what the hooks say about a stored adapter."""

import json
from pathlib import Path

import pytest
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TASK,
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
from rest import assert_problem, client_of, post
from starlette.testclient import TestClient

from api.http.schemas import JobAnswer
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from library.errors import MissingPath, OutputError
from verification.artifact import Artifact, Context
from verification.hook import Finding
from verification.run import Hook


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
    assert evidence["right"]["this adapter"] == 0  # whatever its rivals do
    assert (finding["code"], done["result"]["verdict"]) == ("behaviour-fails", "warn")


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
    quick = ["format", "integrity", "expected", "signature", "target", "statistics", "base"]
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
def test_an_accident_in_a_hook_tells_nothing(
    service: Service, client: TestClient, error: Exception
) -> None:

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
        Service(settings.model_copy(update={"tasks": tmp_path / "none"}), engine)


def test_adapters_are_made_on_trial_while_another_s_behaviour_is_measured(
    client: TestClient,
) -> None:
    """Both run on the same base model."""
    adapter, many = made(client), EXAMPLES * 5
    job = verify(client, adapter, {"hooks": ["behaviour"], "examples": many}).headers["location"]
    for number in range(3):
        text = f"Another task, number {number}."
        answer = post(client, {"description": text, "examples": EXAMPLES, "refine": 0})
        assert answer.status_code == 201, answer.text
    assert ended(client, job)["state"] == "done"
