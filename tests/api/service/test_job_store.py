"""The store of jobs: which are interrupted, which make room."""

import math
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import NotFound
from api.service.job_store import INTERRUPTED, SILENT_SECONDS, Cancelled, JobRow, JobStore

KILLED = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
job = store.add("local", "ad_x", {"hooks": []})
store.advance(job.id, 0.25)
print(job.id, flush=True)
time.sleep(600)
"""


def test_the_job_of_a_killed_process_counts_as_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = tiny.start_python(KILLED, str(tmp_path))
    try:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        store = JobStore(tmp_path)
        assert store.get(identity).state == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert store.get(identity).state == "running", "until it has been silent for a while"
    monkeypatch.setattr("api.service.job_store.SILENT_SECONDS", 0)
    with ThreadPoolExecutor(8) as pool:
        states = pool.map(lambda _: store.get(identity).state, range(32))
    assert {*states} == {"interrupted"}
    left = store.get(identity)
    assert (left.state, left.progress, left.error) == ("interrupted", 0.25, INTERRUPTED)
    with pytest.raises(Cancelled):
        store.advance(identity, 0.5)
    monkeypatch.undo()
    assert store.get(identity) == left, "it never ends otherwise"


def added(store: JobStore, **request: Any) -> JobRow:
    job = store.add("local", "", {"kind": "create", **request})
    assert job is not None
    return job


def taken(store: JobStore) -> JobRow:
    found = store.take()
    assert found is not None
    return found[0]


WAITING = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
print(*(store.add("local", "", {"kind": "create", "number": i}).id for i in range(20)), flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_left_waiting_is_taken_once_in_its_order(tmp_path: Path) -> None:
    process = tiny.start_python(WAITING, str(tmp_path))
    one = JobStore(tmp_path)
    try:
        assert process.stdout is not None
        waiting = process.stdout.readline().split()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert one.get(waiting[0]).state == "queued"
    one.cancel(waiting[1])
    with ThreadPoolExecutor(4) as pool:
        taken = [*pool.map(lambda _: JobStore(tmp_path).take(), range(24))]
    jobs = [found[0] for found in taken if found is not None]
    assert sorted(job.id for job in jobs) == sorted({*waiting} - {waiting[1]})
    assert {job.request["number"] for job in jobs} == {0, *range(2, 20)}
    assert {job.state for job in jobs} == {"running"} and min(
        found[1] for found in taken if found
    ) >= 0


def test_jobs_are_taken_in_their_order_and_what_is_left_is_interrupted(tmp_path: Path) -> None:
    one, two = JobStore(tmp_path), JobStore(tmp_path)
    ids = [added(one, number=number).id for number in range(3)]
    assert taken(two).id == ids[0] and taken(one).id == ids[1]
    two.give_back(ids[0])
    assert two.get(ids[0]).state == "queued" and taken(one).id == ids[0]
    assert one.get(ids[1]).state == "interrupted", "a process runs one job at a time"
    one.close()
    assert two.get(ids[0]).state == "interrupted", "what has begun is not begun again"
    assert taken(two).id == ids[2] and one.take() is None
    assert two.waiting() == 0


def test_a_queue_is_full_for_all_processes(tmp_path: Path) -> None:
    one, two = JobStore(tmp_path), JobStore(tmp_path)
    assert [one.add("a", "", {}, 2) is not None for _ in range(3)] == [True, True, False]
    assert two.add("a", "", {}, 2) is None and two.waiting() == 2
    taken(two)
    assert one.add("a", "", {}, 2) is not None, "the other runs one, and this one none"
    assert two.add("a", "", {}, 2) is None


def test_signs_of_life_keep_a_job_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, other = JobStore(tmp_path), JobStore(tmp_path)
    job = added(worker)
    clock = [time.time()]
    monkeypatch.setattr("api.service.job_store.time.time", lambda: clock[0])
    taken(worker)
    for _ in range(3):
        clock[0] += SILENT_SECONDS - 1
        worker.beat(job.id)
        assert other.get(job.id).state == "running"
    clock[0] += SILENT_SECONDS + 1
    assert worker.get(job.id).state == "running", "it knows that it lives"
    other._database.away = time.monotonic()
    assert other.get(job.id).state == "running", "a server that is away hears nobody"
    other._database.away = -math.inf
    assert other.get(job.id).state == "interrupted"
    worker.beat(job.id)
    assert worker.get(job.id).state == "interrupted"


def test_old_jobs_make_room_and_unfinished_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.job_store.HISTORY", 3)
    store = JobStore(tmp_path)
    jobs = [store.add("local", "ad_x", {"hooks": []}) for _ in range(6)]
    for job in jobs[1:]:
        store.complete(job.id, lambda: {"findings": []})
    last = store.add("local", "ad_x", {"hooks": []})
    assert store.get(jobs[0].id).state == "queued"
    for job in jobs[1:4]:
        with pytest.raises(NotFound):
            store.get(job.id)
    assert {store.get(job.id).state for job in jobs[4:]} == {"done"}
    store.close()
    assert store.get(last.id).state == "queued", "for the next process"


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["advance", "complete", "fail", "interrupt", "cancel"])))
def test_how_a_job_ended_never_changes(calls: list[str]) -> None:
    kept: list[str] = []

    def keep() -> dict[str, Any]:
        kept.append("ad_x")
        return {"id": "ad_x"}

    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(Path(folder))
        job = store.add("local", "", {"kind": "create"})
        act = {
            "advance": lambda: store.advance(job.id, 0.5),
            "complete": lambda: store.complete(job.id, keep),
            "fail": lambda: store.fail(job.id, "failed", "why"),
            "interrupt": lambda: store.fail(job.id, "interrupted", INTERRUPTED),
            "cancel": lambda: store.cancel(job.id),
        }
        for call in calls:
            before = store.get(job.id)
            unfinished = before.state in ("queued", "running")
            try:
                act[call]()
                assert unfinished or call not in ("advance", "complete")
            except Cancelled:
                assert not unfinished
            assert unfinished or store.get(job.id) == before
        ends = [call for call in calls if call != "advance"]
        states = {
            "complete": "done",
            "cancel": "cancelled",
            "interrupt": "interrupted",
            "fail": "failed",
        }
        left = store.get(job.id)
        assert left.state == (states[ends[0]] if ends else "running" if calls else "queued")
        done = left.state == "done"
        assert (kept, left.adapter) == ((["ad_x"], "ad_x") if done else ([], ""))
        store.close()


def test_a_job_whose_result_cannot_be_kept_is_not_done(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.add("local", "", {"kind": "create"})

    def broken() -> dict[str, Any]:
        raise ValueError("no room")

    with pytest.raises(ValueError):
        store.complete(job.id, broken)
    assert store.get(job.id).state == "queued"
    store.close()


def test_a_job_from_before_there_were_kinds_verifies(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    assert store.get(store.add("local", "ad_x", {"hooks": []}).id).kind == "verify"
    store.close()
