"""Quotas, full queues, a service that is loading, bases that do not fit, accidents."""

import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

import anyio
import pytest
import tiny
from rest import LOCALHOST, TASK, assert_problem, client, client_of, engine, post, settings  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.errors import Overloaded
from api.http.app import create_app
from api.service.admission import Admission
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine


def test_over_the_quota_is_507(tmp_path: Path, engine: Engine) -> None:
    with client_of(Settings(data=tmp_path, quota_bytes=6 * 10**6), engine) as client:
        first = post(client, {"description": TASK})
        assert first.status_code == 201
        assert_problem(post(client, {"description": "Other."}), 507, "quota-exceeded")
        assert len(list((tmp_path / "adapters").iterdir())) == 1
        client.delete(first.headers["location"])
        assert post(client, {"description": "Other."}).status_code == 201


def test_a_full_line_is_429_with_retry_after(tmp_path: Path, engine: Engine) -> None:
    settings = Settings(data=tmp_path, queue_length=0, retry_after=7)
    with client_of(settings, engine) as client, ThreadPoolExecutor(2) as pool:
        with closing(sqlite3.connect(tmp_path / "owners.sqlite3", isolation_level=None)) as rows:
            rows.execute("BEGIN IMMEDIATE")  # no adapter can be stored meanwhile
            bodies = [{"description": TASK}, {"description": "Other."}]
            both = as_completed([pool.submit(post, client, body) for body in bodies])
            refused = next(both).result()
            assert client.get("/health/ready").status_code == 200
        assert_problem(refused, 429, "overloaded")
        assert refused.headers["retry-after"] == "7"
        assert next(both).result().status_code == 201


def test_before_the_generator_is_loaded_only_life_is_shown(settings: Settings) -> None:
    client = TestClient(
        create_app(Service(settings)), LOCALHOST
    )  # without its lifespan nothing is loaded
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


def test_one_runs_a_few_wait_and_the_rest_are_refused() -> None:
    admission = Admission("tests", waiting=2, retry_after=7)
    for _ in range(2):
        for _ in range(3):
            admission.enter()
        with pytest.raises(Overloaded) as refused:
            admission.enter()
        assert refused.value.headers["Retry-After"] == "7"
        admission.leave()
        admission.enter()  # whoever leaves makes room for one
        with pytest.raises(Overloaded):
            admission.enter()
        for _ in range(3):
            admission.leave()


def test_a_few_run_at_once_and_a_few_wait() -> None:
    admission = Admission("tests", waiting=1, at_once=3, retry_after=7)
    running: list[int] = []
    full = threading.Event()

    def work() -> None:
        running.append(1)
        full.wait(10)

    async def everything() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(admission.run, work)
            with anyio.fail_after(10):
                while len(running) < 3:
                    await anyio.sleep(0.01)
            with pytest.raises(Overloaded, match="4 tests are running or waiting"):
                admission.enter()
            assert len(running) == 3
            full.set()

    anyio.run(everything)
    assert len(running) == 4


def test_work_is_done_alone_and_makes_room_even_if_it_fails() -> None:
    admission = Admission("tests", waiting=3, retry_after=7)
    running: list[int] = []
    most: list[int] = []

    def work(number: int, *, fails: bool = False) -> int:
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        if fails:
            raise ValueError(number)
        return number

    async def several() -> list[int]:
        results: list[int] = []

        async def one(number: int) -> None:
            results.append(await admission.run(work, number))

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, number)
        return results

    async def everything() -> None:
        for _ in range(2):
            assert sorted(await several()) == [0, 1, 2, 3]
        for _ in range(5):  # more often than there is room
            with pytest.raises(ValueError):
                await admission.run(work, 9, fails=True)
        for _ in range(4):
            admission.enter()
        with pytest.raises(Overloaded):
            await admission.run(work, 9)
        with pytest.raises(Overloaded):
            admission.enter()  # who was refused has made no room

    anyio.run(everything)
    assert max(most) == 1
