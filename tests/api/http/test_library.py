"""`/v1/library`: pages that together are the list of the command line, records, and the map."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rest import UNKNOWN_ID, assert_problem, client_of
from starlette.testclient import TestClient
from tiny import LIBRARY_TASKS

from api.cli.main import main
from api.http import library
from api.service import searching
from api.service.settings import Settings
from generator.engine import Engine


@pytest.fixture
def place(small_library: Path, tmp_path: Path) -> str:
    return shutil.copytree(small_library / "lib", tmp_path / "lib").as_posix()


@pytest.fixture
def settings(place: str, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", library=place)


def listed(place: str, capsys: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["library", "list", "--library", place, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["adapters"]


def pages(client: TestClient, limit: int) -> list[list[dict[str, Any]]]:
    found, query = [], {"limit": limit}
    while True:
        answer = client.get("/v1/library", params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert sorted(body) == ["adapters", "next"]
        found.append(body["adapters"])
        if body["next"] is None:
            return found
        query = {"limit": limit, "cursor": body["next"]}


def test_pages_of_any_size_are_the_list(place: str, settings: Settings, capsys: Any) -> None:
    whole = listed(place, capsys)
    assert len(whole) == 3
    with client_of(settings, None) as client:  # while nothing is loaded
        assert client.get("/v1/library").json() == {"adapters": whole, "next": None}
        for limit in (1, 2, 3, 1000):
            found = pages(client, limit)
            assert [adapter for page in found for adapter in page] == whole
            assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
            assert len(found) == -(-3 // limit)


def test_what_is_removed_meanwhile_is_left_out(place: str, settings: Settings, capsys: Any) -> None:
    ids = [adapter["id"] for adapter in listed(place, capsys)]
    with client_of(settings, None) as client:
        cursor = client.get("/v1/library", params={"limit": 1}).json()["next"]
        assert main(["library", "remove", ids[1], "--library", place]) == 0
        rest = client.get("/v1/library", params={"cursor": cursor}).json()["adapters"]
        assert [adapter["id"] for adapter in rest] == ids[2:]
        assert main(["library", "remove", ids[0], "--library", place]) == 0
        again = client.get("/v1/library", params={"cursor": cursor})
        assert_problem(again, 422, "invalid-field")


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "many"},
        {"cursor": ""},
        {"cursor": "sum"},  # a task
        {"cursor": UNKNOWN_ID},
        {"cursor": "ad_\0"},
    ],
)
def test_other_limits_and_cursors_are_refused(query: dict[str, str], settings: Settings) -> None:
    with client_of(settings, None) as client:
        body = assert_problem(client.get("/v1/library", params=query), 422, "invalid-field")
        assert next(iter(query)) in body["detail"]


def test_an_adapter_is_shown_with_its_description(
    place: str, settings: Settings, capsys: Any
) -> None:
    with client_of(settings, None) as client:
        for adapter in listed(place, capsys):
            shown = client.get(f"/v1/library/{adapter['id']}").json()
            assert {name: shown[name] for name in adapter} == adapter
            assert shown["description"] == LIBRARY_TASKS[adapter["task"]]
        for identity in (UNKNOWN_ID, "sum", "ad_"):
            assert_problem(client.get(f"/v1/library/{identity}"), 404, "not-found")
        assert main(["library", "remove", adapter["id"], "--library", place]) == 0
        assert_problem(client.get(f"/v1/library/{adapter['id']}"), 404, "not-found")


def test_the_map_has_every_adapter_and_places_a_description_on_its_own(
    place: str, settings: Settings, engine: Engine, capsys: Any
) -> None:
    whole = listed(place, capsys)
    with client_of(settings, engine) as client:
        body = client.get("/v1/library/map").json()
        places = {adapter["id"]: (adapter["x"], adapter["y"]) for adapter in body["adapters"]}
        assert [*places] == [adapter["id"] for adapter in whole] and body["total"] == 3
        assert body["explained"] == pytest.approx(1)  # three points lie on a plane
        assert body["query"] is None
        for adapter in body["adapters"]:
            query = {"q": LIBRARY_TASKS[adapter["task"]]}
            found = client.get("/v1/library/map", params=query).json()["query"]
            assert (found["x"], found["y"]) == pytest.approx(places[adapter["id"]], abs=1e-4)
        blank = client.get("/v1/library/map", params={"q": " "})
        assert_problem(blank, 422, "invalid-description")


def test_the_map_of_a_large_library_has_evenly_many_of_its_adapters(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(settings, engine) as client:
        whole = client.get("/v1/library/map").json()
        monkeypatch.setattr(library, "MAX_POINTS", 2)
        some = client.get("/v1/library/map").json()
        assert some["adapters"] == whole["adapters"][:2] and some["total"] == 3


def test_the_map_follows_the_library(
    place: str, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "FOLLOW_SECONDS", 0)
    with client_of(settings, engine) as client:
        before = client.get("/v1/library/map").json()["adapters"]
        assert main(["library", "remove", before[0]["id"], "--library", place]) == 0
        after = client.get("/v1/library/map").json()["adapters"]
        assert [adapter["id"] for adapter in after] == [adapter["id"] for adapter in before[1:]]
