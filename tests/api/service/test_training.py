"""Adapters that are trained as jobs: created from examples, and refined further."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TRAINED,
    client,
    ended,
    engine,
    library,
    made,
    send,
    service,
    settings,
    stored,
    tasks,
)
from rest import TASK, UNKNOWN_ID, assert_problem, client_of, post
from starlette.testclient import TestClient

import lorasmith
import pretrained
from api.http.schemas import AdapterAnswer, JobAnswer, TaughtBody
from api.service.making import request_json, request_of
from api.service.settings import Settings
from generator.engine import Engine
from generator.request import MAX_SEED, Request
from library.base.models import resolve_base
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.tasks.files import Example

PAIRS = [(row["input"], row["output"]) for row in EXAMPLES]


@pytest.fixture
def own_name(settings: Settings, tiny_base: Path, engine: Engine) -> Iterator[TestClient]:
    """A service whose base has the name that the Python face gives it."""
    base = str(tiny_base)
    with client_of(settings.model_copy(update={"bases": {base: base}}), engine) as client:
        yield client


# Created


@pytest.mark.parametrize(
    ("more", "strategy"),
    [
        ({"mode": "bare", "generator": "text-to-lora"}, "text-to-lora"),
        ({"description": None}, "fresh"),
    ],
)
def test_training_gives_what_the_python_face_gives(
    own_name: TestClient, settings: Settings, more: dict[str, Any], strategy: str,
    small_checkpoint: Path, tiny_base: Path,
) -> None:  # fmt: skip
    wanted = {**TRAINED, "seed": 2, "budget": 50, **more}
    asked = post(own_name, wanted, Accept="application/octet-stream")
    assert asked.status_code == 202, asked.text
    job = asked.json()
    JobAnswer.model_validate(job)
    assert asked.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["adapter"], job["hooks"]) == ("create", None, None)
    done = ended(own_name, asked.headers["location"])
    assert (done["state"], done["progress"], done["error"]) == ("done", 1.0, None)
    made = done["result"]
    assert list(made) == list(AdapterAnswer.model_fields)
    JobAnswer.model_validate(done)
    expected = lorasmith.generate(
        wanted["description"], examples=PAIRS, refine=3, mode=more.get("mode", "best"), budget=50.0,
        generator=more.get("generator", "auto"), seed=2, base=str(tiny_base),
        checkpoints=[small_checkpoint], library=settings.library,
    )  # fmt: skip
    assert (made["id"], made["sha256"]) == (expected.id, expected.sha256)
    assert made["id"] == done["adapter"]
    assert {k: v for k, v in made.items() if k in expected.summary} == expected.summary
    assert made["refined"]["examples_used"] == len(EXAMPLES)
    assert made["chosen"]["strategy"] == strategy
    assert made["usage"] == {"mode": "bare", "template": "{input}"}
    assert own_name.get(f"/v1/adapters/{made['id']}").json() == made
    for name, file in made["files"].items():
        assert own_name.get(file["url"]).content == expected.files[name]
    assert stored(settings) == [made["id"]]


def test_a_start_for_all_tasks_is_offered_and_trained_from(
    client: TestClient, settings: Settings, engine: Engine
) -> None:
    folder = settings.data / "adapters" / made(client)
    wider = Engine([c.checkpoint for c in engine.generated.values()], engine.resources, [folder])
    with client_of(settings, wider) as client:
        names = [offer["name"] for offer in client.get("/v1/generators").json()["generators"]]
        assert "multi-task" in names
        plain = post(client, {"description": TASK, "generator": "multi-task"})
        assert plain.status_code == 201, plain.text
        usage = {"mode": "prompted", "template": f"{TASK}\n\n{{input}}"}
        assert (plain.json()["usage"], plain.json()["refined"]) == (usage, None)
        asked = {"description": TASK, "generator": "multi-task", "mode": "bare"}
        assert_problem(post(client, asked), 422, "invalid-field")
        trained = ended(client, post(client, TRAINED).headers["location"])["result"]
        assert (trained["chosen"]["strategy"], trained["usage"]) == ("multi-task", usage)


def test_a_page_for_people_is_among_the_files(client: TestClient) -> None:
    adapter = post(client, {"description": TASK}).json()
    page = client.get(adapter["files"][README_FILE]["url"])
    assert page.headers["content-type"].startswith("text/markdown")
    assert page.text.strip() and adapter["id"] in page.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"description": None, "examples": []}, 422),
        ({**TRAINED, "refine": 2001}, 422),
        ({**TRAINED, "budget": 0.5}, 422),
        ({**TRAINED, "generator": "magic"}, 422),
        ({**TRAINED, "base": "/etc"}, 422),
        ({**TRAINED, "examples": [{"input": "a", "output": " "}]}, 422),
        ({**TRAINED, "description": None, "generator": "text-to-lora"}, 422),
        ({**TRAINED, "description": None, "mode": "prompted"}, 422),
        ({**TRAINED, "generator": "multi-task"}, 409),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_queued(
    client: TestClient, settings: Settings, body: Any, status: int
) -> None:
    assert_problem(post(client, body), status)
    assert not (settings.data / "jobs.sqlite3").exists()


def test_what_only_training_finds_out_is_told_by_the_job(client: TestClient) -> None:
    long = [{"input": "word " * 5000, "output": "positive"}]
    asked = post(client, {"description": TASK, "examples": long, "generator": "fresh"})
    done = ended(client, asked.headers["location"])
    assert (done["state"], done["adapter"]) == ("failed", None)
    assert "tokens" in done["error"]


def test_over_the_quota_the_job_says_so(settings: Settings, engine: Engine) -> None:
    with client_of(settings.model_copy(update={"quota_bytes": 10}), engine) as client:
        done = ended(client, post(client, TRAINED).headers["location"])
        assert done["state"] == "failed" and "delete adapters" in done["error"]
        assert stored(settings) == []


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(
    st.dictionaries(texts, texts.filter(str.strip), min_size=1, max_size=3),
    st.floats(0.1, 10) | st.floats(-10, -0.1),
    st.integers(0, MAX_SEED),
    st.none() | st.integers(1, 9),
    st.sampled_from(["best", "bare"]),
    st.lists(texts.filter(str.strip), max_size=3),
)
def test_a_job_keeps_the_whole_request(
    rows: dict[str, str],
    strength: float,
    seed: int,
    refine: int | None,
    mode: Any,
    inputs: list[str],
) -> None:
    examples = tuple(Example.pair(*row) for row in rows.items())
    request = Request(
        None, 4, strength, seed, "lossless", examples, refine=refine, mode=mode, budget=9.5,
        inputs=tuple(inputs),
    )  # fmt: skip
    kept = json.loads(json.dumps(request_json(request)))
    assert request_of(kept) == request
    older = {name: value for name, value in kept.items() if name != "inputs"}
    assert request_of(older) == replace(request, inputs=())


# Refined further


def test_a_stored_adapter_is_trained_further(
    own_name: TestClient, settings: Settings, tiny_base: Path, tmp_path: Path
) -> None:
    start = made(own_name)
    asked = send(own_name, f"/v1/adapters/{start}/refine", {"examples": EXAMPLES, "steps": 3})
    assert asked.status_code == 202, asked.text
    assert (asked.json()["kind"], asked.json()["adapter"]) == ("refine", None)
    done = ended(own_name, asked.headers["location"])
    JobAnswer.model_validate(done)
    adapter = done["result"]
    expected = lorasmith.refine(
        PAIRS, settings.data / "adapters" / start, steps=3, base=str(tiny_base)
    )
    assert (adapter["id"], adapter["sha256"]) == (expected.id, expected.sha256)
    assert (adapter["start"], adapter["generator"]) == (start, "refine")
    said = json.loads(expected.files[PROVENANCE_FILE])
    assert said["description"] == TASK and TASK in expected.files[README_FILE].decode()
    assert own_name.get(f"/v1/adapters/{adapter['id']}").json() == adapter
    assert stored(settings) == sorted([start, adapter["id"]])
    for name, file in adapter["files"].items():
        assert own_name.get(file["url"]).content == expected.files[name]
    further = {"examples": EXAMPLES[:3], "steps": 2, "seed": 1, "profile": "lossless", "budget": 9}
    asked = send(own_name, f"/v1/adapters/{adapter['id']}/refine", further)
    again = ended(own_name, asked.headers["location"])
    assert again["result"]["start"] == adapter["id"]


# From inputs without answers

INPUTS = [f"row {i}" for i in range(6)]


@pytest.fixture
def taught(
    settings: Settings, tiny_base: Path, engine: Engine, multi_task: Path
) -> Iterator[TestClient]:
    """A service with a teacher for its base, whose name is the one that the teacher knows."""
    base = str(tiny_base)
    checkpoints = [one.checkpoint for one in engine.generated.values()]
    whole = Engine(checkpoints, engine.resources, [multi_task])
    with client_of(settings.model_copy(update={"bases": {base: base}}), whole) as client:
        yield client


def test_examples_that_are_not_trained_on_stand_in_the_prompt(taught: TestClient) -> None:
    """The answer comes at once; training on from it is for the description alone."""
    asked = {"description": TASK, "examples": EXAMPLES[:2], "refine": 0}
    made = post(taught, asked)
    assert made.status_code == 201, made.text
    body = made.json()
    shown = "".join(f"\n\nInput: {e['input']}\nOutput: {e['output']}" for e in EXAMPLES[:2])
    assert body["usage"] == {"mode": "prompted", "template": f"{TASK}{shown}\n\n{{input}}"}
    assert body["refined"] is None and body["expected"] is None
    assert body["chosen"]["strategy"] == "multi-task"
    plain = post(taught, {"description": TASK}).json()
    assert body["sha256"] == plain["sha256"] and body["id"] != plain["id"]
    refused = post(taught, asked | {"generator": "multi-task", "mode": "bare"})
    assert refused.status_code == 422 and "mode bare is none" in refused.json()["detail"]
    url = f"/v1/adapters/{body['id']}/refine"
    further = ended(
        taught, send(taught, url, {"examples": EXAMPLES, "steps": 1}).headers["location"]
    )
    assert further["result"]["usage"] == plain["usage"]
    assert further["result"]["refined"]["held_out"] is not None


def test_inputs_are_answered_and_learned_by_a_job(
    taught: TestClient, settings: Settings, tiny_base: Path, multi_task: Path, engine: Engine
) -> None:
    wanted = {"description": TASK, "inputs": INPUTS, "refine": 3}
    asked = post(taught, wanted)
    assert asked.status_code == 202, asked.text
    done = ended(taught, asked.headers["location"])
    assert (done["state"], done["error"]) == ("done", None)
    JobAnswer.model_validate(done)
    made = done["result"]
    about = made["refined"]["inputs"]
    assert TaughtBody.model_validate(about).model_dump() == about
    assert (about["given"], about["used"], about["agreement"]["of"]) == (6, 5, 1)
    assert made["usage"] == {"mode": "bare", "template": "{input}"} and made["expected"] is None
    own = Engine([], engine.resources, [multi_task])
    request = Request(TASK, inputs=tuple(INPUTS), refine=3)
    direct = own.generate("auto", request, resolve_base(str(tiny_base)))
    assert (made["id"], made["sha256"]) == (direct.files.id, direct.files.sha256)
    # Further, on both.
    url = f"/v1/adapters/{made['id']}/refine"
    both = {"examples": EXAMPLES[:4], "inputs": INPUTS[:5], "steps": 2}
    further = ended(taught, send(taught, url, both).headers["location"])
    JobAnswer.model_validate(further)
    assert further["state"] == "done" and further["result"]["start"] == made["id"]
    refined = further["result"]["refined"]
    assert refined["examples_used"] == 4 and refined["inputs"]["used"] == 4
    assert further["result"]["chosen"]["reason"].startswith(
        "trained further on examples and inputs"
    )
    assert stored(settings) == sorted([made["id"], further["result"]["id"]])


def test_inputs_are_written_by_the_job(
    settings: Settings, engine: Engine, multi_task: Path, tiny_base: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(pretrained, "folder", lambda name: multi_task)  # the writer's, too
    own = Engine([], engine.resources, [multi_task])
    bases = settings.model_copy(update={"bases": {str(tiny_base): str(tiny_base)}})
    with client_of(bases, own) as client:
        asked = post(client, {"description": TASK, "write_inputs": 6, "refine": 2})
        assert asked.status_code == 202, asked.text
        done = ended(client, asked.headers["location"])
    assert (done["state"], done["error"]) == ("done", None)
    about = done["result"]["refined"]["inputs"]
    assert TaughtBody.model_validate(about).model_dump() == about
    assert (about["given"], about["writer"]) == (6, own.writers.weights_digest)
    request = Request(TASK, write_inputs=6, refine=2)
    direct = own.generate("auto", request, resolve_base(str(tiny_base)))
    assert done["result"]["sha256"] == direct.files.sha256


def test_a_job_on_inputs_can_be_cancelled(taught: TestClient, settings: Settings) -> None:
    endless = {"description": TASK, "inputs": INPUTS, "refine": 2000}
    job = post(taught, endless).headers["location"]
    while taught.get(job).json()["progress"] == 0:
        assert taught.get(job).json()["state"] in ("queued", "running")
        time.sleep(0.02)  # the training needs the processor
    assert taught.delete(job).json()["state"] == "cancelled"
    assert stored(settings) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"description": None}, "need a description"),
        ({"inputs": [], "refine": 1}, "refine needs examples"),
        ({"inputs": ["row", " "]}, "an input is empty"),
        ({"inputs": ["row"] * 10_000}, "not 10,000"),
        ({"inputs": ["row", 1]}, "inputs.1"),
        ({"inputs": "row"}, "inputs"),
        ({"refine": 0}, "leave out refine 0"),
        ({"mode": "prompted"}, "bare prompts"),
        ({"write_inputs": 6}, "leave out write_inputs"),
        ({"inputs": None, "write_inputs": 201}, "write_inputs must be from 1 to 200"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_is_queued(
    taught: TestClient, settings: Settings, changes: Any, words: str
) -> None:
    asked = {"description": TASK, "inputs": INPUTS, **changes}
    assert words in assert_problem(post(taught, asked), 422)["detail"]
    assert not (settings.data / "jobs.sqlite3").exists()


def test_inputs_need_a_teacher_and_a_description_to_read(
    client: TestClient, taught: TestClient, settings: Settings
) -> None:
    wanted = {"description": TASK, "inputs": INPUTS}
    for generator in ("auto", "fresh"):
        refused = assert_problem(post(client, {**wanted, "generator": generator}), 409)
        assert "nothing can answer the inputs" in refused["detail"]
    unwritten = assert_problem(post(taught, {"description": TASK, "write_inputs": 6}), 409)
    assert "nothing can write inputs" in unwritten["detail"]
    url = f"/v1/adapters/{made(client)}/refine"
    assert_problem(send(client, url, {"inputs": INPUTS}), 409, "layout-mismatch")
    unsaid = ended(
        taught, post(taught, {"examples": EXAMPLES[:3], "refine": 1}).headers["location"]
    )
    undescribed = f"/v1/adapters/{unsaid['adapter']}/refine"
    refused = assert_problem(send(taught, undescribed, {"inputs": INPUTS}), 422, "invalid-field")
    assert "need a description" in refused["detail"]
    for body in ({"inputs": []}, {"inputs": [""]}, {"inputs": ["row"] * 201}):
        assert_problem(send(taught, undescribed, body), 422, "invalid-field")


def test_refining_with_something_wrong(
    client: TestClient, settings: Settings, engine: Engine, tiny_base: Path
) -> None:
    url = f"/v1/adapters/{made(client)}/refine"
    for body in (
        {}, [], {"examples": None}, {"examples": []}, {"examples": [{"input": "a", "output": ""}]},
        {"examples": EXAMPLES, "steps": 0}, {"examples": EXAMPLES, "steps": 2001},
        {"examples": EXAMPLES, "seed": -1}, {"examples": EXAMPLES, "budget": 0},
        {"examples": EXAMPLES, "profile": "gguf"}, {"examples": EXAMPLES, "description": "x"},
        {"examples": EXAMPLES * 40}, {"examples": [{"input": "a", "output": o} for o in "bc"]},
    ):  # fmt: skip
        assert_problem(send(client, url, body), 422, "invalid-field")
    wanted = {"examples": EXAMPLES}
    assert_problem(send(client, f"/v1/adapters/{UNKNOWN_ID}/refine", wanted), 404, "not-found")
    assert not (settings.data / "jobs.sqlite3").exists()
    bases = {"another": str(tiny_base)}
    with client_of(settings.model_copy(update={"bases": bases}), engine) as other:
        detail = assert_problem(send(other, url, wanted), 422, "unknown-name")["detail"]
        assert "'tiny'" in detail and "another" in detail
