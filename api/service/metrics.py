"""What an operator watches of a service: how long things take, what waits, what is stored."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from api.errors import StorageFailed
from api.service.jobs import Jobs
from api.service.store import Store
from api.service.traces import Traces
from library.stages import Stage, Stages

Work = Literal["requests", "jobs"]  # answered at once, or in the background
_STAGES: dict[Stage, str] = {
    "embed": "Embedding a description.",
    "retrieve": "Looking up the nearest adapters of the library.",
    "generate": "Making weights; lookups and training are not counted.",
    "verify": "Verification hooks.",
    "serialise": "Writing the files of an adapter, in memory.",
}
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # seconds


class Metrics:
    """The measurements of one service, in a registry of their own.

    Args:
        traces: where stages and waiting are spans too.

    Attributes:
        registry: what `/metrics` shows.
    """

    def __init__(self, traces: Traces | None = None) -> None:
        self._traces = traces or Traces()
        self.registry = CollectorRegistry()
        self._queue = self._histogram("queue", "Waiting until work begins.", "work")
        self._stages = {s: self._histogram(s, _STAGES[s], "work") for s in get_args(Stage)}
        self._requests = Counter(
            "lorasmith_http_requests",
            "Answers, by the path's template.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._request = self._histogram("http_request", "From request to answer's end.", "route")

    def waited(self, work: Work) -> Callable[[float], None]:
        """Takes the seconds that a piece of work waited, when it begins."""
        observe = self._queue.labels(work).observe

        def note(seconds: float) -> None:
            observe(seconds)
            self._traces.waited(seconds)

        return note

    def stages(self, work: Work) -> Stages:
        """Measures the stages of one piece of work, in one thread."""

        def observe(stage: Stage, spent: float) -> None:
            self._stages[stage].labels(work).observe(spent)

        return _Stopwatch(observe, self._traces.span)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. `route` and `method` are among few: never what a client made up."""
        self._requests.labels(route, method, status).inc()
        self._request.labels(route).observe(seconds)

    def watch(self, jobs: Jobs, store: Store) -> None:
        """Show what a service has of jobs and of stored bytes, each time somebody looks."""
        self._gauge("jobs_queued", "Jobs that wait.", lambda: _known(jobs.store.waiting))
        self._gauge("jobs_running", "Jobs that run.", lambda: jobs.running)
        self._gauge("stored_bytes", "Size of all stored adapters.", lambda: _known(store.used))

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(
            f"lorasmith_{name}_seconds", text, [label], registry=self.registry, buckets=_BUCKETS
        )

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"lorasmith_{name}", text, registry=self.registry).set_function(value)


class _Stopwatch:
    """Stages that may lie within each other: the time of an inner one is not the outer one's."""

    def __init__(
        self,
        observe: Callable[[Stage, float], None],
        span: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._observe, self._span, self._within = observe, span, 0.0

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        before, self._within, started = self._within, 0.0, time.perf_counter()
        try:
            with self._span(stage):
                yield
        finally:
            spent = time.perf_counter() - started
            self._observe(stage, spent - self._within)
            self._within = before + spent


def _known(value: Callable[[], float]) -> float:
    """The value; not a number where the store cannot be read, so that the rest is still shown."""
    try:
        return value()
    except StorageFailed:
        return float("nan")
