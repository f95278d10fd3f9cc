"""The REST service: the FastAPI application, and running it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import uvicorn
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from api.http import (
    adapters,
    archive,
    batch,
    completions,
    compose,
    events,
    health,
    hub,
    imports,
    info,
    jobs,
    library,
    metrics,
    names,
    page,
    problems,
    search,
    verify,
)
from api.http.dependencies import KEY
from api.http.examples import add_examples
from api.http.guard import Guard
from api.http.headers import safe
from api.http.listening import NO_TELEMETRY, WithoutQueries, announce, listen
from api.http.schemas import Problem
from api.service.completions import Completions
from api.service.keys import KeyStore
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

    app = _Application(
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
    app.state.completions = Completions(service)
    guarded = (
        adapters,
        archive,
        batch,
        compose,
        imports,
        search,
        library,
        info,
        verify,
        jobs,
        events,
        names,
        metrics,
        completions,
        hub,
    )
    for module in guarded:
        app.include_router(
            module.router,
            dependencies=[Depends(KEY)],
            responses=problems.documented(*problems.GUARDED),
        )
    app.include_router(health.router)
    app.include_router(page.router)
    app.add_middleware(Guard, service=service)
    app.add_middleware(metrics.Measured, metrics=service.metrics)  # outermost: counts refusals too
    problems.install(app)
    return app


def run_server(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM; running requests are finished, jobs are interrupted.

    Raises:
        UsageError: the host is not loopback, and there are no keys.
        ListenError: the address cannot be listened on.
        LorasmithError: the generator cannot be loaded.
    """
    if not KeyStore(settings.data).exist():
        require_loopback(settings.host, "use 127.0.0.1, or create one first: lorasmith keys create")
    with listen(settings.host, settings.port) as listener:
        service = Service(settings)
        server = uvicorn.Server(uvicorn.Config(create_app(service), lifespan="on"))
        logging.getLogger("uvicorn.access").addFilter(WithoutQueries())
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


class _Application(FastAPI):
    """FastAPI whose OpenAPI document has examples, and the schema that no route returns.

    All of its answers have the headers SAFE, also those to accidents, which no middleware sees.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return safe(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        add_examples(document)
        return document
