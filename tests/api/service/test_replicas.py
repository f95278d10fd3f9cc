"""Replicas over one PostgreSQL: what one stores is the others' too, and a job is taken once."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny
from jobs import (  # noqa: F401  (fixtures)
    ended,
    engine,
    gate_of,
    library,
    made,
    settings,
    tasks,
    verify,
)
from postgres import Server, running
from rest import TASK, UNKNOWN_ID, assert_problem, client_of_service, post, use
from sqlalchemy import MetaData
from starlette.testclient import TestClient

from api.cli.main import main
from api.errors import KeyInUse, KeyReused, StorageFailed, StorageUnreachable
from api.service.database import Database, run
from api.service.job_store import JobStore
from api.service.keys import KeyStore
from api.service.replies import Replies, Reply
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import LOCAL, Store, local_store
from api.service.tables import KEYS
from generator.engine import Engine
from library.canonical import digest


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def objects(tmp_path: Path) -> str:
    """The URL of an object store, in a folder."""
    (tmp_path / "objects").mkdir()
    return f"file://{tmp_path}/objects"


@pytest.fixture
def replicas(
    settings: Settings, engine: Engine, url: str, objects: str, tmp_path: Path
) -> list[Service]:
    """Two services with data folders of their own."""
    shared = {"database": url, "objects": objects}
    return [
        Service(settings.model_copy(update={**shared, "data": tmp_path / name}), engine)
        for name in ("one", "two")
    ]


@pytest.fixture
def clients(replicas: list[Service]) -> Iterator[list[TestClient]]:
    with client_of_service(replicas[0]) as one, client_of_service(replicas[1]) as two:
        yield [one, two]


def test_replicas_that_start_at_once_make_the_tables_once(url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda _: Service(Settings(data=tmp_path, database=url)).prepare(), range(8))]
    assert [*tmp_path.iterdir()] == [], "nothing is stored here"
    KeyStore(tmp_path / "one", url).create("laptop")
    assert [key.name for key in KeyStore(tmp_path / "two", url).all()] == ["laptop"]


def test_commands_make_keys_and_adapters_where_the_variables_say(
    url: str,
    objects: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("DATA", str(tmp_path / "cli")), ("DATABASE", url), ("OBJECTS", objects)):
        monkeypatch.setenv(f"LORASMITH_{name}", value)
    assert main(["keys", "create", "laptop"]) == 0
    assert KeyStore(tmp_path / "two", url).find(capsys.readouterr().out.strip()).name == "laptop"
    local_store().put(LOCAL, {"id": UNKNOWN_ID}, {"README.md": b"x"})
    other = Store(tmp_path / "two", quota_bytes=0, database=url, objects=objects)
    assert other.read(LOCAL, UNKNOWN_ID, "README.md")[0] == b"x"
    monkeypatch.setenv("LORASMITH_DATABASE", "sqlite:///x")
    assert main(["keys", "list"]) == 2


def test_what_a_newer_version_wrote_is_refused(url: str, tmp_path: Path) -> None:
    Database(tmp_path / "keys.sqlite3", MetaData(), "the key store", url, version=99).prepare()
    with pytest.raises(StorageFailed, match="newer lorasmith: it has schema 99"):
        KeyStore(tmp_path, url).prepare()
    JobStore(tmp_path, url).prepare()


def test_keys_are_everybody_s_and_revoked_at_once(
    replicas: list[Service], clients: list[TestClient]
) -> None:
    one, two = clients
    keys = replicas[0].keys
    key, text = keys.create("laptop")
    assert two.get("/v1/adapters").status_code == 401
    for client in clients:
        use(client, text)
        assert client.get("/v1/adapters").status_code == 200
    replicas[1].keys.revoke(key.id)
    assert_problem(one.get("/v1/adapters"), 401, "unauthenticated")


def test_an_adapter_and_its_names_are_the_other_s_byte_for_byte(
    replicas: list[Service], clients: list[TestClient]
) -> None:
    one, two = clients
    adapter = made(one)
    shown = one.get(f"/v1/adapters/{adapter}").json()
    assert two.get(f"/v1/adapters/{adapter}").json() == shown
    for name, file in shown["files"].items():
        content = two.get(file["url"]).content
        assert digest(content) == file["sha256"] and content == one.get(file["url"]).content, name
    archive = f"/v1/adapters/{adapter}/archive"
    assert two.get(archive).content == one.get(archive).content
    assert post(two, {"description": TASK}).status_code == 200, "it is there already"
    published = one.post("/v1/names/router/versions", json={"adapter": adapter})
    assert published.status_code == 201
    assert two.get("/v1/adapters/router@v1").json()["id"] == adapter
    assert two.delete(f"/v1/adapters/{adapter}").status_code == 409
    assert two.delete("/v1/names/router").status_code == 204
    assert two.delete(f"/v1/adapters/{adapter}").status_code == 204
    assert_problem(one.get(f"/v1/adapters/{adapter}"), 404)
    assert_problem(one.get(f"/v1/adapters/{adapter}/files/README.md"), 404)


def test_quotas_count_what_any_replica_stored(
    replicas: list[Service], clients: list[TestClient]
) -> None:
    made(clients[0])
    size = replicas[1].store.used()
    assert size == replicas[0].store.used() > 0
    replicas[1].store.quota_bytes = size + 100
    assert_problem(post(clients[1], {"description": "Another."}), 507, "quota-exceeded")


def test_an_answer_is_kept_for_all_and_a_key_is_taken_for_all(
    clients: list[TestClient], url: str, tmp_path: Path
) -> None:
    one, two = clients
    body = {"description": "Say it."}
    first = post(one, body, **{"Idempotency-Key": "mine"})
    assert first.status_code == 201
    again = post(two, body, **{"Idempotency-Key": "mine"})
    assert (again.status_code, again.content) == (201, first.content)
    mine, other = Replies(tmp_path / "a", url), Replies(tmp_path / "b", url)
    assert mine.begin("me", "key", "print") is None
    with pytest.raises(KeyInUse):
        other.begin("me", "key", "print")
    with pytest.raises(KeyReused):
        other.begin("me", "key", "another")
    mine.end("me", "key")
    assert other.begin("me", "key", "print") is None
    other.keep("me", "key", "print", Reply(200, {"x": "y"}, b"\0body"))
    other.end("me", "key")
    assert mine.begin("me", "key", "print") == Reply(200, {"x": "y"}, b"\0body")


def test_a_key_that_a_killed_replica_took_is_free_after_a_while(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Replies(tmp_path, url).begin("me", "key", "print")
    monkeypatch.setattr("api.service.replies.TAKEN_SECONDS", 0)
    assert Replies(tmp_path, url).begin("me", "key", "print") is None


def test_whoever_is_free_takes_a_job_and_everybody_sees_it(
    replicas: list[Service], clients: list[TestClient]
) -> None:
    one, two = clients
    adapter = made(one)
    gates = [gate_of(service) for service in replicas]
    jobs = [verify(one, adapter, {"hooks": ["gate"]}).headers["location"] for _ in range(2)]
    assert all(gate.started.wait(30) for gate in gates), "each runs one of the two"
    third = verify(two, adapter, {"hooks": ["gate"]}).headers["location"]
    assert [one.get(job).json()["state"] for job in (*jobs, third)] == ["running"] * 2 + ["queued"]
    assert one.delete(third).json()["state"] == two.get(third).json()["state"] == "cancelled"
    for gate in gates:
        gate.go.set()
    for client in clients:
        assert [ended(client, job)["state"] for job in jobs] == ["done"] * 2


TAKE = """
import sys
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]), sys.argv[2])
while (taken := store.take()) is not None:
    store.complete(taken[0].id, lambda: {})
    print(taken[0].id, flush=True)
"""


def test_processes_take_each_job_once(url: str, tmp_path: Path) -> None:
    store = JobStore(tmp_path, url)
    jobs = [store.add("local", "", {"kind": "create"}) for _ in range(200)]
    processes = [tiny.start_python(TAKE, str(tmp_path), url) for _ in range(3)]
    taken = [tiny.output_of(process).split() for process in processes]
    assert sorted(chain(*taken)) == sorted(job.id for job in jobs if job)


RUN = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]), sys.argv[2])
print(store.take()[0].id, flush=True)
time.sleep(600)
"""


def test_kill_9_of_a_replica_interrupts_what_ran_and_leaves_what_waits(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(tmp_path, url)
    first, second = (store.add("local", "", {"kind": "create"}) for _ in range(2))
    assert first is not None and second is not None
    process = tiny.start_python(RUN, str(tmp_path), url)
    assert process.stdout is not None and process.stdout.readline().strip() == first.id
    process.send_signal(signal.SIGKILL)
    process.wait()
    taken = store.take()
    assert taken is not None and taken[0].id == second.id, "at once"
    monkeypatch.setattr("api.service.job_store.SILENT_SECONDS", 0)
    time.sleep(0.01)
    assert store.get(first.id).state == JobStore(tmp_path, url).get(first.id).state == "interrupted"


def test_without_the_database_answers_are_503_and_later_as_before(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as server:
        shared = settings.model_copy(update={"database": server.database()})
        service = Service(shared, engine)
        with client_of_service(service) as client:
            adapter, gate = made(client), gate_of(service)
            job = verify(client, adapter, {"hooks": ["gate"]}).headers["location"]
            assert gate.started.wait(30)
            server.kill()
            refused = assert_unreachable(client.get(f"/v1/adapters/{adapter}"))
            assert "postgres" not in refused["detail"]
            assert_unreachable(post(client, {"description": "Another."}))
            assert_unreachable(client.get(job))
            assert client.get("/health/ready").status_code == 200
            gate.go.set()  # the result waits for the database
            server.start()
            assert client.get(f"/v1/adapters/{adapter}").status_code == 200
            assert ended(client, job)["state"] == "done"


def test_a_transaction_that_loses_its_connection_is_unreachable_and_undone(tmp_path: Path) -> None:
    with running() as server:
        database = Database(tmp_path / "keys.sqlite3", KEYS, "the key store", server.database())
        with pytest.raises(StorageUnreachable), database.transaction() as rows:
            run(rows, "UPDATE keys SET name = 'x'")
            server.kill()
            run(rows, "UPDATE keys SET name = 'y'")
        server.start()
        assert database.query("SELECT count(*) FROM keys")[0][0] == 0


def assert_unreachable(answer: Any) -> dict[str, Any]:
    assert answer.headers["retry-after"] == "2"
    return assert_problem(answer, 503, "storage-unreachable")
