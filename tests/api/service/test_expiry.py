"""Time to live: what nobody uses goes, and nothing else does, whatever the clock does."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rest import (  # noqa: F401  (fixtures)
    TASK,
    assert_problem,
    client_of,
    client_of_service,
    engine,
    post,
    settings,
)

from api.errors import NotFound, QuotaExceeded
from api.service.names import NameStore
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import Store
from api.service.uses import NOTE_SECONDS
from generator.engine import Engine

DAY = 24 * 3600
FILES = {"adapter_config.json": b"{}\n", "adapter_model.safetensors": b"weights" * 100}
SIZE = sum(len(content) for content in FILES.values())
ONE = {"id": "ad_" + "1" * 40}
TWO = {"id": "ad_" + "2" * 40}


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.now = 1.8e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "data", quota_bytes=2 * SIZE, ttl=10 * DAY, clock=clock)


def there(store: Store, owner: str, adapter: dict[str, Any]) -> bool:
    """Whether an owner has an adapter, without a use of it."""
    return adapter["id"] in {record["id"] for record in store.owned(owner)}


def files_of(store: Store, adapter: dict[str, Any]) -> bool:
    return store.path(adapter["id"], "adapter_config.json").exists()


def test_what_is_not_used_for_the_time_to_live_goes_and_comes_back(
    store: Store, clock: Clock
) -> None:
    store.put("a", ONE, FILES)
    clock.now += 10 * DAY - 1
    assert store.sweep() == 0 and there(store, "a", ONE)
    clock.now += 2
    assert store.sweep() == 1
    with pytest.raises(NotFound):
        store.get("a", ONE["id"])
    assert not files_of(store, ONE)
    assert store.put("a", ONE, FILES)[1]
    assert store.sweep() == 0


@pytest.mark.parametrize("use", ["put", "get", "require", "read", "as admin"])
def test_every_use_prolongs_it_and_listing_does_not(store: Store, clock: Clock, use: str) -> None:
    store.put("a", ONE, FILES), store.put("a", TWO, FILES)
    uses = {
        "put": lambda: store.put("a", ONE, FILES),
        "get": lambda: store.get("a", ONE["id"]),
        "require": lambda: store.require("a", ONE["id"]),
        "read": lambda: store.read("a", ONE["id"], "adapter_config.json"),
        "as admin": lambda: store.get(None, ONE["id"]),
    }
    for _ in range(3):
        clock.now += 9 * DAY
        uses[use]()
        store.page("a", 10), store.owned("a")
        store.sweep()
    assert there(store, "a", ONE) and not there(store, "a", TWO)


def test_a_use_is_noted_once_in_a_while(tmp_path: Path, clock: Clock) -> None:
    def noted(store: Store, seconds: float) -> bool:
        clock.now += seconds
        store.get("a", ONE["id"])
        with closing(sqlite3.connect(store.folder / "owners.sqlite3")) as rows:
            return rows.execute("SELECT used FROM owners").fetchone()[0] == clock.now

    for ttl, seconds in ((None, NOTE_SECONDS), (10 * DAY, NOTE_SECONDS), (100, 10)):
        store = Store(tmp_path / str(ttl), quota_bytes=2 * SIZE, ttl=ttl, clock=clock)
        store.put("a", ONE, FILES)
        assert not noted(store, seconds - 1)
        assert noted(store, 2)


def test_it_goes_for_each_owner_by_itself_and_its_files_with_the_last(
    store: Store, clock: Clock
) -> None:
    store.put("a", ONE, FILES)
    clock.now += 6 * DAY
    store.put("b", ONE, FILES)
    clock.now += 6 * DAY
    assert store.sweep() == 1
    assert not there(store, "a", ONE) and there(store, "b", ONE)
    assert store.read("b", ONE["id"], "adapter_config.json")[0] == b"{}\n"
    clock.now += 11 * DAY
    assert store.sweep() == 1 and not files_of(store, ONE)


def test_versions_of_names_stay_and_live_on_once_the_name_is_gone(
    store: Store, clock: Clock
) -> None:
    names = NameStore(store)
    store.put("a", ONE, FILES), store.put("b", ONE, FILES), store.put("a", TWO, FILES)
    names.publish("a", "router", ONE["id"])
    clock.now += 100 * DAY
    assert store.sweep() == 2, "b's row of it has no name, nor has the other adapter"
    assert there(store, "a", ONE) and not there(store, "b", ONE) and files_of(store, ONE)
    names.delete("a", "router")
    assert store.sweep() == 0
    clock.now += 11 * DAY
    assert store.sweep() == 1 and not files_of(store, ONE)


@pytest.mark.parametrize("back", [3600, 1000 * DAY])
def test_a_clock_that_is_put_back_neither_ends_nor_prolongs_without_end(
    store: Store, clock: Clock, back: float
) -> None:
    store.put("a", ONE, FILES)
    clock.now -= back
    assert store.sweep() == 0 and there(store, "a", ONE)
    store.get("a", ONE["id"])
    clock.now += 10 * DAY - 1
    assert store.sweep() == 0 and there(store, "a", ONE)
    clock.now += 2
    assert store.sweep() == 1


def test_what_was_stored_before_uses_were_noted_begins_to_live_now(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    store.put("a", ONE, FILES)
    with closing(sqlite3.connect(store.folder / "owners.sqlite3")) as rows:
        rows.execute("ALTER TABLE owners DROP COLUMN used")
        rows.execute("PRAGMA user_version = 0")
    clock.now += 100 * DAY
    assert store.sweep() == 0 and there(store, "a", ONE)
    clock.now += 10 * DAY + 1
    assert store.sweep() == 1


def test_without_a_time_to_live_nothing_goes(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path, quota_bytes=SIZE, clock=clock)
    store.put("a", ONE, FILES)
    clock.now += 10_000 * DAY
    assert store.sweep() == 0
    with pytest.raises(QuotaExceeded):
        store.put("a", TWO, FILES)
    assert there(store, "a", ONE)


def test_where_a_quota_is_reached_what_has_expired_goes_first(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    three = {"id": "ad_" + "3" * 40}
    store.put("a", ONE, FILES)
    clock.now += 6 * DAY
    store.put("b", TWO, FILES)
    with pytest.raises(QuotaExceeded):
        store.put("b", three, FILES)
    assert there(store, "a", ONE) and there(store, "b", TWO), "what lives is not in the way"
    clock.now += 6 * DAY
    assert store.put("b", three, FILES)[1]
    assert not there(store, "a", ONE) and there(store, "b", TWO)
    own = Store(
        tmp_path / "own", quota_bytes=10**6, quota_of=lambda _: SIZE, ttl=DAY, clock=clock
    )  # the quota of a key
    own.put("a", ONE, FILES)
    clock.now += 2 * DAY
    assert own.put("a", TWO, FILES)[1] and not there(own, "a", ONE)


def test_over_http_it_is_not_found_and_the_same_request_makes_it_again(
    settings: Settings, engine: Engine, clock: Clock
) -> None:
    service = Service(settings, engine)
    service.store.uses = Store(settings.data, quota_bytes=0, ttl=DAY, clock=clock).uses
    with client_of_service(service) as client:
        first = post(client, {"description": TASK})
        clock.now += DAY + 1
        assert service.store.sweep() == 1
        assert_problem(client.get(first.headers["location"]), 404, "not-found")
        again = post(client, {"description": TASK})
        assert (again.status_code, again.json()) == (201, first.json())


def test_a_service_sweeps_while_it_runs_and_stops_at_once(
    settings: Settings, engine: Engine
) -> None:
    with client_of(settings.model_copy(update={"ttl": 1}), engine) as client:
        post(client, {"description": TASK})
        end = time.monotonic() + 30
        while client.get("/v1/adapters").json()["adapters"] and time.monotonic() < end:
            time.sleep(0.05)
        assert client.get("/v1/adapters").json()["adapters"] == []
        assert [*(settings.data / "adapters").iterdir()] == []
    with client_of(settings.model_copy(update={"ttl": 10_000}), engine) as client:
        started = time.monotonic()  # it waits a minute for its next look
    assert time.monotonic() - started < 10


def test_a_damaged_store_is_logged_and_the_service_goes_on(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    settings.data.mkdir()
    with client_of(settings.model_copy(update={"ttl": 1}), engine) as client:
        database, damaged = settings.data / "owners.sqlite3", settings.data / "damaged"
        end = time.monotonic() + 30
        while "cannot be removed" not in caplog.text and time.monotonic() < end:
            for kept in settings.data.glob("owners.sqlite3-*"):  # else what it holds is read
                kept.unlink(missing_ok=True)
            damaged.write_bytes(b"no database " * 100)
            damaged.replace(database)  # once more, if a sweep opened the old one in between
            time.sleep(0.3)
        assert "cannot be removed" in caplog.text
        database.unlink()
        assert post(client, {"description": TASK}).status_code == 201
