"""What a training job costs ordinary requests to `lorasmith serve`, and requests cost the job.

    python -m benchmarks.speed.rest_refine --out docs/results/rest-refine.json

One client asks the real server for adapters, one description after another, none twice. In each
round it asks while a job trains on the first examples of benchmarks/user_tasks/parcel_notes, from
its submission to its end, and before and after that while nothing else runs; last the job runs
alone. Times drift, so a round's ratios are of its own readings, and the report's are the medians of
the rounds. All jobs are one request: their steps and bytes are the same.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from api.cli.evaluate import running_commit
from benchmarks.speed.rest_load import ROOT, served
from library.files import write_file
from library.tasks.files import read_tasks

TASKS = Path(__file__).parents[1] / "user_tasks"
JOB_TASK = "parcel_notes"
WARM_UP = 20  # requests
LOOK = 5  # requests between two looks at the job, which are not timed
PAUSE = 0.5  # seconds between two looks while nothing else is asked


class Client:
    """One connection to the server, and an endless row of descriptions."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        texts = [task.descriptions[0] for task in read_tasks(TASKS)]
        pairs = zip(itertools.count(), itertools.cycle(texts))
        self._descriptions = (f"{text} (Request {number}.)" for number, text in pairs)

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def generate(self) -> float:
        """Milliseconds of one ordinary request."""
        body = {"description": next(self._descriptions), "generator": "text-to-lora"}
        begun = time.perf_counter()
        status, answer = self.send("POST", "/v1/adapters", body)
        took = time.perf_counter() - begun
        assert status == 201, answer
        return 1000 * took

    def submit(self, body: Any) -> str:
        """The path of a new job."""
        status, job = self.send("POST", "/v1/adapters", body)
        assert status == 202, job
        return f"/v1/jobs/{job['id']}"

    def runs(self, job: str) -> bool:
        """Whether a job has not ended; it may not fail."""
        state = self.send("GET", job)[1]["state"]
        assert state in ("queued", "running", "done"), state
        return state != "done"


def reading(milliseconds: list[float]) -> dict[str, float]:
    """What a client that asks again at once gets."""
    return {
        "requests": len(milliseconds),
        "p50_ms": round(statistics.median(milliseconds), 1),
        "p95_ms": round(statistics.quantiles(milliseconds, n=20)[-1], 1),
        "requests_a_second": round(1000 / statistics.mean(milliseconds), 2),
    }


def beside(client: Client, body: Any) -> tuple[list[float], float]:
    """Milliseconds of requests while a job runs, and the job's seconds."""
    begun, times = time.perf_counter(), []
    job = client.submit(body)
    while client.runs(job):
        times += [client.generate() for _ in range(LOOK)]
    return times, time.perf_counter() - begun


def alone(client: Client, body: Any) -> float:
    """Seconds of a job with no requests but looks at it."""
    begun = time.perf_counter()
    job = client.submit(body)
    while client.runs(job):
        time.sleep(PAUSE)
    return time.perf_counter() - begun


def one_round(client: Client, requests: int, body: Any) -> dict[str, Any]:
    """The readings of one round and their ratios, each above 1 where sharing costs."""
    before = [client.generate() for _ in range(requests // 2)]
    times, seconds = beside(client, body)
    after = [client.generate() for _ in range(requests // 2)]
    quiet, busy, job_alone = reading(before + after), reading(times), alone(client, body)
    return {
        "without": quiet,
        "with": busy,
        "job_seconds": {"alone": round(job_alone, 1), "beside": round(seconds, 1)},
        "ratios": {
            "p50": round(busy["p50_ms"] / quiet["p50_ms"], 3),
            "p95": round(busy["p95_ms"] / quiet["p95_ms"], 3),
            "throughput": round(quiet["requests_a_second"] / busy["requests_a_second"], 3),
            "job": round(seconds / job_alone, 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8790)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="in a reading without a job")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--steps", type=int, help="default: as suits the examples")
    o = parser.parse_args()
    (task,) = [task for task in read_tasks(TASKS) if task.name == JOB_TASK]
    pairs = [{"input": e.input, "output": e.output} for e in task.train[: o.examples]]
    body = {"description": task.descriptions[0], "examples": pairs, "refine": o.steps}
    rounds = []
    with served(ROOT, o.port):
        client = Client(o.port)
        for _ in range(WARM_UP):
            client.generate()
        alone(client, {**body, "refine": 2})  # what the first job alone waits for
        for _ in range(o.rounds):
            rounds.append(one_round(client, o.requests, body))
            print(json.dumps(rounds[-1]), flush=True)
    ratios = {
        name: statistics.median(row["ratios"][name] for row in rounds)
        for name in rounds[0]["ratios"]
    }
    report = {
        "command": " ".join(["python", "-m", "benchmarks.speed.rest_refine", *sys.argv[1:]]),
        "commit": running_commit(),
        "device": f"cpu, {os.cpu_count()} cores",
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "processes_waiting": round(os.getloadavg()[0], 1),
        "ratios": ratios,
        "rounds": rounds,
    }
    write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
