"""`/metrics`: what is counted, by which labels, and that nothing a client made up is among them."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from jobs import (  # noqa: F401  (fixtures)
    client,
    engine,
    gate_of,
    library,
    made,
    service,
    settings,
    tasks,
    verify,
)
from prometheus_client.parser import text_string_to_metric_families
from rest import LOCALHOST, TASK, UNKNOWN_ID, client_of, post
from starlette.testclient import TestClient

from api.http.app import create_app
from api.service.metrics import Metrics
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from library.stages import Stage

STAGES = ("embed", "retrieve", "generate", "verify", "serialise")


def measured(client: TestClient) -> Callable[..., float]:
    """What `/metrics` says now: the value of a sample, by its name and labels; 0 if there is none.

    Raises KeyError if there is no sample of the name at all.
    """
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: dict[str, dict[frozenset[Any], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        samples.setdefault(family.name, {})
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            samples.setdefault(sample.name, {})[labels] = sample.value

    def value(name: str, **labels: str) -> float:
        return samples[f"lorasmith_{name}"].get(frozenset(labels.items()), 0.0)

    return value


def test_every_stage_of_a_request_is_timed_once_each_and_not_twice(client: TestClient) -> None:
    before = measured(client)
    assert all(before(f"{stage}_seconds") == 0 for stage in (*STAGES, "queue"))
    started = time.perf_counter()
    made(client)
    took = time.perf_counter() - started
    value = measured(client)
    for stage in (*STAGES, "queue"):
        assert value(f"{stage}_seconds_count", work="requests") == 1, stage
        assert value(f"{stage}_seconds_count", work="jobs") == 0, stage
    spent = [value(f"{stage}_seconds_sum", work="requests") for stage in (*STAGES, "queue")]
    assert min(spent) > 0 and sum(spent) < took
    client.get("/v1/search", params={"q": TASK})
    value = measured(client)
    assert value("embed_seconds_count", work="requests") == 2
    assert value("queue_seconds_count", work="requests") == 2


def test_answers_are_counted_by_the_template_of_their_path(client: TestClient) -> None:
    adapter = made(client)
    name = f"/v1/adapters/{adapter}/files/adapter_config.json"
    client.get(name), client.get(name), client.head(name)
    client.get(f"/v1/adapters/{UNKNOWN_ID}")
    client.get("/v1/no-such-path/secret"), client.get("/favicon.ico")
    client.request("BREW", "/v1/adapters"), post(client, b"{")
    value = measured(client)
    route = "/v1/adapters/{id}/files/{name}"
    counted = [
        ("/v1/adapters", "POST", "201", 1),
        ("/v1/adapters", "POST", "400", 1),
        ("/v1/adapters", "other", "405", 1),
        (route, "GET", "200", 2),
        (route, "HEAD", "200", 1),
        ("/v1/adapters/{id}", "GET", "404", 1),
        ("unmatched", "GET", "404", 2),
    ]
    for path, method, status, count in counted:
        labels = {"route": path, "method": method, "status": status}
        assert value("http_requests_total", **labels) == count, labels
    assert value("http_request_seconds_count", route=route) == 3
    text = client.get("/metrics").text
    for raw in (adapter, UNKNOWN_ID, "secret", "favicon", "BREW", TASK):
        assert raw not in text


def test_an_accident_counts_as_500(client: TestClient, service: Service) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("boom")

    service.store.get = broken  # type: ignore[method-assign]
    assert client.get(f"/v1/adapters/{UNKNOWN_ID}").status_code == 500
    labels = {"route": "/v1/adapters/{id}", "method": "GET", "status": "500"}
    assert measured(client)("http_requests_total", **labels) == 1


def test_jobs_and_bytes_are_what_they_are_now(client: TestClient, service: Service) -> None:
    gate, adapter = gate_of(service), made(client)
    first, second = (verify(client, adapter, {"hooks": ["gate"]}).json()["id"] for _ in range(2))
    assert gate.started.wait(30)
    value = measured(client)
    assert (value("jobs_running"), value("jobs_queued")) == (1, 1)
    files = client.get(f"/v1/adapters/{adapter}").json()["files"].values()
    assert value("stored_bytes") == sum(file["bytes"] for file in files)
    client.delete(f"/v1/jobs/{second}")
    assert measured(client)("jobs_queued") == 0
    gate.go.set()
    end = time.monotonic() + 30
    while measured(client)("jobs_running") and time.monotonic() < end:
        time.sleep(0.02)
    value = measured(client)
    assert value("jobs_running") == 0
    assert value("verify_seconds_count", work="jobs") == 1
    assert value("queue_seconds_count", work="jobs") == 1
    assert client.get(f"/v1/jobs/{first}").json()["state"] == "done"
    client.delete(f"/v1/adapters/{adapter}")
    assert measured(client)("stored_bytes") == 0


def test_services_of_one_process_count_apart(settings: Settings, engine: Engine) -> None:
    for _ in range(2):
        with client_of(settings, engine) as client:
            client.get("/health/live")
            labels = {"route": "/health/live", "method": "GET", "status": "200"}
            assert measured(client)("http_requests_total", **labels) == 1


def test_metrics_are_shown_while_the_generator_loads_and_the_store_is_broken(
    settings: Settings,
) -> None:
    (settings.data / "owners.sqlite3").mkdir(parents=True)  # no file
    service = Service(settings, None)
    answer = TestClient(create_app(service), LOCALHOST).get("/metrics")  # nothing is started
    assert answer.status_code == 200
    assert "lorasmith_stored_bytes NaN" in answer.text
    assert "lorasmith_jobs_queued 0.0" in answer.text


def test_the_time_of_a_stage_within_another_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 4.0, 5.0, 9.0])  # a begins, b begins, b ends, c, c, a ends
    monkeypatch.setattr("api.service.metrics.time.perf_counter", lambda: next(clock))
    metrics = Metrics()
    stages = metrics.stages("requests")
    with stages("generate"):
        with stages("embed"):
            pass
        with stages("retrieve"):
            pass

    def total(stage: Stage) -> float | None:
        return metrics.registry.get_sample_value(
            f"lorasmith_{stage}_seconds_sum", {"work": "requests"}
        )

    assert (total("embed"), total("retrieve"), total("generate")) == (2.0, 1.0, 6.0)
