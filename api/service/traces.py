"""Traces for OpenTelemetry: of requests, jobs and their stages, where a collector is named."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider, get_current_span

from verification.zk.errors import MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Traces:
    """Spans of one service; nobody's without a provider.

    What an error says is not recorded: it may quote a description.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self.provider = provider
        self._tracer: Tracer = (
            NoOpTracer() if provider is None else provider.get_tracer("lorasmith")
        )

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span for the time of a `with` block."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ):
            yield

    def waited(self, seconds: float) -> None:
        """A span `queue` that ends now, in whatever it was waited for."""
        if get_current_span().is_recording():
            end = time.time_ns()
            self._tracer.start_span("queue", start_time=end - int(seconds * 1e9)).end(end)


def provider_from_environment() -> TracerProvider | None:
    """Sends spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; None if none is named.

    Raises MissingExtra: the extra `telemetry` is not installed.
    """
    if not any(os.environ.get(name) for name in COLLECTORS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra(
            f"{COLLECTORS[1]} is set, which needs the extra: pip install 'lorasmith[telemetry]'"
        ) from error
    return provider_with(BatchSpanProcessor(OTLPSpanExporter()))


def provider_with(processor: "SpanProcessor") -> TracerProvider:
    """Hands spans to a processor, without the queries of requests."""
    from opentelemetry.sdk import trace
    from opentelemetry.sdk.resources import Resource

    class _WithoutQueries(trace.SpanProcessor):
        def on_start(self, span: trace.Span, parent_context: object = None) -> None:
            if "url.query" in (span.attributes or {}):
                span.set_attribute("url.query", "REDACTED")

    name = os.environ.get("OTEL_SERVICE_NAME") or "lorasmith"
    provider = trace.TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(_WithoutQueries())
    provider.add_span_processor(processor)
    return provider
