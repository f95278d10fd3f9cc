"""POST /v1/adapters/batch: each request is answered as if it had come alone."""

from pathlib import Path
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TASK,
    client,
    engine,
    library,
    send,
    service,
    settings,
    stored,
    tasks,
)
from rest import assert_problem, client_of, post
from starlette.testclient import TestClient

from api.http.batch import MAX_REQUESTS, BatchAnswer
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from library.peft.provenance import PROVENANCE_FILE

URL = "/v1/adapters/batch"
OTHER = "Name the colour of the thing."

REQUESTS: list[Any] = [
    {"description": TASK, "generator": "text-to-lora"},
    {"description": ""},
    {"description": OTHER, "generator": "text-to-lora", "rank": 2, "profile": "lossless"},
    {"description": OTHER, "generator": "nearest"},
    {"description": TASK, "generator": "magic"},
    {"description": TASK, "rank": "8"},
    {"description": TASK, "Rank": 8},
    {"description": TASK, "base": "/etc"},
    {"description": "\ud800"},
    {},
    [],
    None,
    "text",
    {"description": TASK, "generator": "text-to-lora"},
    {"description": f" {OTHER}\n", "generator": "text-to-lora", "seed": 3, "strength": -0.5},
]


def test_results_are_what_each_request_alone_is_answered(
    client: TestClient, settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    client.headers["X-Request-Id"] = "same"
    answer = send(client, URL, {"requests": REQUESTS})
    assert answer.status_code == 200
    BatchAnswer.model_validate(answer.json(), strict=True)
    results = answer.json()["results"]
    apart = settings.model_copy(update={"data": tmp_path / "apart"})
    with client_of(apart, engine) as other:
        alone = [post(other, request, **{"X-Request-Id": "same"}) for request in REQUESTS]
        assert results == [one.json() for one in alone]
        for result in (result for result in results if "files" in result):
            for file in result["files"].values():  # the digests are those of the bytes
                assert client.get(file["url"]).content == other.get(file["url"]).content
    assert {one.status_code for one in alone} == {200, 201, 422}
    assert sum("id" in result for result in results) == 5


@pytest.mark.parametrize("size", [1, 2, 12])
def test_bytes_do_not_depend_on_the_size_of_the_batch(client: TestClient, size: int) -> None:
    texts = [f"{TASK} This is number {number}." for number in range(size)]
    bodies = [{"description": text, "generator": "text-to-lora"} for text in texts]
    results = send(client, URL, {"requests": bodies}).json()["results"]
    assert [result["sha256"] for result in results] == [
        post(client, body).json()["sha256"] for body in bodies
    ]
    told = [client.get(r["files"][PROVENANCE_FILE]["url"]).json() for r in results]
    assert [one["description"] for one in told] == texts


@pytest.mark.parametrize(
    "training",
    [
        {"examples": EXAMPLES},
        {"inputs": ["a"]},
        {"write_inputs": 6},
        {"examples": EXAMPLES, "refine": 0},
    ],
)
def test_training_is_for_requests_of_their_own(client: TestClient, training: Any) -> None:
    body = {"requests": [{"description": TASK, **training}, {"description": TASK}]}
    first, second = send(client, URL, body).json()["results"]
    assert first["code"] == "invalid-field" and "POST /v1/adapters" in first["detail"]
    assert "id" in second


@pytest.mark.parametrize(
    "body", [{}, {"requests": []}, {"requests": [{}] * (MAX_REQUESTS + 1)}, {"requests": {}}, []]
)
def test_a_wrong_batch_is_422(client: TestClient, settings: Settings, body: Any) -> None:
    assert_problem(send(client, URL, body), 422, "invalid-field")
    assert stored(settings) == []


def test_an_accident_is_one_result(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = service.create

    async def sometimes(caller: Any, generator: Any, request: Any, base: Any) -> Any:
        if request.seed == 1:
            raise RuntimeError("/secret")
        return await create(caller, generator, request, base)

    monkeypatch.setattr(service, "create", sometimes)
    bodies = [{"description": TASK, "seed": seed} for seed in range(3)]
    results = send(client, URL, {"requests": bodies}).json()["results"]
    assert ["id" in result for result in results] == [True, False, True]
    assert results[1]["code"] == "internal" and "secret" not in results[1]["detail"]
