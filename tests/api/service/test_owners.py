"""Adapters and jobs belong to the key that made them; to all others they do not exist."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    TASK,
    TRAINED,
    Halt,
    client,
    ended,
    engine,
    gate_of,
    library,
    made,
    send,
    service,
    settings,
    stored,
    tasks,
    verify,
)
from rest import JSON, UNKNOWN_ID, post, use
from starlette.testclient import TestClient

from api.service.job_store import JobStore
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import LOCAL
from library.peft.provenance import README_FILE

UNKNOWN_JOB = "job_" + "0" * 32


@pytest.fixture
def ann(service: Service) -> str:
    return service.keys.create("ann")[1]


@pytest.fixture
def ben(service: Service) -> str:
    return service.keys.create("ben")[1]


@pytest.fixture
def root(service: Service) -> str:
    return service.keys.create("root", ["admin"])[1]


def told(client: TestClient, method: str, path: str, body: Any = None) -> tuple[Any, ...]:
    answer = client.request(method, path, json=body, headers={"X-Request-Id": "same"})
    return answer.status_code, answer.content, dict(answer.headers)


EXAMPLES = [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}]
ABOUT_ADAPTERS = [
    ("GET", "/v1/adapters/{}", None),
    ("DELETE", "/v1/adapters/{}", None),
    ("GET", f"/v1/adapters/{{}}/files/{README_FILE}", None),
    ("HEAD", f"/v1/adapters/{{}}/files/{README_FILE}", None),
    ("GET", "/v1/adapters/{}/files/nonsense", None),
    ("GET", "/v1/adapters/{}/archive", None),
    ("HEAD", "/v1/adapters/{}/archive", None),
    ("POST", "/v1/adapters/{}/verify", {"hooks": ["format"]}),
    ("POST", "/v1/adapters/{}/refine", {"examples": EXAMPLES}),
    ("GET", "/v1/search?adapter={}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ABOUT_ADAPTERS)
def test_another_key_s_adapter_is_like_one_that_is_missing(
    client: TestClient, ann: str, ben: str, method: str, path: str, body: Any
) -> None:
    use(client, ann)
    adapter = made(client)
    use(client, ben)
    answer = told(client, method, path.format(adapter), body)
    assert answer == told(client, method, path.format(UNKNOWN_ID), body)
    assert answer[0] == 404
    use(client, ann)
    assert client.get(f"/v1/adapters/{adapter}").status_code == 200


NAMING = [
    ("/v1/completions", {"model": "{}", "prompt": "x"}),
    ("/v1/completions", {"model": "generated/{}", "prompt": "x", "stream": True}),
    ("/v1/chat/completions", {"model": "{}", "messages": [{"role": "user", "content": "x"}]}),
    ("/v1/names/mine/versions", {"adapter": "{}", "suite": EXAMPLES}),
]


@pytest.mark.parametrize(("path", "body"), NAMING)
def test_nor_is_it_a_model_or_a_version_of_another_key_s(
    client: TestClient, ann: str, ben: str, path: str, body: Any
) -> None:
    use(client, ann)
    adapter = made(client)
    use(client, ben)
    for identity in (adapter, UNKNOWN_ID):
        answer = client.post(path, content=json.dumps(body).replace("{}", identity), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    same = client.get(f"/generated/{adapter}/resolve/main/{README_FILE}")
    assert same.status_code == 404 and same.headers["x-error-code"] == "RepoNotFound"
    assert adapter not in client.get("/v1/models").text


@pytest.mark.parametrize("method, of", [("GET", ""), ("DELETE", ""), ("GET", "/events")])
def test_another_key_s_job_is_like_one_that_is_missing(
    service: Service, client: TestClient, ann: str, ben: str, method: str, of: str
) -> None:
    gate = gate_of(service)
    use(client, ann)
    jobs = [verify(client, made(client), {"hooks": ["gate"]}), post(client, TRAINED)]
    use(client, ben)
    assert client.get(f"/v1/adapters/{made(client)}").status_code == 200  # the adapter is ben's too
    for job in jobs:
        answer = told(client, method, job.headers["location"] + of)
        assert answer == told(client, method, f"/v1/jobs/{UNKNOWN_JOB}{of}")
        assert answer[0] == 404
    gate.go.set()
    use(client, ann)
    for job in jobs:
        assert ended(client, job.headers["location"])["state"] == "done"


def test_one_stored_adapter_has_two_owners_and_stays_for_the_last(
    client: TestClient, settings: Settings, ann: str, ben: str
) -> None:
    answers = []
    for key in (ann, ben, ann):
        use(client, key)
        answers.append(post(client, {"description": TASK}))
    assert [answer.status_code for answer in answers] == [201, 201, 200]
    assert len({answer.content for answer in answers}) == 1
    url = answers[0].headers["location"]
    assert len(stored(settings)) == 1
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == client.delete(url).status_code == 404
    assert len(stored(settings)) == 1
    use(client, ben)
    assert client.get(url).content == answers[0].content
    assert client.delete(url).status_code == 204
    assert stored(settings) == []


def test_a_job_s_adapter_is_its_submitter_s(client: TestClient, ann: str, ben: str) -> None:
    use(client, ann)
    done = ended(client, post(client, TRAINED).headers["location"])
    start = f"/v1/adapters/{done['adapter']}"
    refined = ended(
        client,
        send(client, f"{start}/refine", {"examples": EXAMPLES, "steps": 1}).headers["location"],
    )
    assert refined["state"] == "done", refined["error"]
    for identity in (done["adapter"], refined["adapter"]):
        assert client.get(f"/v1/adapters/{identity}").status_code == 200
    use(client, ben)
    for identity in (done["adapter"], refined["adapter"]):
        assert client.get(f"/v1/adapters/{identity}").status_code == 404


def test_an_admin_sees_and_deletes_everybody_s(
    service: Service, client: TestClient, settings: Settings, ann: str, ben: str, root: str
) -> None:
    gate = gate_of(service)
    for key in (ben, ann):
        use(client, key)
        adapter = made(client)
    job = verify(client, adapter, {"hooks": ["gate"]}).headers["location"]
    assert gate.started.wait(30)
    use(client, root)
    url = f"/v1/adapters/{adapter}"
    assert client.get(url).status_code == 200
    assert client.get(f"{url}/files/{README_FILE}").status_code == 200
    assert client.get(job).json()["state"] == "running"
    assert client.delete(job).json()["state"] == "cancelled"
    checked = ended(client, verify(client, adapter, {"hooks": ["format"]}).headers["location"])
    assert checked["state"] == "done"
    assert client.delete(url).status_code == 204  # for all of its owners
    assert stored(settings) == []
    for key in (ann, ben, root):
        use(client, key)
        assert client.get(url).status_code == 404


def test_what_was_made_without_keys_is_the_admin_s_to_see(
    service: Service, client: TestClient
) -> None:
    adapter = made(client)
    job = verify(client, adapter, {"hooks": ["format"]}).headers["location"]
    use(client, service.keys.create("ann")[1])
    assert client.get(f"/v1/adapters/{adapter}").status_code == 404
    assert client.get(job).status_code == 404
    use(client, service.keys.create("root", ["admin"])[1])
    assert client.get(f"/v1/adapters/{adapter}").status_code == 200
    assert ended(client, job)["state"] == "done"


def test_a_job_that_waits_when_its_key_is_revoked_fails(
    service: Service, client: TestClient, settings: Settings, root: str
) -> None:
    gate = gate_of(service)
    key, text = service.keys.create("ann")
    use(client, text)
    first = verify(client, made(client), {"hooks": ["gate"]}).headers["location"]
    second = post(client, TRAINED).headers["location"]
    assert gate.started.wait(30)
    service.keys.revoke(key.id)
    assert client.get(first).status_code == 401
    gate.go.set()
    use(client, root)
    assert ended(client, first)["state"] == "done"
    failed = ended(client, second)
    assert (failed["state"], failed["error"]) == ("failed", f"the key {key.id} was revoked")


def test_a_job_whose_key_is_revoked_stores_nothing(
    service: Service, client: TestClient, settings: Settings, root: str
) -> None:
    halt = Halt(service)
    key, text = service.keys.create("ann")
    use(client, text)
    job = post(client, TRAINED).headers["location"]
    assert halt.started.wait(60)
    service.keys.revoke(key.id)
    halt.go.set()
    use(client, root)
    failed = ended(client, job)
    assert (failed["state"], failed["error"]) == ("failed", f"the key {key.id} was revoked")
    assert stored(settings) == []


OLD = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, adapter TEXT NOT NULL,
    worker TEXT NOT NULL, state TEXT NOT NULL, progress REAL NOT NULL, wanted TEXT NOT NULL,
    result TEXT, error TEXT
) STRICT;
INSERT INTO jobs VALUES (7, 'job_old', 'ad_x', 'none', 'done', 1, '{"hooks": []}', '{}', NULL);
"""


def test_jobs_from_before_there_were_owners_are_the_machine_s(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as rows:
        rows.executescript(OLD)
    with ThreadPoolExecutor(8) as pool:  # processes that open it at once do not disturb each other
        jobs = list(pool.map(lambda _: JobStore(tmp_path).get("job_old", LOCAL), range(16)))
    assert {(job.owner, job.state, job.kind) for job in jobs} == {(LOCAL, "done", "verify")}
    store = JobStore(tmp_path)
    new = store.add("ann", "ad_x", {"hooks": []})
    assert store.get(new.id) == store.get(new.id, "ann") == new
    store.close()
