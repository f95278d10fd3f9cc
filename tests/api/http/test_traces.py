"""Traces: a request and its stages are one, a job another, and nothing private is in them."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from jobs import ended, gate_of, made, verify
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id
from rest import (  # noqa: F401  (fixtures)
    TASK,
    UNKNOWN_ID,
    client_of_service,
    engine,
    post,
    settings,
)
from starlette.testclient import TestClient

from api.service.service import Service
from api.service.settings import Settings
from api.service.traces import COLLECTORS, Traces, provider_from_environment, provider_with
from generator.engine import Engine
from verification.zk.errors import MissingExtra

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
STAGES = {"queue", "embed", "retrieve", "generate", "verify", "serialise"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def service(settings: Settings, engine: Engine, exporter: InMemorySpanExporter) -> Service:
    return Service(settings, engine, Traces(provider_with(SimpleSpanProcessor(exporter))))


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of_service(service) as client:
        yield client


def spans_of(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_and_its_stages_are_one_trace_in_that_of_the_client(
    client: TestClient, exporter: InMemorySpanExporter
) -> None:
    post(client, {"description": TASK}, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    found = spans_of(exporter)
    assert {*found} == {"POST /v1/adapters", *STAGES}
    assert {format_trace_id(span.context.trace_id) for span in found.values()} == {TRACE}
    request = found["POST /v1/adapters"]
    assert request.parent is not None and request.parent.span_id == 0x00F067AA0BA902B7
    assert request.attributes and request.attributes["http.response.status_code"] == 201
    assert request.resource.attributes["service.name"] == "lorasmith"
    for name in STAGES:
        span = found[name]
        assert span.parent and span.parent.span_id in {s.context.span_id for s in found.values()}
        assert span.start_time and span.end_time and span.start_time <= span.end_time
    assert found["queue"].parent == found["serialise"].parent == request.context


def test_probes_are_no_spans_and_nothing_private_is_in_others(
    client: TestClient, service: Service, exporter: InMemorySpanExporter
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError(TASK)

    client.get("/health/ready"), post(client, {"description": TASK})
    client.get("/v1/search", params={"q": TASK}), post(client, {"description": " "})
    service.store.get = broken  # type: ignore[method-assign]
    client.get(f"/v1/adapters/{UNKNOWN_ID}", headers={"Authorization": "Bearer lsk_secret"})
    spans = exporter.get_finished_spans()
    assert {"GET /v1/search", "GET /v1/adapters/{id}"} <= {span.name for span in spans}
    told = "".join(span.to_json() for span in spans)
    assert "REDACTED" in told
    for private in ("review", "positive", "lsk_", "health", "Traceback"):
        assert private not in told


def test_a_job_is_a_trace_of_its_own(
    client: TestClient, service: Service, exporter: InMemorySpanExporter
) -> None:
    gate, adapter = gate_of(service), made(client)
    gate.go.set()
    exporter.clear()
    answer = verify(client, adapter, {"hooks": ["gate"]})
    assert ended(client, answer.headers["location"])["state"] == "done"
    found = spans_of(exporter)
    job, stage = found["job verify"], found["verify"]
    assert job.parent is None and stage.parent == job.context
    assert job.context.trace_id != found["POST /v1/adapters/{id}/verify"].context.trace_id


class Collector(BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_spans_are_sent_where_the_environment_says(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Collector.received = []
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        provider: Any = provider_from_environment()
        with client_of_service(Service(settings, engine, Traces(provider))) as client:
            post(client, {"description": TASK})
        provider.shutdown()
        server.shutdown()
    path, body = Collector.received[0]
    assert path == "/v1/traces"
    assert b"POST /v1/adapters" in body and b"mine" in body and TASK.encode() not in body


def test_without_a_collector_nothing_is_sent_and_with_one_it_takes_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in COLLECTORS:
        monkeypatch.delenv(name, raising=False)
    assert provider_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"lorasmith\[telemetry\]"):
        provider_from_environment()
