"""Readers of a library who never rest: a service on it, asked so many times a second."""

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.rest_load import ROOT, served
from library.store.catalogue import records
from library.store.folder import LibraryFolder

CLIENTS = 64
QUIET_SECONDS = 30  # while nothing happens to the library, to compare with


class Readers:
    """Asks for one path after another at a steady rate, as long as one of CLIENTS is free.

    A fifth searches by a description, the others list and show adapters. What is not answered with
    200 is an error.
    """

    def __init__(self, client: httpx.Client, library: Path, rate: float) -> None:
        self._client, self._rate = client, rate
        self._milliseconds, self._codes = list[float](), Counter[str]()
        self._ended, self._free = threading.Event(), threading.Semaphore(CLIENTS)
        page = httpx.URL("/v1/library", params={"limit": 100})
        self._paths = itertools.cycle(
            path
            for record in records(LibraryFolder(library))
            for path in (
                httpx.URL("/v1/search", params={"q": record["description"]}),
                *[page, httpx.URL(f"/v1/library/{record['id']}")] * 2,
            )
        )
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._keep_asking)
        self._thread.start()

    def end(self) -> dict[str, Any]:
        """Stop, and what came of it; times in milliseconds."""
        self._ended.set()
        self._thread.join()
        seconds, times = time.monotonic() - self._start, self._milliseconds
        return {
            "answers": len(times),
            "answers_a_second": round(len(times) / seconds, 1),
            "errors": {code: n for code, n in self._codes.items() if code != "200"},
            "median_ms": round(statistics.median(times), 1),
            "p99_ms": round(statistics.quantiles(times, n=100)[98], 1),
        }

    def _keep_asking(self) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for number in itertools.count():
                due = self._start + number / self._rate
                self._free.acquire()
                if self._ended.wait(max(0.0, due - time.monotonic())):
                    return
                pool.submit(self._ask, next(self._paths))

    def _ask(self, path: httpx.URL) -> None:
        started = time.monotonic()
        try:
            answer = str(self._client.get(path).status_code)
        except httpx.HTTPError as error:
            answer = type(error).__name__
        self._codes[answer] += 1
        self._milliseconds.append(1000 * (time.monotonic() - started))
        self._free.release()


@contextmanager
def read_all_the_time(library: Path, rate: float, port: int) -> Iterator[dict[str, Any]]:
    """Ask a service on a library, before the block and until it ends; the figures of both."""
    figures: dict[str, Any] = {}
    with (
        served(ROOT, port, settings=("--library", str(library))) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        client.get("/v1/search", params={"q": "A task."}).raise_for_status()  # opens the index
        readers = Readers(client, library, rate)
        time.sleep(QUIET_SECONDS)
        figures["before"] = readers.end()
        readers = Readers(client, library, rate)
        try:
            yield figures
        finally:
            figures["meanwhile"] = readers.end()
