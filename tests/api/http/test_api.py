"""The REST service against the contract, with a real generator and nothing replaced."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from rest import JSON, UNKNOWN_ID, assert_problem, client, client_of, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

import api.service.service
from api.errors import RangeNotSatisfiable
from api.http.app import create_app
from api.http.body import MAX_BODY_BYTES
from api.http.downloads import parse_range, wants_bytes
from api.http.problems import PROBLEMS
from api.http.schemas import AdapterAnswer, AdapterRequest
from api.service.settings import Settings
from generator.engine import Engine
from generator.request import Request
from library.base.models import DEFAULT_BASE, resolve_base
from library.canonical import digest
from library.errors import LorasmithError
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import WEIGHTS_FILE

TASK = "Say whether the review is positive or negative."


@pytest.fixture(scope="module")
def lasting(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for the tests that leave no trace in it."""
    with client_of(Settings(data=tmp_path_factory.mktemp("lasting")), engine) as client:
        yield client


# Making adapters


def test_an_adapter_is_made_once_and_found_again(client: TestClient) -> None:
    first = post(client, {"description": TASK})
    assert first.status_code == 201
    body = first.json()
    assert list(body) == list(AdapterAnswer.model_fields)
    AdapterAnswer.model_validate(body, strict=True)
    assert first.headers["location"] == f"/v1/adapters/{body['id']}"
    assert (body["generator"], body["chosen"]["strategy"]) == ("auto", "text-to-lora")
    assert len(body["chosen"]["neighbours"]) == 4 and body["chosen"]["reason"]
    assert body["base_model"] == DEFAULT_BASE
    assert (body["rank"], body["seed"]) == (8, 0)
    assert body["sha256"] == body["files"][WEIGHTS_FILE]["sha256"]
    assert body["report"]["verdict"] == "accept"
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
    expected = generator.generate([Request(**wanted)], resolve_base())[0].files
    assert (body["id"], body["sha256"]) == (expected.id, expected.sha256)
    assert sorted(body["files"]) == sorted(expected.files)
    for name, file in body["files"].items():
        answer = client.get(file["url"])
        if name != PROVENANCE_FILE:  # the service's also names what is near in the library
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


# Refusing


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

    assert detail() == "the field 'description' is required"
    assert detail(description=TASK, rnak=8) == "there is no field 'rnak'"
    assert detail(description=TASK, rank="8") == "rank: input should be a valid integer"
    examples = [{"input": "a", "output": "b"}]
    refused = detail(description=TASK, examples=examples, generator="text-to-lora")
    assert "cannot use examples" in refused
    assert len(detail(description=TASK, generator="x\n" * 10_000)) <= 500


def test_no_examples_and_null_are_as_good_as_absent(lasting: TestClient) -> None:
    body = dict.fromkeys(AdapterRequest.model_fields) | {"description": TASK}
    assert post(lasting, {**body, "examples": []}).json() == post(lasting, body).json()


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
    for path in ["/", "/v1", "/v1/adapters/", "/v1/adapters/%ff", "/health", "/etc/passwd"]:
        assert_problem(lasting.get(path), 404, "not-found")
    for method, path, allowed in [
        ("PUT", "/v1/adapters", "POST"),
        ("POST", f"/v1/adapters/{UNKNOWN_ID}", "GET, DELETE"),
        ("DELETE", f"/v1/adapters/{UNKNOWN_ID}/files/{WEIGHTS_FILE}", "GET, HEAD"),
        ("POST", "/health/live", "GET"),
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
    if answer.status_code not in (200, 201):
        assert answer.status_code in (400, 422)
        assert_problem(answer, answer.status_code)


# Files


def test_files_have_tags_and_ranges(client: TestClient) -> None:
    file = post(client, {"description": TASK}).json()["files"][WEIGHTS_FILE]
    url, size, tag = file["url"], file["bytes"], f'"{file["sha256"]}"'
    whole = client.get(url)
    assert whole.headers["etag"] == tag
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(size) == str(len(whole.content))

    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(whole.headers)

    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = client.get(url, headers={"If-None-Match": value})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200

    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert part.headers["content-length"] == "10"
    assert client.get(url, headers={"Range": "bytes=-7"}).content == whole.content[-7:]
    assert client.get(url, headers={"Range": "bytes=5-", "If-Range": tag}).status_code == 206
    for headers in ({"Range": "bytes=5-", "If-Range": '"other"'}, {"Range": "bytes=1-2,4-5"}):
        assert client.get(url, headers=headers).content == whole.content

    beyond = client.get(url, headers={"Range": f"bytes={size}-"})
    assert_problem(beyond, 416, "range-not-satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{size}"


@given(st.integers(0, 12), st.integers(0, 12) | st.none(), st.integers(1, 10))
def test_ranges_are_slices(first: int, last: int | None, size: int) -> None:
    data = list(range(size))
    header = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert parse_range(header, size) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, size)
    else:
        stop = None if last is None else last + 1
        assert list(parse_range(header, size) or ()) == data[first:stop]
    if first:
        assert list(parse_range(f"bytes=-{first}", size) or ()) == data[-first:]


@pytest.mark.parametrize("header", ["", "bytes", "bytes=-", "items=0-1", "bytes=a-b", "bytes=٣-٤"])
def test_senseless_ranges_are_ignored(header: str) -> None:
    assert parse_range(header, 10) is None


def test_unknown_adapters_and_files_are_not_found(client: TestClient) -> None:
    url = post(client, {"description": TASK}).headers["location"]
    for path in [
        f"{url}/files/other.json",
        f"{url}/files/..%2F..%2Fowners.sqlite3",
        f"{url.upper()}",
        f"{url}0",
        f"/v1/adapters/{UNKNOWN_ID}",
        f"/v1/adapters/{UNKNOWN_ID}/files/{WEIGHTS_FILE}",
        "/v1/adapters/..%2F..",
    ]:
        assert_problem(client.get(path), 404, "not-found")
        assert client.head(f"{url}/files/other.json").status_code == 404
    assert_problem(client.delete(f"/v1/adapters/{UNKNOWN_ID}"), 404, "not-found")


def test_a_deleted_adapter_is_gone_and_can_be_made_again(client: TestClient) -> None:
    first = post(client, {"description": TASK})
    url, file = first.headers["location"], first.json()["files"][WEIGHTS_FILE]["url"]
    deleted = client.delete(url)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for answer in (client.delete(url), client.get(url), client.get(file)):
        assert_problem(answer, 404, "not-found")
    again = post(client, {"description": TASK})
    assert (again.status_code, again.content) == (201, first.content)


def test_a_file_removed_by_hand_is_not_found_until_asked_for_again(
    client: TestClient, settings: Settings
) -> None:
    body = post(client, {"description": TASK}).json()
    (settings.data / "adapters" / body["id"] / WEIGHTS_FILE).unlink()
    assert_problem(client.get(body["files"][WEIGHTS_FILE]["url"]), 404)
    assert_problem(client.get(f"/v1/adapters/{body['id']}"), 404)
    assert post(client, {"description": TASK}).json() == body
    assert client.get(body["files"][WEIGHTS_FILE]["url"]).status_code == 200
    shutil.rmtree(settings.data)
    assert_problem(client.get(f"/v1/adapters/{body['id']}"), 404)
    assert post(client, {"description": TASK}).status_code == 201


# Limits and failures


def test_over_the_quota_is_507(tmp_path: Path, engine: Engine) -> None:
    with client_of(Settings(data=tmp_path, quota_bytes=10**6), engine) as client:
        first = post(client, {"description": TASK})
        assert first.status_code == 201
        assert_problem(post(client, {"description": "Other."}), 507, "quota-exceeded")
        assert len(list((tmp_path / "adapters").iterdir())) == 1
        client.delete(first.headers["location"])
        assert post(client, {"description": "Other."}).status_code == 201


def test_a_full_line_is_503_with_retry_after(tmp_path: Path, engine: Engine) -> None:
    settings = Settings(data=tmp_path, queue_length=0, retry_after=7)
    with client_of(settings, engine) as client:
        service: api.service.service.Service = client.app.state.service  # type: ignore[attr-defined]
        with service.admission.place():
            refused = post(client, {"description": TASK})
            assert_problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "7"
            assert client.get("/health/ready").status_code == 200
        assert post(client, {"description": TASK}).status_code == 201


def test_before_the_generator_is_loaded_only_life_is_shown(settings: Settings) -> None:
    client = TestClient(create_app(settings))  # without its lifespan nothing is loaded
    assert client.get("/health/live").json() == {"status": "live"}
    for answer in (
        client.get("/health/ready"),
        client.get("/v1/generators"),
        post(client, {"description": TASK}),
    ):
        assert_problem(answer, 503, "not-ready")
        assert answer.headers["retry-after"] == "2"


def test_a_base_that_does_not_fit_is_409(tmp_path: Path, engine: Engine) -> None:
    tiny.config("llama").save_pretrained(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    bases = {"tiny": str(tmp_path / "tiny"), "empty": str(tmp_path / "empty")}
    with client_of(Settings(data=tmp_path / "data", bases=bases), engine) as client:
        body = assert_problem(post(client, {"description": TASK}), 409, "layout-mismatch")
        assert "'tiny'" in body["detail"] and "text-to-lora" in body["detail"]
        assert_problem(post(client, {"description": TASK, "base": "empty"}), 500, "base-unreadable")


def test_an_accident_is_500_and_tells_nothing(client: TestClient, settings: Settings) -> None:
    settings.data.mkdir()
    (settings.data / "owners.sqlite3").write_bytes(b"not a database " * 100)
    body = assert_problem(post(client, {"description": TASK}), 500, "internal")
    assert "database" not in json.dumps(body)


# What is offered


def test_offers_and_health(lasting: TestClient, engine: Engine) -> None:
    assert lasting.get("/health/ready").json() == {"status": "ready"}
    offers = {o["name"]: o for o in lasting.get("/v1/generators").json()["generators"]}
    assert list(offers) == ["auto", "text-to-lora", "nearest", "compose"]
    assert [name for name, offer in offers.items() if offer["default"]] == ["auto"]
    assert [name for name, offer in offers.items() if offer["uses_examples"]] == ["auto"]
    assert offers["text-to-lora"]["checkpoint"] == generator.checkpoint.digest
    assert offers["nearest"]["checkpoint"] is None
    bases = lasting.get("/v1/base-models").json()["base_models"]
    assert bases[0] == {"name": DEFAULT_BASE, "default": True, "base_model": DEFAULT_BASE}


def test_the_openapi_document_is_true(lasting: TestClient) -> None:
    document = lasting.get("/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operation = document["paths"]["/v1/adapters"]["post"]
    statuses = {str(kind.status) for kind in PROBLEMS.values()} - {"404", "405", "416", "501"}
    assert set(operation["responses"]) == statuses | {"200", "201", "default"}
    assert operation["requestBody"]["required"] is True
    for path in document["paths"].values():
        for method in path.values():
            for status, answer in method["responses"].items():
                if status == "default" or status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"]
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == list(PROBLEMS)
    assert lasting.get("/docs").status_code == 200


def test_errors_and_the_listed_problems_agree() -> None:
    def kinds(kind: type[LorasmithError]) -> set[type[LorasmithError]]:
        return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))

    for kind in kinds(LorasmithError):
        if kind.code in PROBLEMS:
            assert PROBLEMS[kind.code].status == kind.status, kind
