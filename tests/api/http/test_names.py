"""Names over HTTP: versions, the gate as a job, and paths that take a name for an id."""

from pathlib import Path
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    TASK,
    Halt,
    client,
    ended,
    engine,
    library,
    made,
    send,
    service,
    settings,
    tasks,
)
from rest import UNKNOWN_ID, assert_problem, client_of, use
from starlette.testclient import TestClient

import lorasmith
from api.http.name_bodies import NameAnswer, PromotionAnswer, VersionAnswer
from api.http.schemas import JobAnswer
from api.service.name_state import Scores
from api.service.service import Service
from api.service.settings import Settings
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.tasks.metrics import exact_match

INPUTS = [f"The film was number {i}." for i in range(12)]
ROWS = [{"input": text, "output": "positive"} for text in INPUTS]
NAME = "/v1/names/router"


def publish(client: TestClient, adapter: str, suite: Any = None, name: str = "router") -> Any:
    body = {"adapter": adapter, **({} if suite is None else {"suite": suite})}
    return send(client, f"/v1/names/{name}/versions", body)


def promote(client: TestClient, **asked: Any) -> dict[str, Any]:
    """The result of a promotion."""
    job = send(client, f"{NAME}/promote", asked)
    assert job.status_code == 202, job.text
    done = ended(client, job.headers["location"])
    assert (done["state"], done["error"]) == ("done", None)
    JobAnswer.model_validate(done)
    PromotionAnswer.model_validate(done["result"])
    return done["result"]


def answers_of(settings: Settings, adapter: str, base: Path) -> list[str]:
    return lorasmith.answer(INPUTS, settings.data / "adapters" / adapter, base=str(base))


@pytest.fixture
def two(client: TestClient) -> tuple[str, str]:
    return made(client), made(client, "Add the two numbers.")


def test_a_version_is_promoted_if_it_passes_as_many_rows_as_the_current_one(
    client: TestClient, settings: Settings, tiny_base: Path, two: tuple[str, str]
) -> None:
    said = [answers_of(settings, adapter, tiny_base) for adapter in two]
    suite = [
        {"input": text, "outputs": [old, "no answer"]}
        for text, old in zip(INPUTS, said[0], strict=True)
    ]
    passed = sum(exact_match(new, row["outputs"]) for new, row in zip(said[1], suite, strict=True))
    assert passed < len(INPUTS)
    # The first version passes its own answers, the second one fewer of them.
    first = publish(client, two[0], suite)
    assert first.status_code == 201 and first.json()["version"] == 1
    assert client.get(f"{NAME}").json()["current"] is None
    moved = promote(client, at_least=len(INPUTS))
    whole = {"from": None, "to": 12, "of": 12, "at_least": 12}
    assert (moved["name"], moved["action"], moved["from"], moved["to"]) == (
        "router", "promoted", None, 1,
    )  # fmt: skip
    assert moved["scores"] == whole
    assert publish(client, two[1]).json()["version"] == 2
    refused = promote(client)
    assert (refused["action"], refused["from"], refused["to"]) == ("refused", 1, 2)
    assert refused["scores"] == {"from": 12, "to": passed, "of": 12, "at_least": None}
    assert client.get(NAME).json()["current"] == 1
    # By its own answers the second one passes.
    own = [{"input": text, "output": new} for text, new in zip(INPUTS, said[1], strict=True)]
    assert publish(client, two[1], own).status_code == 200
    assert promote(client, version=2)["scores"]["to"] == 12
    # And back.
    back = client.post(f"{NAME}/rollback")
    assert back.status_code == 200 and back.json()["action"] == "rolled-back"
    PromotionAnswer.model_validate(back.json())
    assert_problem(client.post(f"{NAME}/rollback"), 409, "conflict")
    name = client.get(NAME).json()
    NameAnswer.model_validate(name)
    assert [(move["action"], move["from"], move["to"]) for move in name["history"]] == [
        ("promoted", None, 1), ("refused", 1, 2), ("promoted", 1, 2), ("rolled-back", 2, 1),
    ]  # fmt: skip
    assert (name["current"], name["newest"], name["suite"]["rows"]) == (1, 2, 12)
    assert client.get("/v1/names").json() == {
        "names": [{"name": "router", "current": 1, "newest": 2}]
    }


def test_a_floor_that_is_not_reached_refuses_also_the_first_version(
    client: TestClient, two: tuple[str, str]
) -> None:
    publish(client, two[0], ROWS)
    refused = promote(client, at_least=12)
    assert refused["action"] == "refused" and refused["scores"]["from"] is None
    assert client.get(NAME).json()["current"] is None
    assert promote(client)["action"] == "promoted"


def test_wherever_a_path_takes_an_id_it_takes_a_name(
    client: TestClient, two: tuple[str, str]
) -> None:
    for adapter in two:
        publish(client, adapter, ROWS)
    promote(client, version=1)
    location = publish(client, two[1]).headers["location"]
    assert location == "/v1/adapters/router@v2"
    called = {
        "router": two[0], "router@current": two[0], "router@v1": two[0], "router@v2": two[1],
    }  # fmt: skip
    for name, adapter in called.items():
        by_name, by_id = f"/v1/adapters/{name}", f"/v1/adapters/{adapter}"
        assert client.get(by_name).json() == client.get(by_id).json()
        for path in (f"/files/{WEIGHTS_FILE}", f"/files/{CONFIG_FILE}", "/archive"):
            one, other = client.get(by_name + path), client.get(by_id + path)
            assert (one.status_code, one.content) == (200, other.content)
            assert one.headers["etag"] == other.headers["etag"]
            assert one.headers["cache-control"] == "private, no-cache"
            assert "last-modified" not in one.headers
            later = {"If-Modified-Since": "Fri, 31 Dec 2060 23:59:59 GMT"}
            assert client.get(by_name + path, headers=later).status_code == 200
            unchanged = {"If-None-Match": one.headers["etag"]}
            assert client.get(by_name + path, headers=unchanged).status_code == 304
        kept = client.get(f"{by_id}/files/{WEIGHTS_FILE}").headers["cache-control"]
        assert "immutable" in kept
        checked = send(client, f"{by_name}/verify", {"hooks": ["format"]})
        assert checked.json()["adapter"] == adapter
        ended(client, checked.headers["location"])
    examples = [{"input": f"row {i}", "output": "yes"} for i in range(3)]
    asked = send(client, "/v1/adapters/router@v2/refine", {"examples": examples, "steps": 1})
    assert ended(client, asked.headers["location"])["result"]["start"] == two[1]


def test_an_adapter_stays_as_long_as_its_name_and_numbers_go_on(
    client: TestClient, two: tuple[str, str]
) -> None:
    publish(client, two[0], ROWS)
    for path in (two[0], "router@v1"):
        assert_problem(client.delete(f"/v1/adapters/{path}"), 409, "conflict")
    assert client.get(f"/v1/adapters/{two[0]}").status_code == 200
    assert client.delete(NAME).status_code == 204
    for path in (NAME, "/v1/adapters/router@v1", "/v1/adapters/router"):
        assert_problem(client.get(path), 404, "not-found")
    assert_problem(client.delete(NAME), 404, "not-found")
    assert client.delete(f"/v1/adapters/{two[0]}").status_code == 204
    again = publish(client, two[1], ROWS)
    VersionAnswer.model_validate(again.json())
    assert again.json()["version"] == 2, "numbers are never given twice"
    assert_problem(client.get("/v1/adapters/router@v1"), 404, "not-found")


def test_what_the_name_does_not_permit_now_is_a_conflict(
    client: TestClient, two: tuple[str, str]
) -> None:
    publish(client, two[0])
    assert_problem(client.get("/v1/adapters/router"), 404, "not-found")
    detail = assert_problem(send(client, f"{NAME}/promote", {}), 409, "conflict")["detail"]
    assert "no suite" in detail
    assert_problem(client.post(f"{NAME}/rollback"), 409, "conflict")
    publish(client, two[0], ROWS)
    promote(client)
    detail = assert_problem(client.post(f"{NAME}/promote"), 409, "conflict")["detail"]
    assert "current version of router already" in detail
    assert_problem(send(client, f"{NAME}/promote", {"version": 2}), 404, "not-found")


def test_a_cancelled_promotion_moves_nothing(
    service: Service, client: TestClient, two: tuple[str, str]
) -> None:
    publish(client, two[0], ROWS)
    halt = Halt(service)
    job = client.post(f"{NAME}/promote").headers["location"]
    assert halt.started.wait(30)
    assert 0 < client.get(job).json()["progress"] < 1
    assert client.delete(job).json()["state"] == "cancelled"
    halt.go.set()
    assert promote(client)["action"] == "promoted"
    assert len(client.get(NAME).json()["history"]) == 1


@pytest.mark.parametrize("change", ["rollback", "delete"])
def test_a_name_that_changes_meanwhile_fails_the_promotion(
    service: Service, client: TestClient, two: tuple[str, str], change: str
) -> None:
    third = made(client, "Name the colour.")
    for adapter in (*two, third):
        publish(client, adapter, [{"input": "x", "output": ""}])
    for number in (1, 2):
        contest = service.names.get("local", "router").contest(number)
        service.names.record("local", contest, Scores(None if number == 1 else 1, 1, 1))
    halt = Halt(service)
    job = client.post(f"{NAME}/promote").headers["location"]
    assert halt.started.wait(30)
    if change == "rollback":
        assert client.post(f"{NAME}/rollback").status_code == 200
    else:
        assert client.delete(NAME).status_code == 204
    halt.go.set()
    done = ended(client, job)
    assert done["state"] == "failed"
    assert ("changed" if change == "rollback" else "no such name") in done["error"]


def test_a_row_that_is_too_long_for_the_base_fails_the_promotion(
    client: TestClient, two: tuple[str, str]
) -> None:
    publish(client, two[0], [*ROWS, {"input": "é%" * 2000, "output": "x"}])
    done = ended(client, client.post(f"{NAME}/promote").headers["location"])
    assert done["state"] == "failed" and "row 13 of the suite" in done["error"]
    assert client.get(NAME).json()["history"] == []


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"adapter": 1}, {"adapter": "x", "more": 1}, {"adapter": "x", "suite": []},
        {"adapter": "x", "suite": ["row"]}, {"adapter": "x", "suite": [{"input": "a"}]},
        {"adapter": "x", "suite": [{"input": "a", "output": "b", "outputs": ["c"]}]},
        {"adapter": "x", "suite": [{"input": "a", "outputs": []}]},
        {"adapter": "x", "suite": [{"input": " ", "output": "b"}]},
        {"adapter": "x", "suite": [{"input": "x" * 4097, "output": "b"}]},
        {"adapter": "x", "suite": [{"input": "a", "output": "b"}] * 1001},
    ],
    ids=range(12),
)  # fmt: skip
def test_a_wrong_version_is_refused(client: TestClient, body: Any) -> None:
    assert_problem(send(client, f"{NAME}/versions", body), 422, "invalid-field")
    assert_problem(client.get(NAME), 404)


def test_a_row_without_an_answer_is_told_in_plain_words(client: TestClient) -> None:
    body = {"adapter": UNKNOWN_ID, "suite": [*ROWS, {"input": "a"}]}
    detail = assert_problem(send(client, f"{NAME}/versions", body), 422, "invalid-field")["detail"]
    assert detail == "suite.12: a row has either output or outputs"


def test_wrong_names_versions_and_adapters(client: TestClient, two: tuple[str, str]) -> None:
    for name in ("Router", "a_b", "-a", "router@v1", "a" * 64, "%C3%A4"):
        refused = publish(client, two[0], name=name)
        assert_problem(refused, 422, "invalid-field")
        assert_problem(client.get(f"/v1/names/{name}"), 404, "not-found")
    for adapter in (UNKNOWN_ID, "nonsense", "router@v1"):
        assert_problem(publish(client, adapter, ROWS), 404, "not-found")
    publish(client, two[0], ROWS)
    for asked in ({"version": 0}, {"version": "2"}, {"at_least": 0}, {"at_least": 1001}, {"a": 1}):
        assert_problem(send(client, f"{NAME}/promote", asked), 422, "invalid-field")


def test_another_key_s_name_is_like_one_that_is_missing(
    service: Service, client: TestClient
) -> None:
    ann, ben, root = (
        service.keys.create(who, scopes)[1]
        for who, scopes in (
            ("ann", ["read", "write"]),
            ("ben", ["read", "write"]),
            ("r", ["admin"]),
        )
    )
    use(client, ann)
    adapter = made(client)
    publish(client, adapter, ROWS)
    promote(client)
    client.headers["X-Request-Id"] = "same"
    for key in (ben, root):
        use(client, key)
        for method, path in (
            ("GET", "/v1/names/{}"), ("DELETE", "/v1/names/{}"), ("POST", "/v1/names/{}/promote"),
            ("POST", "/v1/names/{}/rollback"), ("GET", "/v1/adapters/{}"),
            ("GET", "/v1/adapters/{}@v1"), ("DELETE", "/v1/adapters/{}@v1"),
            ("GET", f"/v1/adapters/{{}}/files/{CONFIG_FILE}"), ("GET", "/v1/adapters/{}/archive"),
            ("POST", "/v1/adapters/{}/verify"),
        ):  # fmt: skip
            answer = client.request(method, path.format("router"))
            missing = client.request(method, path.format("missing"))
            assert_problem(answer, 404, "not-found")
            assert answer.content == missing.content
        assert client.get("/v1/names").json() == {"names": []}
    assert_problem(client.delete(f"/v1/adapters/{adapter}"), 409, "conflict")
    use(client, ben)
    assert_problem(publish(client, adapter, ROWS), 404, "not-found")
    use(client, ann)
    assert client.get("/v1/adapters/router").json()["id"] == adapter


def test_a_base_that_the_service_lacks_is_refused_before_anything_is_queued(
    client: TestClient, settings: Settings, engine: Any, tiny_base: Path, two: tuple[str, str]
) -> None:
    publish(client, two[0], ROWS)
    bases = {"another": str(tiny_base)}
    with client_of(settings.model_copy(update={"bases": bases}), engine) as other:
        assert_problem(other.post(f"{NAME}/promote"), 422, "unknown-name")
