"""What a request passes before its body is read: its host, and its key, rate and scope.

Whatever is not open needs a key, so that no route is forgotten, and paths that do not exist tell
nothing.
"""

from functools import partial

from anyio import to_thread
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.headers import adding
from api.http.hosts import Hosts
from api.http.page import OF_PAGE
from api.http.problems import of_lorasmith
from api.service.callers import Caller, identify
from api.service.rates import Rates
from api.service.service import Service
from api.service.settings import is_loopback
from library.errors import LorasmithError

OPEN = (*OF_PAGE, "/health/live", "/health/ready", "/openapi.json", "/docs")
READING = ("GET", "HEAD", "OPTIONS")  # other methods write


class Guard:
    """An ASGI application behind its guard; the caller goes on as `request.state.caller`."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._keys, self._rates = app, service.keys, Rates(service.settings.rate)
        self._require_time = service.require_time
        self._hosts = Hosts(service.settings)
        self._needed = not is_loopback(service.settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app, request, headers = self._app, Request(scope, receive), {}
        try:
            self._hosts.require(request)
            if scope["path"] not in OPEN:
                self._require_time()
                request.state.caller = caller = await self._identify(request)
                headers = self._rates.take(caller)
                caller.require("read" if request.method in READING else "write")
        except LorasmithError as error:
            app = await of_lorasmith(request, error)
        await app(scope, receive, adding(headers, send))

    async def _identify(self, request: Request) -> Caller:
        """Who asks. Raises Unauthenticated, StorageFailed."""
        authorization = request.headers.get("authorization", "")
        ask = partial(identify, self._keys, authorization, needed=self._needed)
        return await to_thread.run_sync(ask)
