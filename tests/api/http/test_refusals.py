"""POST /v1/adapters with something wrong: which problem, and one sentence that says why."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest import TASK, UNKNOWN_ID, assert_problem, engine, lasting, post  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.body import MAX_BODY_BYTES
from api.http.requests import AdapterRequest
from library.base.models import DEFAULT_BASE
from library.peft.write import WEIGHTS_FILE


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid-field"),
        ([], "invalid-field"),
        (None, "invalid-field"),
        ("text", "invalid-field"),
        ({"description": None}, "invalid-field"),
        ({"description": 5}, "invalid-field"),
        ({"description": " \n"}, "invalid-description"),
        ({"description": "x" * 8193}, "invalid-description"),
        ({"description": "\ud800"}, "invalid-description"),
        ({"description": TASK, "rank": True}, "invalid-field"),
        ({"description": TASK, "rank": "8"}, "invalid-field"),
        ({"description": TASK, "rank": 8.0}, "invalid-field"),
        ({"description": TASK, "rank": 0}, "invalid-field"),
        ({"description": TASK, "rank": 257}, "invalid-field"),
        ({"description": TASK, "strength": 0}, "invalid-field"),
        ({"description": TASK, "strength": "1"}, "invalid-field"),
        ({"description": TASK, "strength": True}, "invalid-field"),
        ({"description": TASK, "strength": 10**400}, "invalid-field"),
        ({"description": TASK, "seed": -1}, "invalid-field"),
        ({"description": TASK, "seed": 2**53}, "invalid-field"),
        ({"description": TASK, "profile": "gguf"}, "invalid-field"),
        ({"description": TASK, "refine": -1}, "invalid-field"),
        ({"description": TASK, "refine": True}, "invalid-field"),
        ({"description": TASK, "mode": "loud"}, "invalid-field"),
        ({"description": TASK, "budget": 0}, "invalid-field"),
        ({"description": TASK, "budget": "60"}, "invalid-field"),
        ({"description": TASK, "Rank": 8}, "invalid-field"),
        ({"description": TASK, "\ud800": 8}, "invalid-field"),
        ({"description": TASK, "examples": "no"}, "invalid-field"),
        ({"description": TASK, "examples": [0] * 300_000}, "invalid-field"),
        ({"description": TASK, "examples": [{"input": "a"}]}, "invalid-field"),
        ({"description": TASK, "examples": [{"input": "\ud800", "output": ""}]}, "invalid-field"),
        ({"description": TASK, "examples": [{"input": "", "output": ""}] * 201}, "invalid-field"),
        ({"description": TASK, "generator": "magic"}, "unknown-name"),
        ({"description": TASK, "generator": "\ud800"}, "unknown-name"),
        ({"description": TASK, "base": "openai-community/gpt2"}, "unknown-name"),
        ({"description": TASK, "base": "/etc"}, "unknown-name"),
        ({"description": TASK, "base": "../.."}, "unknown-name"),
        ({"description": TASK, "base": ""}, "unknown-name"),
    ],
)
def test_a_wrong_field_is_422(lasting: TestClient, body: Any, code: str) -> None:
    assert_problem(post(lasting, body), 422, code)


def test_what_is_wrong_is_said(lasting: TestClient) -> None:
    def detail(**body: Any) -> str:
        return assert_problem(post(lasting, body), 422)["detail"]

    assert detail() == "a description is needed, or examples to train on"
    assert detail(description=TASK, rnak=8) == "there is no field 'rnak'"
    assert detail(description=TASK, rank="8") == "rank: input should be a valid integer"
    examples = [{"input": "a", "output": "b"}]
    asked = {"description": TASK, "examples": examples}
    assert "without training" in detail(**asked, generator="text-to-lora", refine=0)
    assert "without training" in detail(**asked, generator="sg-lora", refine=0)
    for name in ("sg-lora", "icm-lora", "lofa"):
        missing = f"there is no checkpoint of {name} to generate with"
        assert detail(description=TASK, generator=name) == missing
        assert detail(**asked, generator=name) == missing
        assert detail(examples=examples, generator=name) == missing
    assert "steps must be" in detail(**asked, refine=2001)
    assert "needs examples" in detail(description=TASK, refine=5)
    assert "a description is needed" in detail(examples=examples, refine=0)
    assert "a description is needed" in detail(examples=examples, generator="text-to-lora")
    assert "needs a description" in detail(examples=examples, mode="prompted")
    twice = [*examples, {"input": "a", "output": "c"}]
    assert "differently" in detail(description=TASK, examples=twice)
    assert len(detail(description=TASK, generator="x\n" * 10_000)) <= 500


def test_no_examples_and_null_are_as_good_as_absent(lasting: TestClient) -> None:
    body = dict.fromkeys(AdapterRequest.model_fields) | {"description": TASK}
    same = {**body, "examples": [], "refine": 0}
    assert post(lasting, same).json() == post(lasting, body).json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"description": "caf\xe9"}',
        '{"description": "x"}'.encode("utf-16"),
        b'{"description": NaN}',
        b'{"description": "x", "strength": Infinity}',
        b"[" * 200_000,
        b'{"a":' * 150_000,
        b'{"description": "x", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_json_is_400(lasting: TestClient, body: bytes) -> None:
    assert_problem(post(lasting, body), 400, "malformed-body")


@pytest.mark.parametrize("nested", [b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900])
def test_deep_json_is_422(lasting: TestClient, nested: bytes) -> None:
    assert_problem(post(lasting, nested), 422)
    assert_problem(post(lasting, b'{"description": "x", "examples": ' + nested + b"}"), 422)


def test_an_infinite_strength_is_422(lasting: TestClient) -> None:
    assert_problem(post(lasting, b'{"description": "x", "strength": 1e999}'), 422)


@pytest.mark.parametrize("media", ["text/plain", "", "application/x-www-form-urlencoded", "json"])
def test_other_media_types_are_415(lasting: TestClient, media: str) -> None:
    assert_problem(post(lasting, {"description": TASK}, **{"Content-Type": media}), 415)


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/Problem+JSON"])
def test_json_by_other_names_is_read(lasting: TestClient, media: str) -> None:
    assert_problem(post(lasting, {}, **{"Content-Type": media}), 422)


def test_a_body_may_have_one_mebibyte(lasting: TestClient) -> None:
    padding = b" " * (MAX_BODY_BYTES - 2)
    assert_problem(post(lasting, b"{" + padding + b"}"), 422)
    assert_problem(post(lasting, b"{ " + padding + b"}"), 413, "body-too-large")
    assert_problem(post(lasting, b"{ " + padding + b"}", **{"Content-Length": "10"}), 413)


def test_unknown_paths_and_methods(lasting: TestClient) -> None:
    for path in ["/v1", "/v1/adapters/", "/v1/adapters/%ff", "/health", "/etc/passwd"]:
        assert_problem(lasting.get(path), 404, "not-found")
    for method, path, allowed in [
        ("PUT", "/v1/adapters", "GET, POST"),
        ("GET", f"/v1/adapters/{UNKNOWN_ID}/refine", "POST"),
        ("POST", f"/v1/adapters/{UNKNOWN_ID}", "GET, DELETE"),
        ("DELETE", f"/v1/adapters/{UNKNOWN_ID}/files/{WEIGHTS_FILE}", "GET, HEAD"),
        ("POST", "/health/live", "GET"),
        ("POST", "/", "GET, HEAD"),
    ]:
        answer = lasting.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["text-to-lora", DEFAULT_BASE, "portable", "\ud800", "../x", 8, 1.5])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
fields = st.sampled_from([*AdapterRequest.model_fields, "extra"])
bodies = (
    st.dictionaries(fields, values).map(json.dumps)
    | values.map(json.dumps)
    | st.dictionaries(fields, scalars).map(lambda d: json.dumps({"description": "x", **d}))
).map(str.encode) | st.binary(max_size=64)


@given(bodies)
def test_no_body_makes_the_service_fail(lasting: TestClient, body: bytes) -> None:
    answer = post(lasting, body)
    if answer.status_code not in (200, 201, 202):
        assert answer.status_code in (400, 422)
        assert_problem(answer, answer.status_code)
