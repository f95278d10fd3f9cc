"""POST /v1/adapters: one adapter for a request, the bytes of the library, names of bases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from rest import TASK, assert_problem, client, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.downloads import wants_bytes
from api.http.schemas import AdapterAnswer
from generator.engine import Engine
from generator.request import Request
from library.base.models import DEFAULT_BASE, resolve_base
from library.canonical import digest
from library.peft.provenance import PROVENANCE_FILE, README_FILE
from library.peft.write import WEIGHTS_FILE


def test_an_adapter_is_made_once_and_found_again(client: TestClient) -> None:
    first = post(client, {"description": TASK})
    assert first.status_code == 201
    body = first.json()
    assert list(body) == list(AdapterAnswer.model_fields)
    AdapterAnswer.model_validate(body, strict=True)
    assert first.headers["location"] == f"/v1/adapters/{body['id']}"
    assert (body["generator"], body["chosen"]["strategy"]) == ("auto", "multi-task")
    assert len(body["chosen"]["neighbours"]) == 4 and body["chosen"]["reason"]
    assert body["base_model"] == DEFAULT_BASE
    assert (body["rank"], body["seed"]) == (8, 0)
    assert body["sha256"] == body["files"][WEIGHTS_FILE]["sha256"]
    assert body["report"]["verdict"] == "warn"  # without examples most tasks are not done
    told = client.get(body["files"][PROVENANCE_FILE]["url"]).json()
    assert told["report"] == body["report"]
    for hook in ("format", "target", "statistics", "base"):  # times are in no body
        assert f"{hook};dur=" in first.headers["server-timing"]
    again = post(client, {"description": f"  {TASK}\n", "rank": 8, "generator": None})
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert client.get(first.headers["location"]).content == first.content


def test_files_are_those_of_generate(client: TestClient, engine: Engine) -> None:
    wanted = {"description": TASK, "rank": 4, "strength": 0.5, "seed": 3, "profile": "lossless"}
    body = post(client, {**wanted, "generator": "text-to-lora"}).json()
    expected = engine.generate("text-to-lora", Request(**wanted), resolve_base()).files
    assert (body["id"], body["sha256"]) == (expected.id, expected.sha256)
    assert sorted(body["files"]) == sorted(expected.files)
    for name, file in body["files"].items():
        answer = client.get(file["url"])
        if name not in (PROVENANCE_FILE, README_FILE):  # they also name what is near
            assert answer.content == expected.files[name]
        assert file == {
            "url": file["url"],
            "sha256": digest(answer.content),
            "bytes": len(answer.content),
        }


def test_the_weights_alone_for_those_who_accept_bytes(client: TestClient) -> None:
    first = post(client, {"description": TASK}, Accept="application/octet-stream")
    again = post(client, {"description": TASK}, Accept="application/octet-stream")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["content-type"] == "application/octet-stream"
    assert first.content == again.content
    body = post(client, {"description": TASK}).json()
    assert first.headers["x-adapter-id"] == again.headers["x-adapter-id"] == body["id"]
    assert digest(first.content) == body["sha256"]
    refused = post(client, {}, Accept="application/octet-stream")
    assert_problem(refused, 422, "invalid-field")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/octet-stream", True),
        ("Application/Octet-Stream;q=0.9, */*;q=0.1", True),
        ("application/json, application/octet-stream;q=0.5", False),
        ("application/octet-stream;q=0", False),
        ("application/octet-stream, application/json;q=0.5", True),
    ],
)
def test_accept(accept: str, expected: bool) -> None:
    assert wants_bytes(accept) is expected


def test_base_names_mean_the_same_adapter(client: TestClient) -> None:
    names = [entry["name"] for entry in client.get("/v1/base-models").json()["base_models"]]
    bodies = [post(client, {"description": TASK, "base": name}).json() for name in names]
    assert len(names) == 2
    assert bodies[0] == bodies[1]


def test_the_same_request_at_the_same_time_is_one_adapter(client: TestClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(client, {"description": TASK}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.content for answer in answers}) == 1
