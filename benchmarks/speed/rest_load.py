"""Requests a second and answer times of the service under load, by locust.

    pipx install locust
    python -m benchmarks.speed.rest_load --before CHECKOUT --out docs/results/rest-load.json

Each checkout's service is started on this machine with an empty store; locust runs beside it and
takes a share of the same cores. `generate` asks for an adapter of a description that nobody had,
`cached` for one that is there, `search` and `download` are what they say. Every client asks again
as soon as it is answered. Times are milliseconds, as locust rounds them (two digits from 100 on);
`cpu_ms` is the service's CPU time for each request, which other work on the cores changes least.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.files import write_file

ROOT = Path(__file__).parents[2]
USERS = Path(__file__).with_name("rest_load_users.py")
SCENARIOS = ("generate", "cached", "search", "download")
START_SECONDS = 120
LOG = "locust.log"


@contextmanager
def served(
    tree: Path, port: int, data: Path | None = None, settings: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Address and process of a checkout's service, which is ready.

    Args:
        tree: the checkout.
        port: where it listens.
        data: its data folder; an empty one that goes with it if None.
        settings: further flags.
    """
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "LORASMITH_DATA": str(data or empty), "PYTHONPATH": str(tree)}
        command = [sys.executable, "-m", "api", "serve", "--port", str(port), *settings]
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_until_ready(url)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _wait_until_ready(url: str) -> None:
    for _ in range(START_SECONDS):
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    sys.exit(f"the service at {url} is not ready after {START_SECONDS} seconds")


def measured(locust: str, url: str, scenario: str, clients: int, seconds: int) -> dict[str, Any]:
    """One run of locust."""
    with tempfile.TemporaryDirectory() as folder:
        run = started(locust, url, scenario, clients, seconds, folder)
        if run.wait():
            sys.exit(f"locust failed:\n{Path(folder, LOG).read_text(encoding='utf-8')[-2000:]}")
        (row,), failed = rows_of(folder), failures(folder)
    figures = figures_of(row)
    count, refused = figures["requests"], figures["refused"]
    return {
        "scenario": scenario, "clients": clients, **figures, "failures": failed,
        "answered_per_second": float(row["Requests/s"]) * (1 - refused / max(1, count)),
    }  # fmt: skip


def started(
    locust: str, url: str, scenario: str, clients: int, seconds: int, folder: str
) -> subprocess.Popen[bytes]:
    """A run of locust, which leaves its figures in a folder."""
    command = [
        locust, "-f", str(USERS), "--headless", "--only-summary",
        "-u", str(clients), "-r", str(clients), "-t", f"{seconds}s", "--host", url,
        "--csv", f"{folder}/load", "--exit-code-on-error", "0",
    ]  # fmt: skip
    environment = {**os.environ, "SCENARIO": scenario}
    with Path(folder, LOG).open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def rows_of(folder: str) -> list[dict[str, str]]:
    """What locust wrote of each kind of request."""
    with open(f"{folder}/load_stats.csv", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]


def figures_of(row: Mapping[str, str]) -> dict[str, Any]:
    """Numbers of requests and refusals, and times in ms."""
    return {
        "requests": int(row["Request Count"]),
        "refused": int(row["Failure Count"]),
        **{f"p{p}_ms": float(row[f"{p}%"]) for p in (50, 95, 99)},
    }


def failures(folder: str) -> dict[str, int]:
    """What was refused, and how often."""
    with open(f"{folder}/load_failures.csv", encoding="utf-8") as file:
        return {row["Error"]: int(row["Occurrences"]) for row in csv.DictReader(file)}


def cpu_ms(process: int) -> float:
    """CPU time of a process so far, of user and system."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--locust", default="locust", help="its command")
    parser.add_argument("--port", type=int, default=8791)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for tree in (ROOT, o.before) if o.before else (ROOT,):
        with served(tree, o.port) as (url, process):
            for scenario in o.scenarios.split(","):
                for clients in map(int, o.clients.split(",")):
                    spent = cpu_ms(process)
                    run = measured(o.locust, url, scenario, clients, o.seconds)
                    run |= {"tree": "this" if tree == ROOT else "before"}
                    run |= {"cpu_ms": (cpu_ms(process) - spent) / max(1, run["requests"])}
                    runs.append({**run, "memory_mb": memory_mb(process)})
                    print(json.dumps(runs[-1]), flush=True)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.rest_load", *sys.argv[1:]]),
        "threads": os.environ.get("OMP_NUM_THREADS"), "cores": os.cpu_count(), "runs": runs,
    }  # fmt: skip
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
