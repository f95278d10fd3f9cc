"""`/v1/library`: pages that together are the list of the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rest import UNKNOWN_ID, assert_problem, client_of
from starlette.testclient import TestClient

from api.cli.main import main
from api.service.settings import Settings


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
