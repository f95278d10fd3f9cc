"""The REST service: the FastAPI application, and running it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
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
from api.http.draining import DrainingServer
from api.http.examples import add_examples
from api.http.guard import Guard
from api.http.headers import safe
from api.http.leftovers import after_body
from api.http.listening import address, announcement, listen, server_config, telemetry_of
from api.http.logs import configure_logging
from api.http.observed import Observed
from api.http.schemas import Problem
from api.service.completions import Completions
from api.service.keys import KeyStore
from api.service.service import Service
from api.service.settings import Settings, require_loopback
from api.service.traces import Traces, provider_from_environment

_log = logging.getLogger("lorasmith.api")


def create_app(service: Service) -> FastAPI:
    """The application; while it runs, the service loads its generator and works on its jobs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.load)
            tasks.start_soon(service.jobs.run)
            tasks.start_soon(service.expiry.run)
            yield
            service.expiry.stop()
            service.jobs.stop()

    app = _Application(
        title="lorasmith",
        summary="Describe a task; get a LoRA adapter that works.",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        responses=problems.ANY_OTHER,
        telemetry=telemetry_of(service.traces),
    )
    app.state.service = service
    app.state.completions = completions_of = Completions(service)
    completions_of.admission.draining = lambda: service.draining()
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
    problems.install(app)
    return app


def run_server(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM; then requests that run are finished, and jobs interrupted.

    Raises:
        UsageError: the host is not loopback, and there are no keys.
        ListenError: the address cannot be listened on.
        StorageFailed: the data folder cannot be used, or is of a newer version.
        MissingExtra: there is a collector of traces, and not what sends them.
        LorasmithError: the generator cannot be loaded.
    """
    if not KeyStore(settings.data, settings.database).exist():
        require_loopback(settings.host, "use 127.0.0.1, or create one first: lorasmith keys create")
    with listen(settings.host, settings.port) as listener:
        service = Service(settings, traces=Traces(provider_from_environment()))
        service.prepare()
        config = server_config(create_app(service))
        server = DrainingServer(config, settings.stop_seconds, service.jobs.stop)
        failures: list[Exception] = []

        def stop(error: Exception) -> None:
            failures.append(error)
            server.should_exit = True

        service.on_failure = stop
        service.draining = lambda: server.draining or server.should_exit
        service.stopping = lambda: server.should_exit
        configure_logging(settings.log_format)
        _log.info(announcement(listener))
        _log.info("the page is %s/", address(listener))
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


class _Application(FastAPI):
    """FastAPI whose OpenAPI document has examples, and the schema that no route returns.

    All of its answers are observed and have the headers SAFE, also those to accidents, which no
    middleware sees.
    """

    def build_middleware_stack(self) -> ASGIApp:
        answering = after_body(safe(super().build_middleware_stack()))
        return Observed(answering, self.state.service.metrics)

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        add_examples(document)
        return document
