"""Names: numbers that are never given twice, and a current version that moves only as told."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Conflict, NotFound, QuotaExceeded
from api.service.name_state import Scores
from api.service.names import MAX_NAMES, NameStore
from api.service.store import Store
from api.service.suites import MAX_INPUT, MAX_ROWS, Suite
from library.errors import UsageError
from library.tasks.files import Example

FILES = {"adapter_config.json": b"{}\n", "adapter_model.safetensors": b"weights"}
ADAPTERS = [f"ad_{number:040x}" for number in range(6)]
SUITE = Suite.of([Example("", f"row {i}", ("yes", "Yes!")) for i in range(10)])
OTHER = Suite.of([Example.pair("row", "no")])


def filled(folder: Path) -> Store:
    """A store in which ann and ben own the same adapters."""
    store = Store(folder, quota_bytes=10**6)
    for adapter in ADAPTERS:
        for owner in ("ann", "ben"):
            store.put(owner, {"id": adapter}, FILES)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path)


@pytest.fixture
def names(store: Store) -> NameStore:
    return NameStore(store)


def promote(names: NameStore, number: int | None, right: int, before: int = 0) -> Any:
    """The gate, with scores that a test makes up."""
    contest = names.get("ann", "router").contest(number)
    old = None if contest.current is None else before
    return names.record("ann", contest, Scores(old, right, 10))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 5)),
        st.tuples(st.just("promote"), st.integers(1, 8), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("rollback")),
        st.tuples(st.just("delete")),
        st.tuples(st.just("delete adapter"), st.integers(0, 5)),
    ),
    max_size=25,
)


class Told:
    """What a name has to be after the same steps, in the plainest words."""

    def __init__(self) -> None:
        self.last, self.versions, self.path = 0, dict[int, str](), list[int]()
        self.adapters = {*ADAPTERS}

    def step(self, names: NameStore, store: Store, kind: str, *with_: int) -> None:
        getattr(self, kind.replace(" ", "_"))(names, store, *with_)

    def publish(self, names: NameStore, store: Store, number: int) -> None:
        adapter = ADAPTERS[number]
        if adapter not in self.adapters:
            with pytest.raises(NotFound):
                names.publish("ann", "router", adapter, SUITE)
            return
        new = adapter not in self.versions.values()
        if new:
            self.last += 1
            self.versions[self.last] = adapter
        version, told = names.publish("ann", "router", adapter, SUITE)
        assert told == new and self.versions[version.number] == adapter

    def promote(self, names: NameStore, store: Store, number: int, old: int, new: int) -> None:
        current = self.path[-1] if self.path else None
        if number not in self.versions or number == current:
            with pytest.raises((NotFound, Conflict)):
                promote(names, number, new, old)
            return
        moves = current is None or new >= old
        assert promote(names, number, new, old).action == ("promoted" if moves else "refused")
        self.path += [number] if moves else []

    def rollback(self, names: NameStore, store: Store) -> None:
        if len(self.path) < 2:
            with pytest.raises((NotFound, Conflict)):
                names.rollback("ann", "router")
            return
        was = self.path.pop()
        move = names.rollback("ann", "router")
        assert (move.before, move.after) == (was, self.path[-1])

    def delete(self, names: NameStore, store: Store) -> None:
        if not self.versions:
            with pytest.raises(NotFound):
                names.delete("ann", "router")
            return
        names.delete("ann", "router")
        self.versions, self.path = {}, []

    def delete_adapter(self, names: NameStore, store: Store, number: int) -> None:
        adapter = ADAPTERS[number]
        if adapter in self.versions.values():
            with pytest.raises(Conflict):
                store.delete("ann", adapter)
        elif adapter in self.adapters:
            store.delete("ann", adapter)
            self.adapters.remove(adapter)

    def check(self, names: NameStore, store: Store) -> None:
        if not self.versions:
            with pytest.raises(NotFound):
                names.get("ann", "router")
            return
        name = names.get("ann", "router")
        assert {v.number: v.adapter for v in name.versions} == self.versions
        for number, adapter in self.versions.items():
            assert names.resolve("ann", f"router@v{number}") == adapter
            assert store.get("ann", adapter)["id"] == adapter
        if self.path:
            current = self.versions[self.path[-1]]
            assert names.resolve("ann", "router") == current
            assert names.resolve("ann", "router@current") == current
        else:
            with pytest.raises(NotFound):
                names.resolve("ann", "router")
        now = None
        for move in name.history:  # each goes on from where the one before has led
            assert move.before == now
            now = now if move.action == "refused" else move.after


@given(STEPS)
def test_numbers_are_never_given_twice_and_current_moves_only_as_told(steps: Any) -> None:
    with TemporaryDirectory() as folder:
        store, told = filled(Path(folder)), Told()
        names = NameStore(store)
        for step in steps:
            told.step(names, store, *step)
            told.check(names, store)


def test_the_same_adapter_again_is_the_same_version_and_may_bring_another_suite(
    names: NameStore,
) -> None:
    first, new = names.publish("ann", "router", ADAPTERS[0], SUITE)
    assert new and first.number == 1
    assert names.publish("ann", "router", ADAPTERS[0]) == (first, False)
    assert names.get("ann", "router").suite == SUITE
    names.publish("ann", "router", ADAPTERS[0], OTHER)
    assert names.get("ann", "router").suite == OTHER
    assert names.get("ann", "router").current is None, "publishing promotes nothing"


def test_without_a_suite_there_is_no_gate_to_pass(names: NameStore) -> None:
    names.publish("ann", "router", ADAPTERS[0])
    with pytest.raises(Conflict, match="no suite"):
        names.get("ann", "router").contest()


@pytest.mark.parametrize(
    ("before", "after", "at_least", "enough"),
    [
        (None, 0, None, True), (None, 4, 5, False), (None, 5, 5, True), (3, 3, None, True),
        (3, 2, None, False), (3, 4, 5, False), (6, 5, 5, False), (0, 0, None, True),
    ],
)  # fmt: skip
def test_the_gate(before: int | None, after: int, at_least: int | None, enough: bool) -> None:
    assert Scores(before, after, 10, at_least).enough is enough


def test_the_outcome_is_in_the_history_with_its_numbers(names: NameStore) -> None:
    names.publish("ann", "router", ADAPTERS[0], SUITE)
    promote(names, 1, 6)
    names.publish("ann", "router", ADAPTERS[1])
    move = promote(names, None, 5, 6)
    assert names.get("ann", "router").history[-1] == move
    assert {**move.to_dict(), "time": ""} == {
        "time": "",
        "action": "refused",
        "from": 1,
        "to": 2,
        "scores": {"from": 6, "to": 5, "of": 10, "at_least": None},
        "suite": SUITE.digest,
    }


@pytest.mark.parametrize("change", ["suite", "promote", "delete", "delete and publish"])
def test_a_name_that_changes_while_it_is_measured_is_not_moved(
    names: NameStore, change: str
) -> None:
    for adapter in ADAPTERS[:3]:
        names.publish("ann", "router", adapter, SUITE)
    promote(names, 1, 5)
    contest = names.get("ann", "router").contest(2)
    if change == "suite":
        names.publish("ann", "router", ADAPTERS[0], OTHER)
    elif change == "promote":
        promote(names, 3, 9, 5)
    else:
        names.delete("ann", "router")
        if "publish" in change:
            names.publish("ann", "router", ADAPTERS[1], SUITE)
    with pytest.raises((Conflict, NotFound)):
        names.record("ann", contest, Scores(5, 10, 10))
    if "delete" not in change:
        assert 2 not in [move.after for move in names.get("ann", "router").history]


def test_threads_that_promote_at_once_leave_one_consistent_history(names: NameStore) -> None:
    for adapter in ADAPTERS:
        names.publish("ann", "router", adapter, SUITE)

    def attempt(number: int) -> int:
        for _ in range(20):
            try:
                promote(names, 1 + number % len(ADAPTERS), 5, 5)
                return 1
            except Conflict:
                continue
        return 0

    with ThreadPoolExecutor(4) as threads:
        moved = sum(threads.map(attempt, range(12)))
    name, now = names.get("ann", "router"), None
    assert len(name.history) == moved > 1
    for move in name.history:
        assert move.before == now != move.after
        now = move.after
    assert name.current is not None and name.current.number == now


def test_threads_that_publish_at_once_get_numbers_of_their_own(names: NameStore) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda a: names.publish("ann", "router", a)[0], ADAPTERS)]
    assert sorted(version.number for version in found) == [1, 2, 3, 4, 5, 6]


def test_names_are_their_owner_s_alone(names: NameStore, store: Store) -> None:
    names.publish("ann", "router", ADAPTERS[0], SUITE)
    promote(names, 1, 1)
    for ask in (
        lambda: names.get("ben", "router"), lambda: names.rollback("ben", "router"),
        lambda: names.delete("ben", "router"), lambda: names.resolve("ben", "router@v1"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            ask()
    assert names.all("ben") == []
    assert names.publish("ben", "router", ADAPTERS[1])[0].number == 1
    assert names.resolve("ann", "router") == ADAPTERS[0]
    store.delete("ben", ADAPTERS[0])  # a version of ann's, not of ben's
    with pytest.raises(Conflict):
        store.delete(None, ADAPTERS[0])
    with pytest.raises(NotFound):
        names.publish("ben", "router", ADAPTERS[0])


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "a_b", "a@v1", "a" * 64, "ä", "a\n", "\ud800", "..", "ad_" + "0" * 40]
)
def test_what_is_no_name_is_refused_and_found_nowhere(names: NameStore, name: str) -> None:
    with pytest.raises(UsageError):
        names.publish("ann", name, ADAPTERS[0])
    with pytest.raises(NotFound):
        names.get("ann", name)


@pytest.mark.parametrize(
    "reference", ["router@v2", "router@v0", "router@v01", "router@1", "router@", "router@latest",
                  "router@v1@v1", "\ud800", "router@v9999999999"],
)  # fmt: skip
def test_what_no_version_is_called_is_found_nowhere(names: NameStore, reference: str) -> None:
    names.publish("ann", "router", ADAPTERS[0])
    with pytest.raises(NotFound):
        names.resolve("ann", reference)


def test_names_are_limited_and_deleted_ones_make_room(names: NameStore) -> None:
    for number in range(MAX_NAMES):
        names.publish("ann", f"n{number}", ADAPTERS[0])
    with pytest.raises(QuotaExceeded):
        names.publish("ann", "router", ADAPTERS[0])
    names.publish("ann", "n0", ADAPTERS[1])
    names.delete("ann", "n1")
    names.publish("ann", "router", ADAPTERS[0])


# Suites


def test_a_suite_is_limited() -> None:
    row, too_much = Example.pair("row", "yes"), [Example.pair("row", "x" * 600_000)] * 2
    for rows in (
        [], [row] * (MAX_ROWS + 1), [Example.pair(" ", "x")],
        [row, Example.pair("x" * (MAX_INPUT + 1), "x")], too_much,
    ):  # fmt: skip
        with pytest.raises(UsageError):
            Suite.of(rows)
    assert Suite.of([row] * MAX_ROWS).to_dict()["rows"] == MAX_ROWS


@given(
    st.lists(
        st.tuples(st.text("aé\n\"", min_size=1).filter(str.strip), st.lists(st.text(), min_size=1)),
        min_size=1,
    )
)  # fmt: skip
def test_a_suite_is_what_was_given(rows: list[tuple[str, list[str]]]) -> None:
    examples = [Example("", text, tuple(outputs)) for text, outputs in rows]
    assert Suite(Suite.of(examples).text).rows == tuple(examples)


def test_a_store_from_before_there_were_names_gets_them(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "owners.sqlite3")) as rows:
        for table in ("versions", "moves", "names"):
            rows.execute(f"DROP TABLE {table}")
    assert NameStore(store).publish("ann", "router", ADAPTERS[0])[0].number == 1
