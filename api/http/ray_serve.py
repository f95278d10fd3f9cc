"""The service as an application of Ray Serve, whose proxy then listens in uvicorn's place.

    serve run api.http.ray_serve:application data=/var/lib/lorasmith/store rate=60/minute

needs the extra `cluster`. There is one replica, unless all share a database and an object store.
"""

import os

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from api.http.app import create_app
from api.http.draining import GRACE_SECONDS
from api.http.logs import configure_logging
from api.service.service import Service
from api.service.settings import Settings, load_settings
from api.service.traces import Traces, provider_from_environment
from library.errors import UsageError
from library.quiet import quiet_libraries

# Ray is to hold nobody back: the service has lines of its own, and refuses who finds them full.
ONGOING = 1000
EVERYWHERE = "0.0.0.0"  # where the proxy listens is Ray's affair, so every request takes a key


class Replica:
    """One process of the service, which has loaded its generator before it is asked."""

    async def __init__(self, settings: Settings) -> None:
        """Raises as `loaded_service`."""
        os.environ["LORASMITH_DATA"] = str(settings.data)  # whatever else is kept goes there too
        quiet_libraries()
        configure_logging(settings.log_format)
        self._service = await loaded_service(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name by which Ray asks for it
        return create_app(self._service)


async def loaded_service(settings: Settings) -> Service:
    """A service that is ready.

    Raises:
        UsageError: there are no keys.
        StorageFailed: the data folder cannot be used, or is of a newer version.
        MissingExtra: there is a collector of traces, and not what sends them.
        LorasmithError: the generator cannot be loaded.
    """
    service = Service(settings, traces=Traces(provider_from_environment()))
    if not service.keys.exist():
        raise UsageError("Ray Serve takes keys; create one first: lorasmith keys create NAME")
    service.prepare()
    failures: list[Exception] = []
    service.on_failure = failures.append
    await service.load()
    if failures:
        raise failures[0]
    return service


def application(settings: dict[str, str]) -> Application:
    """The application for `serve run`, which makes the settings from `name=value`.

    They go before the environment of `serve run`, and that before a file. Raises as
    `load_settings`.
    """
    loaded = load_settings(**{**settings, "host": EVERYWHERE})
    deployment = serve.deployment(
        name="lorasmith",
        max_ongoing_requests=ONGOING,
        graceful_shutdown_timeout_s=loaded.stop_seconds + GRACE_SECONDS,
    )
    return deployment(serve.ingress()(Replica)).bind(loaded)
