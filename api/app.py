"""The REST service: the FastAPI application, and running it."""

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from api import adapters, info, problems, search, verify
from api.errors import ListenError
from api.schemas import Problem
from api.service import Service
from api.settings import Settings, require_loopback
from generator.generate import Generator

# Descriptions are their authors' business: nothing is exported, whatever the environment says.
_NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)


def create_app(settings: Settings, generator: Generator | None = None) -> FastAPI:
    """The application.

    Args:
        settings: see api.settings.
        generator: used at once if given; otherwise the lifespan loads the configured one, and the
            service is not ready before that.
    """
    service = Service(settings, generator)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.load)
            tasks.start_soon(service.jobs.run)
            yield
            service.jobs.stop()

    app = _Documented(
        title="lorasmith",
        summary="Describe a task; get a LoRA adapter that works.",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        responses=problems.ANY_OTHER,
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    app.include_router(adapters.router)
    app.include_router(search.router)
    app.include_router(info.router)
    app.include_router(verify.router)
    problems.install(app)
    return app


def serve(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM; requests under way are finished, jobs are interrupted.

    Raises:
        UsageError: the host is not loopback.
        ListenError: the address cannot be listened on.
        LorasmithError: the generator cannot be loaded.
    """
    require_loopback(settings.host)
    with _listen(settings.host, settings.port) as listener:
        app = create_app(settings)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on"))

        failures: list[Exception] = []

        def stop(error: Exception) -> None:
            failures.append(error)
            server.should_exit = True

        service: Service = app.state.service
        service.on_failure = stop
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"listening on http://{shown}:{port}; Ctrl-C stops", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    if failures:
        raise failures[0]


class _Documented(FastAPI):
    """FastAPI whose OpenAPI document defines the problem that every path may answer with."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket: early connections wait while the application starts."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener
