"""A service whose library grows while it runs: it sees what is new, and no reader is disturbed."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from rest import client_of, engine_of, post
from starlette.testclient import TestClient

from api.cli.main import main
from api.service import searching
from api.service.settings import Settings
from generator import resources
from generator.engine import Engine

LATER = {"verse": "Write a verse about the sea.", "divide": "Divide one number by the other."}


@pytest.fixture
def place(small_library: Path, tmp_path: Path) -> Path:
    tiny.write_tasks(tmp_path / "later", LATER)
    return shutil.copytree(small_library / "lib", tmp_path / "lib")


def add(place: Path) -> list[str]:
    return ["library", "add", "--tasks", f"{place.parent}/later", "--library", str(place)]


@pytest.fixture
def settings(place: Path, tiny_base: Path) -> Settings:
    bases = {"tiny": str(tiny_base)}
    return Settings(data=place.parent / "data", library=str(place), bases=bases)


@pytest.fixture
def engine(settings: Settings, small_checkpoint: Path, encoder: Any) -> Engine:
    return engine_of(settings, small_checkpoint, encoder)


@pytest.fixture
def client(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    monkeypatch.setattr(searching, "FOLLOW_SECONDS", 0)
    monkeypatch.setattr(resources, "FOLLOW_SECONDS", 0)
    with client_of(settings, engine) as client:
        yield client


def near(client: TestClient, generator: str) -> tuple[int, list[str]]:
    """The status of a request, and the tasks that its adapter is near to."""
    answer = post(client, {"description": LATER["verse"], "generator": generator})
    return answer.status_code, [n["task"] for n in answer.json()["chosen"]["neighbours"]]


def found(client: TestClient) -> list[str]:
    results = client.get("/v1/search", params={"q": LATER["verse"]}).json()["results"]
    return [result["task"] for result in results]


@pytest.mark.parametrize("generator", ["nearest", "compose"])
def test_what_is_added_is_seen_by_the_next_request(
    place: Path, client: TestClient, generator: str
) -> None:
    assert near(client, generator)[0] == 201
    status, before = near(client, generator)  # from the store
    assert status == 200 and set(before) == set(tiny.LIBRARY_TASKS)
    assert set(found(client)) == set(tiny.LIBRARY_TASKS)
    assert main(add(place)) == 0
    status, after = near(client, generator)
    assert status == 201 and after[0] == "verse" and len(after) == 4
    assert near(client, generator) == (200, after)
    assert found(client)[0] == "verse"
    listed = client.get("/v1/library").json()["adapters"]
    assert {adapter["task"] for adapter in listed} == {*tiny.LIBRARY_TASKS, *LATER}


def test_what_is_imported_is_seen_too(
    place: Path, client: TestClient, tiny_base: Path, tmp_path: Path
) -> None:
    record = json.loads((place / "records" / "0000" / "sum.json").read_text())
    foreign = shutil.copytree(place / "adapters" / record["id"], tmp_path / "foreign")
    assert near(client, "nearest")[1][0] == "poem"
    bring = ["library", "import", str(foreign), "--library", str(place), "--base", str(tiny_base)]
    assert main([*bring, "--description", LATER["verse"]]) == 0
    status, after = near(client, "nearest")
    assert status == 201 and after == ["foreign", "poem", *after[2:]]


def test_a_library_that_cannot_be_read_stays_as_it_was(
    place: Path, client: TestClient, engine: Engine
) -> None:
    _, before = near(client, "nearest")
    record = next((place / "records").rglob("sum.json"))
    record.write_text("{")
    assert near(client, "nearest") == (200, before)
    assert engine.resources.follow() == 0


def test_the_library_is_looked_at_now_and_then_only(
    place: Path, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "FOLLOW_SECONDS", 3600)
    with client_of(settings, engine) as client:
        _, before = near(client, "nearest")
        assert main(add(place)) == 0
        assert near(client, "nearest") == (200, before)


def test_readers_are_never_disturbed_by_an_add(place: Path, client: TestClient) -> None:
    ended, failures, answers = threading.Event(), list[str](), list[int]()

    def read(ask: Callable[[], Any]) -> None:
        while not ended.is_set():
            answer = ask()
            answers.append(answer.status_code)
            if answer.status_code not in (200, 201):
                failures.append(answer.text)

    body = {"description": LATER["verse"], "generator": "nearest"}
    asking: list[Callable[[], Any]] = [
        lambda: client.get("/v1/search", params={"q": LATER["verse"]}),
        lambda: client.get("/v1/library"),
        lambda: post(client, body),
    ]
    readers = [threading.Thread(target=read, args=(ask,)) for ask in asking]
    for reader in readers:
        reader.start()
    command = [sys.executable, "-m", "api", *add(place)]
    adding = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, check=False)
    ended.set()
    for reader in readers:
        reader.join()
    assert adding.returncode == 0, adding.stderr
    assert not failures and len(answers) > 20
    assert near(client, "nearest")[1][0] == "verse"
