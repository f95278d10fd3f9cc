"""The store of jobs: which are interrupted, which make room."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny

from api.errors import NotFound
from api.service.job_store import INTERRUPTED, JobStore

KILLED = """
import sys, time
from pathlib import Path
from api.service.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
job = store.add("ad_x", {"hooks": []})
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


def test_old_jobs_make_room_and_unfinished_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.job_store.HISTORY", 3)
    store = JobStore(tmp_path)
    jobs = [store.add("ad_x", {"hooks": []}) for _ in range(6)]
    for job in jobs[1:]:
        store.complete(job.id, lambda: {"findings": []})
    last = store.add("ad_x", {"hooks": []})
    assert store.get(jobs[0].id).state == "queued"
    for job in jobs[1:4]:
        with pytest.raises(NotFound):
            store.get(job.id)
    assert {store.get(job.id).state for job in jobs[4:]} == {"done"}
    store.close()
    assert store.get(last.id).state == "interrupted"
