"""The OpenAPI document for people: every operation has words and an example that is true."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from rest import engine, lasting  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.batch import BatchRequest
from api.http.completion_requests import ChatCompletionRequest, TextCompletionRequest
from api.http.compose import ComposeRequest
from api.http.examples import CALLS
from api.http.name_bodies import PromoteRequest, PublishRequest
from api.http.requests import AdapterRequest, RefineRequest, VerifyRequest
from api.http.schemas import JobAnswer

REQUESTS = {
    "POST /v1/adapters/batch": BatchRequest,
    "POST /v1/adapters/compose": ComposeRequest,
    "POST /v1/adapters": AdapterRequest,
    "POST /v1/adapters/{id}/refine": RefineRequest,
    "POST /v1/adapters/{id}/verify": VerifyRequest,
    "POST /v1/chat/completions": ChatCompletionRequest,
    "POST /v1/completions": TextCompletionRequest,
    "POST /v1/names/{name}/versions": PublishRequest,
    "POST /v1/names/{name}/promote": PromoteRequest,
}


@pytest.fixture(scope="module")
def document(lasting: TestClient) -> dict[str, Any]:
    return lasting.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def shown(media: dict[str, Any]) -> list[Any]:
    """The examples of one kind of content, or of a parameter."""
    named = [example["value"] for example in media.get("examples", {}).values()]
    return named + ([media["example"]] if "example" in media else [])


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kind of content of a request and of answers of success."""
    yield from operation.get("requestBody", {}).get("content", {}).items()
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield from answer.get("content", {}).items()


def events(stream: str) -> list[dict[str, Any]]:
    """The events of a stream, as the document's item schema has them."""
    found = []
    for block in stream.strip().split("\n\n"):
        fields: dict[str, Any] = dict(line.split(": ", 1) for line in block.splitlines())
        found.append({**fields, "retry": int(fields["retry"])})
    return found


def check(schema: dict[str, Any], value: Any, document: dict[str, Any]) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_every_operation_has_its_words_and_no_call_is_stale(document: dict[str, Any]) -> None:
    found = operations(document)
    assert {*found} == {*CALLS}
    for name, operation in found.items():
        assert operation["description"].strip(), name
        assert operation["summary"] == CALLS[name].summary != "", name
        assert not operation["summary"].endswith("."), name
        assert operation["tags"], name
    summaries = [operation["summary"] for operation in found.values()]
    assert len({*summaries}) == len(summaries)


def test_every_operation_has_examples_that_fit_its_own_schemas(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        checked = 0
        for parameter in operation.get("parameters", []):
            values = shown(parameter)
            assert values or not parameter["required"], (name, parameter["name"])
            for value in values:
                check(parameter["schema"], value, document)
                checked += 1
        for media_type, media in contents(operation):
            values = shown(media)
            assert values or media_type != "application/json" or "files" in name, name
            for value in values:
                if "itemSchema" in media:
                    for event in events(value):
                        check(media["itemSchema"], event, document)
                        JobAnswer.model_validate_json(event["data"])
                else:
                    check(media["schema"], value, document)
                checked += 1
        assert checked, name


def test_a_wrong_example_would_be_found(document: dict[str, Any]) -> None:
    media = operations(document)["GET /v1/jobs/{id}"]["responses"]["200"]["content"]
    answer = media["application/json"]
    check(answer["schema"], answer["example"], document)
    for wrong in ({"state": "lost"}, {"progress": 2}, {"id": "job_1"}, {"result": {"verdict": 1}}):
        with pytest.raises(ValidationError):
            check(answer["schema"], {**answer["example"], **wrong}, document)


@pytest.mark.parametrize("name", REQUESTS)
def test_example_requests_are_taken_as_they_are(name: str) -> None:
    for body in CALLS[name].requests.values():
        request: Any = REQUESTS[name].model_validate_json(json.dumps(body))
        for made in ("to_request", "arguments", "to_suite"):
            getattr(request, made, lambda: None)()
        assert request.model_fields_set == {*body}
    assert CALLS[name].requests


def test_the_example_of_a_name_has_the_suite_that_was_published_for_it() -> None:
    published = CALLS["POST /v1/names/{name}/versions"].requests["With a suite"]
    suite = PublishRequest.model_validate(published).to_suite()
    shown = CALLS["GET /v1/names/{name}"].answers["200"]["application/json"]
    assert suite is not None and suite.to_dict() == shown["suite"]


def test_the_first_example_is_answered_as_documented(
    document: dict[str, Any], lasting: TestClient
) -> None:
    body = next(iter(CALLS["POST /v1/adapters"].requests.values()))
    answer = lasting.post("/v1/adapters", json=body)
    assert answer.status_code in (200, 201)
    made, example = answer.json(), CALLS["POST /v1/adapters"].answers["201"]["application/json"]
    assert list(made) == list(example) and {*made["files"]} == {*example["files"]}
    schema = operations(document)["POST /v1/adapters"]["responses"]["201"]["content"]
    check(schema["application/json"]["schema"], made, document)
