"""The service of `faults` as a process, and the clients that ask it meanwhile."""

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).parents[2]
TASK = "Say whether the review is positive or negative."
WEIGHTS = "adapter_model.safetensors"
EXAMPLES = [{"input": f"Review {n}: {w}.", "output": w} for n in range(8) for w in ("good", "bad")]
START_SECONDS = 120
JOB_SECONDS = 300


class Served:
    """A service on a folder, from the beginning to the end of a `with` block.

    Args:
        before: a command that runs the service's.
    """

    def __init__(
        self,
        data: Path,
        *,
        before: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        serve = [sys.executable, "-m", "api", "serve", "--port", str(self.port)]
        self._command = [*before, *serve, *arguments]
        self._environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "LORASMITH_DATA": str(data),
            **(environment or {}),
        }  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start it; the seconds until it is ready."""
        started = time.monotonic()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stderr=subprocess.DEVNULL
        )
        while time.monotonic() - started < START_SECONDS:
            try:
                if self.get("/health/ready").status_code == 200:
                    return round(time.monotonic() - started, 1)
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self.kill()
        sys.exit("the service is not ready")

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> tuple[float, int]:
        """SIGTERM; the seconds until it ended, and its exit code."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        return round(time.monotonic() - started, 1), code

    def get(self, path: str) -> httpx.Response:
        """The answer to a GET."""
        return self.client.get(path)

    def warm(self) -> None:
        """Search once: the first search makes an index and loads its packages."""
        self.get("/v1/search?q=reviews")

    def create(self, text: str, acknowledged: dict[str, str]) -> httpx.Response:
        """The answer to a creation, noted if it acknowledges one."""
        answer = self.client.post("/v1/adapters", json={"description": text})
        if answer.status_code in (200, 201):
            acknowledged[answer.json()["id"]] = answer.json()["sha256"]
        return answer

    def check(self, acknowledged: dict[str, str]) -> dict[str, Any]:
        """What of the acknowledged adapters is not there, or not as it was."""
        missing = changed = 0
        for identity, expected in acknowledged.items():
            shown = self.get(f"/v1/adapters/{identity}")
            file = self.get(f"/v1/adapters/{identity}/files/{WEIGHTS}")
            missing += shown.status_code != 200 or file.status_code != 200
            changed += file.status_code == 200 and sha256(file.content).hexdigest() != expected
        return {"acknowledged": len(acknowledged), "missing": missing, "changed": changed}

    def ended(self, job: str) -> str:
        """The state of a job once it has ended, or what it is after a while."""
        end = time.monotonic() + JOB_SECONDS
        while (state := self.get(f"/v1/jobs/{job}").json()["state"]) in ("queued", "running"):
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        return state

    def open_files(self) -> int:
        """How many files and connections the process has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def held(self, count: int, seconds: int, head: bytes, path: str = "") -> dict[str, Any]:
        """Connections that begin with `head` and then send a byte a second, as long as they may.

        Meanwhile others ask; with a path, what they ask is an import instead.
        """
        self.warm()
        held = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(count)]
        for one in held:
            one.sendall(head)
        time.sleep(0.5)
        answers: dict[str, Any] = {}
        asking = threading.Thread(target=lambda: answers.update(self._ask(seconds, path)))
        asking.start()
        closed: list[float] = []
        started = time.monotonic()
        while asking.is_alive():
            time.sleep(1)
            gone = [one for one in held if not _alive(one)]
            held = [one for one in held if one not in gone]
            closed += [round(time.monotonic() - started, 1)] * len(gone)
        ended = {"first": closed[0], "last": closed[-1]} if closed else None
        return {"connections": count, "closed": len(closed), "closed_after_seconds": ended,
                **answers}  # fmt: skip

    def _ask(self, seconds: int, path: str) -> dict[str, Any]:
        if not path:
            return answer_times(self, seconds)
        started, refused = time.monotonic(), 0
        headers = {"Content-Type": "application/x-tar"}
        while time.monotonic() - started < seconds:
            answer = self.client.post("/v1/adapters/import", content=b"no tar", headers=headers)
            if answer.status_code != 429:
                waited = round(time.monotonic() - started, 1)
                return {"refused_429": refused, "place_after_seconds": waited}
            refused += 1
            time.sleep(1)
        return {"refused_429": refused, "place_after_seconds": None}


class Load:
    """Clients of a service, until it is killed: two make, one imports, and a job trains `steps`."""

    def __init__(self, served: Served, number: int, steps: int = 400) -> None:
        self._served, self._number, self._steps = served, number, steps
        self._url, self._end = f"http://127.0.0.1:{served.port}", threading.Event()
        self.acknowledged: dict[str, str] = {}
        self._answers: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._threads = [
            threading.Thread(target=work, args=(name,))
            for name, work in (("a", self._make), ("b", self._make), ("c", self._import))
        ]

    def start(self) -> str:
        """Begin, and go on for some seconds; the id of the job."""
        body = {"description": TASK, "examples": EXAMPLES, "refine": self._steps}
        job = self._served.client.post("/v1/adapters", json=body).json()["id"]
        for thread in self._threads:
            thread.start()
        time.sleep(6 + self._number * 0.37)
        return job

    def stop(self) -> None:
        """End, once the service has ended."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def seen(self) -> dict[str, Any]:
        """How often which answer came; `none` is a connection that broke."""
        return {"answers": dict(sorted(self._answers.items())), "made": len(self.acknowledged)}

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        """An answer of success; None for any other, and for none."""
        try:
            answer = httpx.request(method, self._url + path, timeout=60, **more)
        except httpx.TransportError:
            self._count("none")
            self._end.set()
            return None
        self._count(str(answer.status_code))
        if answer.status_code == 503:
            self._end.wait(0.2)
        return answer if answer.is_success else None

    def _count(self, what: str) -> None:
        with self._guard:
            self._answers[what] += 1

    def _create(self, text: str) -> str:
        made = self._ask("POST", "/v1/adapters", json={"description": text})
        if made is None:
            return ""
        self.acknowledged[made.json()["id"]] = made.json()["sha256"]
        return made.json()["id"]

    def _make(self, name: str) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            self._create(f"Task {name} {number} of {self._number}.")

    def _import(self, name: str) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            identity = self._create(f"Task {name} {number} of {self._number}.")
            kept = identity and self._ask("GET", f"/v1/adapters/{identity}/archive")
            if not kept:
                continue
            digest = self.acknowledged.pop(identity)
            self._ask("DELETE", f"/v1/adapters/{identity}")
            headers = {"Content-Type": "application/x-tar"}
            if self._ask("POST", "/v1/adapters/import", content=kept.content, headers=headers):
                self.acknowledged[identity] = digest


def answer_times(served: Served, seconds: float) -> dict[str, Any]:
    """How long another client waits: for readiness, a list and a search, in milliseconds."""
    times: list[float] = []
    failed, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for path in ("/health/ready", "/v1/adapters", "/v1/search?q=reviews"):
            started = time.perf_counter()
            try:
                url = f"http://127.0.0.1:{served.port}{path}"
                failed += httpx.get(url, timeout=5).status_code != 200
            except httpx.TransportError:
                failed += 1
            times.append(1000 * (time.perf_counter() - started))
    return {"others": {"asked": len(times), "failed": failed,
                       "median_ms": round(statistics.median(times), 1),
                       "longest_ms": round(max(times), 1)}}  # fmt: skip


def half_requests(port: int, count: int) -> None:
    """Clients, one after another, that send half a request and hang up."""
    head = b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for number in range(count):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            begun = head + b'Content-Length: 500\r\n\r\n{"descr'
            connection.sendall(begun if number % 2 else head)


def _alive(connection: socket.socket) -> bool:
    """Whether a byte can be sent, and nobody has answered or closed."""
    connection.setblocking(False)
    try:
        connection.send(b"a")
        connection.recv(4096)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
