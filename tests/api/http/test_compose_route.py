"""POST /v1/adapters/compose: what `lorasmith compose` gives, for the adapters of the caller."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    client,
    ended,
    engine,
    library,
    made,
    send,
    service,
    settings,
    stored,
    tasks,
)
from rest import UNKNOWN_ID, assert_problem, bearer, client_of, use
from starlette.testclient import TestClient

import lorasmith
import pretrained
from api.http.schemas import AdapterAnswer
from api.service import composing
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import LOCAL
from generator.engine import Engine
from index.merge.methods import METHODS
from library.base.models import described, load_config, resolve_base
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, Provenance, finish
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from lorasmith.libraries import load_library

URL = "/v1/adapters/compose"
OTHER = "Name the colour of the thing."


def compose(client: TestClient, *adapters: str, **options: Any) -> Any:
    return send(client, URL, {"adapters": list(adapters), **options})


def merged(client: TestClient, *adapters: str, **options: Any) -> dict[str, Any]:
    """The body of a merge, made at once or by a job."""
    answer = compose(client, *adapters, **options)
    assert answer.status_code in (200, 201, 202), answer.text
    if answer.status_code != 202:
        return answer.json()
    job = ended(client, answer.headers["location"])
    assert (job["kind"], job["state"]) == ("compose", "done"), job
    return job["result"]


@pytest.fixture
def two(client: TestClient) -> tuple[str, str]:
    return made(client), made(client, OTHER)


def shelved(library: Path) -> list[str]:
    return [entry.id for entry in load_library(library).adapters()]


def content(client: TestClient, body: dict[str, Any], name: str) -> bytes:
    return client.get(body["files"][name]["url"]).content


def test_a_merge_is_answered_as_a_new_adapter_is(client: TestClient, two: tuple[str, str]) -> None:
    first = compose(client, *two, weights=[0.75, 0.25])
    assert first.status_code == 201, first.text
    body = first.json()
    assert list(body) == list(AdapterAnswer.model_fields)
    AdapterAnswer.model_validate(body, strict=True)
    assert first.headers["location"] == f"/v1/adapters/{body['id']}"
    assert "format;dur=" in first.headers["server-timing"]
    said = f"merged by cat: 0.75 of {two[0]}, 0.25 of {two[1]}"
    assert (body["generator"], body["rank"]) == ("compose", 8)
    assert (body["chosen"]["strategy"], body["chosen"]["reason"]) == ("compose", said)
    told = json.loads(content(client, body, PROVENANCE_FILE))
    assert told["parents"] == [*two] and told["details"]["weights"] == [0.75, 0.25]
    again = compose(client, *two, weights=[0.75, 0.25], seed=None, method="cat")
    assert (again.status_code, again.content) == (200, first.content)
    assert client.get(first.headers["location"]).content == first.content
    assert compose(client, *two, weights=[0.25, 0.75]).status_code == 201


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lorahub"])
def test_bytes_and_id_are_those_of_the_command_line(
    method: str,
    client: TestClient,
    two: tuple[str, str],
    settings: Settings,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tiny").symlink_to(tiny_base)  # the base by the service's name for it
    monkeypatch.chdir(tmp_path / "here")
    options: dict[str, Any] = {"rank": 3, "profile": "lossless", "seed": 2}
    body = merged(client, *two, method=method, **options)
    folders = [settings.data / "adapters" / identity for identity in two]
    expected = lorasmith.compose(folders, method, **options)
    assert (body["id"], body["sha256"]) == (expected.id, expected.sha256)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert content(client, body, name) == expected.files[name]
    assert body["rank"] == 3 and body["seed"] == 2


def test_all_files_are_those_of_the_command_line(tmp_path: Path) -> None:
    ids = shelved(pretrained.LIBRARY)[:2]
    expected = lorasmith.compose(ids, "lego")
    with client_of(Settings(data=tmp_path), Engine([])) as client:
        body = merged(client, *ids, method="lego")
        assert {*body["files"]} == {*expected.files}
        for name, own in expected.files.items():
            assert content(client, body, name) == own


def test_lorahub_searches_in_the_background(
    client: TestClient, library: Path, settings: Settings, tiny_base: Path
) -> None:
    ids = shelved(library)[:2]
    body = merged(client, *ids, method="lorahub", examples=EXAMPLES[:3])
    pairs = [(row["input"], row["output"]) for row in EXAMPLES[:3]]
    expected = lorasmith.compose(
        ids, "lorahub", examples=pairs, library=library, base=str(tiny_base)
    )
    assert content(client, body, WEIGHTS_FILE) == expected.files[WEIGHTS_FILE]
    assert body["chosen"]["reason"].startswith("merged by lorahub: ")


def test_adapters_of_the_library_may_be_merged(client: TestClient, library: Path) -> None:
    own, (first, *_) = made(client), shelved(library)
    body = merged(client, own, first)
    assert body["rank"] == 4 + 2 and first in body["chosen"]["reason"]


def test_high_ranks_are_for_a_job(
    client: TestClient, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = compose(client, *two)
    monkeypatch.setattr(composing, "AT_ONCE", 7)
    later = compose(client, *two)
    assert (at_once.status_code, later.status_code) == (201, 202)
    assert ended(client, later.headers["location"])["result"] == at_once.json()


def test_another_s_adapter_is_like_one_that_is_missing(
    client: TestClient, service: Service, settings: Settings, library: Path
) -> None:
    (_, ann), (_, ben) = service.keys.create("ann"), service.keys.create("ben")
    use(client, ann)
    adapter, shared = made(client), shelved(library)[0]
    use(client, ben)
    client.headers["X-Request-Id"] = "same"
    answers = [compose(client, shared, name) for name in (adapter, UNKNOWN_ID)]
    assert answers[0].content == answers[1].content
    for answer in answers:
        assert_problem(answer, 404, "not-found")
    for name in ("", "task0", "../adapters", str(settings.data), "ad_" + "0" * 39 + "A"):
        assert_problem(compose(client, shared, name), 404, "not-found")
    answer = client.post(URL, json={"adapters": [adapter, shared]}, headers=bearer(ann))
    assert answer.status_code == 201
    assert stored(settings) == sorted([adapter, answer.json()["id"]])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"weights": [1]}, "invalid-field"),
        ({"weights": [1, "2"]}, "invalid-field"),
        ({"weights": [1, None]}, "invalid-field"),
        ({"weights": [1, 10**400]}, "invalid-field"),
        ({"weights": [1e300, 1e300]}, "refused"),
        ({"weights": [-1, 1], "method": "klora"}, "invalid-field"),
        ({"weights": [0, 1], "method": "lego"}, "invalid-field"),
        ({"weights": [1, 1], "method": "soup"}, "invalid-field"),
        ({"density": 0.5}, "invalid-field"),
        ({"density": 0, "method": "ties"}, "invalid-field"),
        ({"rank": 0}, "invalid-field"),
        ({"rank": 257}, "invalid-field"),
        ({"seed": -1, "method": "dare"}, "invalid-field"),
        ({"seed": 2**53, "method": "dare"}, "invalid-field"),
        ({"profile": "gguf"}, "invalid-field"),
        ({"predictor": "/etc", "method": "lora-rar"}, "invalid-field"),
        ({"base": "tiny"}, "invalid-field"),
        ({"method": "magic"}, "unknown-name"),
        ({"method": "\ud800"}, "unknown-name"),
        ({"method": "lorahub"}, "invalid-field"),
        ({"method": "lorahub", "examples": EXAMPLES * 3}, "invalid-field"),
        ({"adapters": []}, "invalid-field"),
        ({"adapters": [UNKNOWN_ID] * 21}, "invalid-field"),
        ({"adapters": None}, "invalid-field"),
    ],
)
def test_what_is_wrong_with_a_merge_is_422_and_stores_nothing(
    client: TestClient, two: tuple[str, str], settings: Settings, options: Any, code: str
) -> None:
    body = {"adapters": [*two], **options}
    assert_problem(send(client, URL, body), 422, code)
    assert stored(settings) == sorted(two)


def test_size_is_limited_before_anything_is_read(
    client: TestClient, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "MAX_RANK", 7)
    monkeypatch.setattr(composing, "parents_for", None)
    detail = assert_problem(compose(client, *two), 422, "invalid-field")["detail"]
    assert "together they have rank 8" in detail


def kept(service: Service, base: Path, modules: list[str], name: str) -> str:
    """An adapter of some modules of a base, which is called by a name."""
    adapter = tiny.adapter(layout_of(load_config(resolve_base(str(base))), modules, rank=2))
    record = {**described(resolve_base(str(base))), "id": name}
    said = Provenance("test", None, None, 0, "cpu", adapter.layout.digest, record)
    files = finish(to_peft(adapter, base_name=name), said)
    service.store.put(LOCAL, {"id": files.id, "rank": 2, "base_model": name}, files.files)
    return files.id


@pytest.mark.parametrize("method", ["cat", "ties"])
def test_adapters_that_do_not_fit_together_are_409(
    client: TestClient, service: Service, tiny_base: Path, endless_base: Path, method: str
) -> None:
    one = kept(service, tiny_base, ["q_proj", "v_proj"], "tiny")
    other = kept(service, endless_base, ["q_proj", "v_proj"], "endless")
    assert_problem(compose(client, one, other, method=method), 409, "layout-mismatch")
    assert merged(
        client, one, kept(service, tiny_base, ["q_proj", "o_proj"], "tiny"), method=method
    )


def test_a_base_that_is_not_configured_is_422(
    service: Service, client: TestClient, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "of_one_base", lambda one, other: False)
    assert_problem(compose(client, *two), 422, "unknown-name")
