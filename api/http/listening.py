"""Start of a service: its socket, the line that announces it, and what FastAPI exports."""

import socket

import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from api.errors import ListenError
from api.http.heads import TimedHeads
from api.service.traces import Traces

# Requests are private: FastAPI itself exports nothing, whatever the environment says.
NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)


def telemetry_of(traces: Traces) -> TelemetryConfig:
    """What FastAPI is to tell: a span for each request, but for probes, where there are spans."""
    if traces.provider is None:
        return NO_TELEMETRY
    return TelemetryConfig(
        tracing=True,
        tracer_provider=traces.provider,
        metrics=False,
        logs=False,
        operation_spans=False,
        auto_configure=False,
        exclude=lambda scope: scope["path"].startswith("/health/"),
    )


def server_config(app: FastAPI) -> uvicorn.Config:
    """How the application is served: HTTP/1.1 alone, logged by itself."""
    return uvicorn.Config(
        app, http=TimedHeads, ws="none", lifespan="on", log_config=None, access_log=False
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: early connections wait while the application starts.

    Raises ListenError: the address is in use, not this machine's or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named for asyncio, which else leaves it to TCP to wait before it sends what
    # is short: 40 ms an answer, on connections that are kept.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of what listens; port 0 has been replaced by the real one."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announcement(listener: socket.socket) -> str:
    """What is said at the start."""
    return f"listening on {address(listener)}; Ctrl-C stops"
