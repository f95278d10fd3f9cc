"""What clients see of a service that is killed, stopped, full, or held up, and what is lost.

    pip install libfaketime && npm install s3rver
    python -m benchmarks.quality.faults --faketime libfaketime.so.1 \
        --s3rver node_modules/.bin/s3rver --out docs/results/faults.json

Each fault has a service of its own, a process on an empty folder, under load where that matters:
clients that make adapters, one that exports, deletes and imports, a job that trains. What was
answered with 200 or 201 is acknowledged: afterwards it is asked for again, and its weights have to
have the SHA-256 of the answer. What is not run is null. Faults of several replicas are in
faults_replicas.py.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.faults_clients import TASK, Load, Served, answer_times, half_requests
from benchmarks.quality.faults_replicas import kill_objects, kill_postgres, kill_replica
from library.files import write_file

KILLS = 3
HELD = 200  # connections that are kept open
RATE = 60  # requests a minute, of the fault of the clock
FEW_FILES = 1024  # the usual limit of a process


def kill(folder: Path) -> dict[str, Any]:
    """kill -9 in the middle of load, several times, and a start on what is there."""
    rounds: list[dict[str, Any]] = []
    acknowledged: dict[str, str] = {}
    with Served(folder) as served:
        for number in range(KILLS):
            load = Load(served, number)
            job = load.start()
            served.kill()
            load.stop()
            acknowledged |= load.acknowledged
            ready = served.start()
            state = served.ended(job)
            rounds.append({**load.seen(), "ready_after_seconds": ready, "job": state})
        hidden = len([*(folder / "adapters").glob(".*")])
        return {"rounds": rounds, **served.check(acknowledged), "hidden_folders": hidden}


def terminate(folder: Path) -> dict[str, Any]:
    """SIGTERM in the middle of load."""
    with Served(folder) as served:
        load = Load(served, 0)
        job = load.start()
        ended, code = served.terminate()
        load.stop()
        ready = served.start()
        state = served.ended(job)
        return {
            **load.seen(), "ended_after_seconds": ended, "exit_code": code,
            "ready_after_seconds": ready, "job": state, **served.check(load.acknowledged),
        }  # fmt: skip


def full_disk(folder: Path) -> dict[str, Any]:
    """A file system of 64 MiB: full of adapters, then to the last byte, then room again."""
    mount = f'mount -t tmpfs -o size=64m none {folder} && exec "$@"'
    with Served(folder, before=["unshare", "-rm", "sh", "-c", mount, "sh"]) as served:
        acknowledged: dict[str, str] = {}
        refused = served.create("The one that does not fit.", acknowledged)
        for number in range(40):
            refused = served.create(f"Task number {number}.", acknowledged)
            if refused.status_code != 201:
                break
        full = {"create": _told(refused), **served.check(acknowledged)}
        filler = Path(f"/proc/{served.pid}/root{folder}/filler")
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        first, *others = acknowledged
        last_byte = {
            "ready": served.get("/health/ready").status_code,
            "read": _told(served.get(f"/v1/adapters/{first}")),
            "delete": _told(served.client.delete(f"/v1/adapters/{first}")),
        }
        filler.unlink(missing_ok=True)
        deleted = served.client.delete(f"/v1/adapters/{first}").status_code
        left = {one: acknowledged[one] for one in others}
        again = served.create(TASK, left).status_code
        return {
            "full": full, "not_a_byte_left": last_byte,
            "room_again": {"delete": deleted, "create": again, **served.check(left)},
        }  # fmt: skip


def clock(folder: Path, library: Path) -> dict[str, Any]:
    """The clock put forward by a year, then back to a day ago, with a rate that is used up."""
    offset = folder / "clock"
    offset.parent.mkdir(parents=True, exist_ok=True)
    offset.write_text("+0\n", encoding="ascii")
    environment = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    with Served(
        folder / "data", environment=environment, arguments=["--rate", f"{RATE}/minute"]
    ) as served:
        acknowledged: dict[str, str] = {}
        seen: dict[str, Any] = {}
        for name, shift in (("now", "+0"), ("year_ahead", "+365d"), ("day_back", "-1d")):
            offset.write_text(f"{shift}\n", encoding="ascii")
            time.sleep(2)
            made = served.create(f"Task {name}.", acknowledged)
            answers = [served.get("/v1/generators") for _ in range(RATE)]
            over = [answer.headers["retry-after"] for answer in answers if answer.is_error]
            seen[name] = {
                "date": made.headers["date"], "create": made.status_code,
                "of_rate_answered": len(answers) - len(over),
                "retry_after_seconds": int(over[-1]) if over else None,
            }  # fmt: skip
        served.kill()
        served.start()
        return {"rate": f"{RATE}/minute", **seen, **served.check(acknowledged)}


def hang_ups(folder: Path) -> dict[str, Any]:
    """1,000 clients that send half a request and leave."""
    with Served(folder) as served:
        served.warm()
        before = served.open_files()
        half_requests(served.port, 1000)
        times = answer_times(served, 3)
        return {
            "clients": 1000,
            "files_before": before,
            "files_after": served.open_files(),
            **times,
        }


def slow_heads(folder: Path) -> dict[str, Any]:
    """200 connections that send a byte of a head each second; others ask meanwhile."""
    with Served(folder) as served:
        return served.held(HELD, 25, b"GET /v1/generators HTTP/1.1\r\nHost: localhost\r\nX-A: ")


def many_connections(folder: Path) -> dict[str, Any]:
    """More connections than the process may have files."""
    limited = ["prlimit", f"--nofile={FEW_FILES}:{FEW_FILES}"]
    with Served(folder, before=limited) as served:
        return served.held(FEW_FILES + 100, 25, b"GET / HTTP/1.1\r\nX: ")


def slow_uploads(folder: Path) -> dict[str, Any]:
    """All places for uploads taken by bodies of a byte a second; another import waits for one."""
    head = (
        b"POST /v1/adapters/import HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-tar\r\nContent-Length: 9000\r\n\r\n"
    )
    with Served(folder) as served:
        return {**served.held(4, 40, head, path="import")}


def _told(answer: Any) -> str:
    """Status and code of an answer."""
    problem = answer.status_code >= 400
    return f"{answer.status_code} {answer.json()['code']}" if problem else str(answer.status_code)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faketime", type=Path, help="libfaketime, for the clock")
    parser.add_argument("--s3rver", type=Path, help="an object store, for what replicas share")
    parser.add_argument("--only", help="names of faults, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    faults: dict[str, Callable[[Path], dict[str, Any]] | None] = {
        "kill": kill, "terminate": terminate, "full_disk": full_disk,
        "clock": (lambda folder: clock(folder, o.faketime)) if o.faketime else None,
        "hang_ups": hang_ups, "slow_heads": slow_heads, "many_connections": many_connections,
        "slow_uploads": slow_uploads,
    }  # fmt: skip
    for fault in (kill_postgres, kill_objects, kill_replica):
        faults[fault.__name__] = partial(fault, s3rver=o.s3rver) if o.s3rver else None
    report = json.loads(o.out.read_text("utf-8")) if o.out.exists() else {}
    report["command"] = " ".join(["python", "-m", "benchmarks.quality.faults", *sys.argv[1:]])
    for name, fault in faults.items():
        if o.only and name not in o.only.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            report[name] = fault(Path(folder)) if fault else None
        print(name, json.dumps(report[name]), flush=True)
        write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
