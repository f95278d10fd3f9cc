"""A server that is told to end, as a process of its own: what it still does, and in which time."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import tiny
from rest import JSON, TASK

from api.service.job_store import JobStore

# Requests wait in the making until there is a file `go`, jobs work until they are stopped.
CODE = """
import sys, time
from pathlib import Path
from api.http.app import run_server
from api.service.making import Making
from api.service.service import Service
from api.service.settings import Settings
data, checkpoint, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
generate = Making.generate
def slowly(self, *args):
    if args[1].seed:
        (data / "begun").touch()
        while not (data / "go").exists():
            time.sleep(0.02)
    return generate(self, *args)
def work(self, job, share):
    while True:
        time.sleep(0.02)
        share(0.5)
Making.generate, Service._work = slowly, work
checkpoints = {"text-to-lora": checkpoint}
settings = {"port": 0, "data": data, "checkpoints": checkpoints, "retry_after": 7}
run_server(Settings(**settings, stop_seconds=seconds))
"""
REQUEST = {"description": TASK, "generator": "text-to-lora"}


def until(condition: object) -> None:
    """Wait for something to be true."""
    end = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def served(
    data: Path, checkpoint: Path, seconds: int
) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    process = tiny.start_python(CODE, str(data), str(checkpoint), str(seconds))
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split("listening on ")[1].split(";")[0]
        with httpx.Client(base_url=url, timeout=60) as client:
            until(lambda: client.get("/health/ready").status_code == 200)
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_what_runs_is_finished_and_all_others_are_told_to_come_again(
    tmp_path: Path, checkpoint: Path
) -> None:
    with served(tmp_path, checkpoint, 60) as (process, client), ThreadPoolExecutor(3) as pool:
        adapter = client.post("/v1/adapters", json=REQUEST).json()["id"]
        verify = client.post(f"/v1/adapters/{adapter}/verify", headers=JSON)
        job = verify.headers["location"]
        until(lambda: client.get(job).json()["state"] == "running")
        running = pool.submit(client.post, "/v1/adapters", json={**REQUEST, "seed": 1})
        until(lambda: (tmp_path / "begun").exists())
        waiting = pool.submit(client.post, "/v1/adapters", json={**REQUEST, "seed": 2})
        time.sleep(0.5)

        process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/health/live").status_code == 200
        late = [client.get("/health/ready"), client.get(job), client.post("/v1/adapters", json={})]
        assert not running.done() and not waiting.done()
        (tmp_path / "go").touch()
        assert running.result().status_code == 201
        for answer in (*late, waiting.result()):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
            assert answer.json()["code"] == "not-ready"
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in output + errors
    assert JobStore(tmp_path).get(job.rpartition("/")[2]).state == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize(("signals", "seconds"), [(1, 1), (2, 600)])
def test_what_does_not_end_is_left_behind_in_time(
    tmp_path: Path, checkpoint: Path, signals: int, seconds: int
) -> None:
    with served(tmp_path, checkpoint, seconds) as (process, client), ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/v1/adapters", json={**REQUEST, "seed": 1})
        until(lambda: (tmp_path / "begun").exists())
        started = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        _, errors = process.communicate(timeout=60)
        assert 0.5 < time.monotonic() - started < 20
        assert running.exception(60) is not None or running.result().status_code >= 500
    assert process.returncode == 1 and "the process ends without it" in errors
    assert not (tmp_path / "adapters").exists()
