"""The store of jobs: which are interrupted, which make room."""

import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import NotFound
from api.service.job_store import INTERRUPTED, Cancelled, JobStore

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


def test_the_job_of_a_killed_process_counts_as_interrupted(tmp_path: Path) -> None:
    process = tiny.start_python(KILLED, str(tmp_path))
    try:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        store = JobStore(tmp_path)
        assert store.get(identity).state == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with ThreadPoolExecutor(8) as pool:  # looks at once are not taken for the process itself
        states = pool.map(lambda _: store.get(identity).state, range(32))
    assert {*states} == {"interrupted"}
    left = store.get(identity)
    assert (left.state, left.progress, left.error) == ("interrupted", 0.25, INTERRUPTED)


WAITING = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
print(*(store.add("local", "", {"kind": "create", "number": i}).id for i in range(20)), flush=True)
time.sleep(600)
"""


def test_what_waits_with_a_killed_process_is_taken_over_once_in_its_order(tmp_path: Path) -> None:
    process = tiny.start_python(WAITING, str(tmp_path))
    one, two = JobStore(tmp_path), JobStore(tmp_path)
    try:
        assert process.stdout is not None
        waiting = process.stdout.readline().split()
        assert one.adopt() is None, "its process lives"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert one.get(waiting[0]).state == "queued"
    one.cancel(waiting[1])
    with ThreadPoolExecutor(4) as pool:
        taken = [*pool.map(lambda i: (one, two)[i % 2].adopt(), range(24))]
    jobs = [job for job in taken if job is not None]
    assert sorted(job.id for job in jobs) == sorted({*waiting} - {waiting[1]})
    assert {job.request["number"] for job in jobs} == {0, *range(2, 20)}
    one.advance(waiting[0], 0.5)
    one.close()
    two.close()
    later = JobStore(tmp_path)
    assert later.get(waiting[0]).state == "interrupted", "what has begun is not begun again"
    again = [job.id for job in iter(later.adopt, None)]
    assert again == waiting[2:]


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
