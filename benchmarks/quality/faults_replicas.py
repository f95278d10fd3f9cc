"""Faults of what replicas share: PostgreSQL, the object store or one of two replicas is killed.

The object store is s3rver, which keeps objects on disk; PostgreSQL that of the tests, with fsync.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.quality.faults_clients import EXAMPLES, JOB_SECONDS, TASK, Load, Served
from tests.support import postgres

AWAY_SECONDS = 5
SETTLING_SECONDS = 5  # of load after the fault
STEPS = 6  # of the jobs that train


class _Part(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...


class ObjectStore:
    """s3rver on a folder; it knows one pair of credentials."""

    def __init__(self, program: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        address = ["--address", "127.0.0.1", "--port", str(self._port), "--silent"]
        self._command = [str(program), "--directory", str(folder), *address]
        self._command += ["--configure-bucket", "adapters"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """By which a service finds it."""
        return {
            "LORASMITH_OBJECTS": "s3://adapters/store", "AWS_ALLOW_HTTP": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER",
        }  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
                return
            except OSError:
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Shared:
    """Two replicas and what they share."""

    one: Served
    two: Served
    database: postgres.Server
    objects: ObjectStore


@contextmanager
def shared(folder: Path, s3rver: Path) -> Iterator[Shared]:
    """Two replicas over one PostgreSQL and one object store, all of them new."""
    objects = ObjectStore(s3rver, folder / "objects")
    objects.start()
    try:
        with postgres.running(("-c", "listen_addresses=")) as database:
            environment = {**objects.environment, "LORASMITH_DATABASE": database.database()}
            with (
                Served(folder / "one", environment=environment) as one,
                Served(folder / "two", environment=environment) as two,
            ):
                yield Shared(one, two, database, objects)
    finally:
        objects.kill()


def kill_postgres(folder: Path, s3rver: Path) -> dict[str, Any]:
    """kill -9 of PostgreSQL and all of its processes under load; it is started again."""
    with shared(folder, s3rver) as all:
        return _outage(all, all.database)


def kill_objects(folder: Path, s3rver: Path) -> dict[str, Any]:
    """kill -9 of the object store under load; it is started again."""
    with shared(folder, s3rver) as all:
        return _outage(all, all.objects)


def _outage(all: Shared, part: _Part) -> dict[str, Any]:
    loads = [Load(all.one, 0, STEPS), Load(all.two, 1, STEPS)]
    jobs = [load.start() for load in loads]
    part.kill()
    time.sleep(AWAY_SECONDS)
    started = time.monotonic()
    part.start()
    again = [_again(replica, started) for replica in (all.one, all.two)]
    time.sleep(SETTLING_SECONDS)
    for load in loads:
        load.stop()
    return {
        "away_seconds": AWAY_SECONDS, "answers": [load.seen() for load in loads],
        "again_after_seconds": again, "jobs": [all.one.ended(job) for job in jobs],
        **_checked(all.one, all.two, loads),
    }  # fmt: skip


def kill_replica(folder: Path, s3rver: Path) -> dict[str, Any]:
    """kill -9 of one of two replicas, each with load and a job that runs; a third job waits."""
    with shared(folder, s3rver) as all:
        loads = [Load(all.one, 0, STEPS), Load(all.two, 1, STEPS)]
        jobs = [load.start() for load in loads]
        body = {"description": TASK, "examples": EXAMPLES, "refine": 3}
        waiting = all.one.client.post("/v1/adapters", json=body).json()
        all.one.kill()
        killed = time.monotonic()
        loads[0].stop()
        time.sleep(SETTLING_SECONDS)
        loads[1].stop()
        interrupted = None
        while interrupted is None and time.monotonic() < killed + JOB_SECONDS:
            states = [all.two.get(f"/v1/jobs/{job}").json()["state"] for job in jobs]
            if "interrupted" in states:
                interrupted = round(time.monotonic() - killed, 1)
            time.sleep(0.5)
        ended = {
            "jobs": sorted(all.two.ended(job) for job in jobs),
            "waiting_job": [waiting["state"], all.two.ended(waiting["id"])],
        }
        kept = _checked(all.two, all.two, loads)
        return {
            "killed": loads[0].seen(), "other": loads[1].seen(), **ended, **kept,
            "interrupted_after_seconds": interrupted, "ready_after_seconds": all.one.start(),
        }  # fmt: skip


def _again(replica: Served, since: float) -> float:
    """Seconds until a replica makes an adapter again."""
    while replica.create(f"Again by {replica.port}.", {}).is_error:
        time.sleep(0.05)
    return round(time.monotonic() - since, 1)


def _checked(one: Served, two: Served, loads: list[Load]) -> dict[str, Any]:
    """What each replica lacks of what the other has acknowledged."""
    found = [two.check(loads[0].acknowledged), one.check(loads[1].acknowledged)]
    return {name: sum(part[name] for part in found) for name in found[0]}
