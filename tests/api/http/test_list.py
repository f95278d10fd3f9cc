"""GET /v1/adapters: everything that is mine, once, in pages that insertions do not disturb."""

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest import TASK, UNKNOWN_ID, assert_problem, client, engine, post, settings, use  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.schemas import AdapterList
from api.service.keys import KeyStore
from api.service.settings import Settings
from api.service.store import Store

IDS = st.integers(0, 30).map(lambda number: f"ad_{number:040x}")


def walked(client: TestClient, limit: int) -> Iterator[list[dict[str, Any]]]:
    """The pages, each asked for once the one before was used."""
    params: dict[str, Any] = {"limit": limit}
    while True:
        answer = client.get("/v1/adapters", params=params)
        assert answer.status_code == 200, answer.text
        AdapterList.model_validate(answer.json(), strict=True)
        yield answer.json()["adapters"]
        if answer.json()["next"] is None:
            return
        params["cursor"] = answer.json()["next"]


def test_the_pages_hold_the_bodies_of_what_is_mine(client: TestClient, settings: Settings) -> None:
    assert client.get("/v1/adapters").json() == {"adapters": [], "next": None}
    keys = KeyStore(settings.data)
    bodies: dict[str, dict[str, dict[str, Any]]] = {"ann": {}, "ben": {}}
    for name, mine in bodies.items():
        use(client, keys.create(name)[1])
        for text in (TASK, f"The task of {name}.", f"Another task of {name}."):
            body = post(client, {"description": text}).json()
            mine[body["id"]] = body
        for limit in (1, 2, 3, 100):
            pages = list(walked(client, limit))
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            assert [*chain(*pages)] == [mine[identity] for identity in sorted(mine)]
    both = {**bodies["ann"], **bodies["ben"]}
    assert len(both) == 5  # one is both's
    use(client, keys.create("root", ["admin"])[1])
    assert [*chain(*walked(client, 2))] == [both[identity] for identity in sorted(both)]


@given(st.sets(IDS, max_size=12), st.sets(IDS, max_size=6), st.sets(IDS), st.integers(1, 5))
def test_what_is_there_all_the_time_is_shown_once(
    first: set[str], added: set[str], others: set[str], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), quota_bytes=10**6)
        for owner, ids in (("ann", first), ("ben", others)):
            for identity in ids:
                store.put(owner, {"id": identity}, {"file": b"x"})
        shown, after, more = [], "", sorted(added, reverse=True)
        while True:
            records, following = store.page("ann", limit, after)
            shown += [record["id"] for record in records]
            if following is None:
                break
            after = following
            if more:
                store.put("ann", {"id": more.pop()}, {"file": b"x"})
        assert shown == sorted({*shown}) and first <= {*shown} <= first | added


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=101", "limit=many", "limit=-1", "cursor=", "cursor=x",
        f"cursor={UNKNOWN_ID}%0a", "cursor=%00", "limit=9999999999999999999999",
    ],
)  # fmt: skip
def test_a_wrong_page_is_422(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/v1/adapters?{query}"), 422, "invalid-field")


def test_a_cursor_whose_adapter_is_gone_still_goes_on(client: TestClient) -> None:
    made = sorted(post(client, {"description": f"Task {n}."}).json()["id"] for n in range(3))
    first = client.get("/v1/adapters", params={"limit": 1}).json()
    assert first["next"] == made[0]
    client.delete(f"/v1/adapters/{made[0]}")
    rest = client.get("/v1/adapters", params={"cursor": first["next"]}).json()
    assert [body["id"] for body in rest["adapters"]] == made[1:] and rest["next"] is None
