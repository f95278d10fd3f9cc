"""Requests that nobody should send, thousands of them: no 500, no hang, and the service goes on.

    pip install schemathesis                                # in an environment of its own
    python -m benchmarks.quality.fuzz --schemathesis schemathesis --out docs/results/faults.json

Three kinds, each to a service of its own with one adapter: schemathesis on the OpenAPI document,
bodies and heads that are mutated here, and files that are asked for while their adapter is deleted.
Answers are counted by the service's own metrics, by route and status. Last, how long the check of a
key takes by what is wrong with it.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[2]))

from api.errors import Unauthenticated
from api.service.keys import KeyStore
from benchmarks.quality.faults_clients import TASK, Served
from benchmarks.quality.fuzz_requests import Seeds, answered, mutated
from library.files import write_file

REQUESTS = 2500
RACES = 150
CHECKS = 2000  # of keys
HANG_SECONDS = 60.0
STREAMS = "max-stream-events = 1\n"  # of a job, which else are read until the job has ended


def whole(served: Served, work: Callable[[Served, str], dict[str, Any]]) -> dict[str, Any]:
    """What comes of some work: answers by route, and whether the service is as it was."""
    first = served.client.post("/v1/adapters", json={"description": TASK}).json()
    found = work(served, first["id"])
    again = served.client.post("/v1/adapters", json={"description": TASK}).json()
    return {
        **found, "answers": answers_of(served),
        "ready": served.get("/health/ready").status_code == 200,
        "equal": again["sha256"] == first["sha256"] and again["id"] == first["id"],
    }  # fmt: skip


def answers_of(served: Served) -> dict[str, dict[str, int]]:
    """How often each route answered with each status, by the service's metrics."""
    counts: dict[str, dict[str, int]] = {}
    for family in text_string_to_metric_families(served.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "lorasmith_http_requests_total":
                of = f"{sample.labels['method']} {sample.labels['route']}"
                counts.setdefault(of, {})[sample.labels["status"]] = int(sample.value)
    return {route: dict(sorted(counts[route].items())) for route in sorted(counts)}


def by_schema(command: str, examples: int) -> Callable[[Served, str], dict[str, Any]]:
    """schemathesis, at most so many examples for each operation."""

    def work(served: Served, identity: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{served.port}/openapi.json"
        arguments = [
            "run", url, "--phases", "examples,coverage,fuzzing", "--checks", "not_a_server_error",
            "--max-examples", str(examples), "--seed", "1", "--request-timeout", "60",
            "--continue-on-failure", "--suppress-health-check", "all", "--no-shrink",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as place:  # it leaves a folder where it runs
            (Path(place) / "schemathesis.toml").write_text(STREAMS, "utf-8")
            done = subprocess.run([command, *arguments], cwd=place, capture_output=True, text=True)
        arguments[1] = "URL/openapi.json"
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        return {"command": " ".join(["schemathesis", *arguments]), "configuration": STREAMS.strip(),
                "exit_code": done.returncode, "summary": lines[-12:]}  # fmt: skip

    return work


def by_mutation(served: Served, identity: str) -> dict[str, Any]:
    """Bodies, paths, queries and heads that are changed at random, and raw bytes."""
    draw, longest, none = random.Random(1), 0.0, 0
    seeds = Seeds(identity, served.get(f"/v1/adapters/{identity}/archive").content)
    for _ in range(REQUESTS):
        started = time.monotonic()
        none += not answered(served.port, mutated(draw, seeds), HANG_SECONDS)
        longest = max(longest, time.monotonic() - started)
    return {"requests": REQUESTS, "closed_without_answer": none,
            "longest_seconds": round(longest, 2)}  # fmt: skip


def by_race(served: Served, identity: str) -> dict[str, Any]:
    """An adapter that is deleted and imported again, while its files are asked for."""
    archive = served.get(f"/v1/adapters/{identity}/archive").content
    end, broken = threading.Event(), []

    def read(path: str) -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=60) as client:
            while not end.is_set():
                try:
                    client.get(path)
                except httpx.HTTPError as error:
                    broken.append(f"{path.rpartition('/')[2]}: {type(error).__name__}")

    of = f"/v1/adapters/{identity}"
    hub = f"/generated/{identity}/resolve/main/adapter_config.json"
    paths = (of, f"{of}/archive", f"{of}/files/adapter_config.json", hub, "/v1/adapters")
    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for _ in range(RACES):
        served.client.delete(of)
        headers = {"Content-Type": "application/x-tar"}
        served.client.post("/v1/adapters/import", content=archive, headers=headers)
    end.set()
    for thread in threads:
        thread.join()
    return {"rounds": RACES, "broken_answers": len(broken), "of": sorted({*broken})}


def key_times(folder: Path) -> dict[str, float]:
    """Median microseconds until a key is refused, by what is wrong with it."""
    keys = KeyStore(folder)
    _, text = keys.create("first")
    begin, _, secret = text.rpartition("_")
    wrong = {
        "first_digit_of_secret": f"{begin}_{'0' if secret[0] != '0' else '1'}{secret[1:]}",
        "last_digit_of_secret": f"{begin}_{secret[:-1]}{'0' if secret[-1] != '0' else '1'}",
        "unknown_id": f"lsk_{'0' * 16}_{secret}",
        "no_key": "nonsense",
    }
    times: dict[str, list[float]] = {name: [] for name in wrong}
    for _ in range(CHECKS):  # in turns, so that all have the same weather
        for name, key in wrong.items():
            started = time.perf_counter()
            try:
                keys.find(key)
            except Unauthenticated:
                times[name].append(1e6 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schemathesis", help="its command")
    parser.add_argument("--examples", type=int, default=25, help="of schemathesis, an operation")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    kinds: dict[str, Callable[[Served, str], dict[str, Any]] | None] = {
        "races": by_race,
        "schemathesis": by_schema(o.schemathesis, o.examples) if o.schemathesis else None,
        "mutations": by_mutation,
    }  # fmt: skip
    report: dict[str, Any] = {
        "command": " ".join(["python", "-m", "benchmarks.quality.fuzz", *sys.argv[1:]])
    }
    for name, work in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            if work is None:
                report[name] = None
                continue
            with Served(Path(folder)) as served:
                report[name] = whole(served, work)
        print(name, json.dumps(report[name]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report["key_microseconds"] = key_times(Path(folder))
    every = json.loads(o.out.read_text("utf-8")) if o.out.exists() else {}
    write_file(o.out, (json.dumps({**every, "fuzz": report}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
