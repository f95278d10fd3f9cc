"""The REST service: the FastAPI application, and running it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI

from api.http import (
    adapters,
    archive,
    events,
    info,
    jobs,
    library,
    metrics,
    problems,
    search,
    verify,
)
from api.http.examples import add_examples
from api.http.listening import NO_TELEMETRY, announce, listen
from api.http.schemas import Problem
from api.service.service import Service
from api.service.settings import Settings, require_loopback


def create_app(service: Service) -> FastAPI:
    """The application; while it runs, the service loads its generator and works on its jobs."""

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
        telemetry=NO_TELEMETRY,
    )
    app.state.service = service
    app.add_middleware(metrics.Measured, metrics=service.metrics)
    routed = (adapters, archive, search, library, info, verify, jobs, events, metrics)
    for module in routed:
        app.include_router(module.router)
    problems.install(app)
    return app


def run_server(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM; running requests are finished, jobs are interrupted.

    Raises:
        UsageError: the host is not loopback.
        ListenError: the address cannot be listened on.
        LorasmithError: the generator cannot be loaded.
    """
    require_loopback(settings.host)
    with listen(settings.host, settings.port) as listener:
        service = Service(settings)
        server = uvicorn.Server(uvicorn.Config(create_app(service), lifespan="on"))
        failures: list[Exception] = []

        def stop(error: Exception) -> None:
            failures.append(error)
            server.should_exit = True

        service.on_failure = stop
        service.stopping = lambda: server.should_exit
        announce(listener)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    if failures:
        raise failures[0]


class _Documented(FastAPI):
    """FastAPI whose OpenAPI document has examples, and the schema that no route returns."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        add_examples(document)
        return document
