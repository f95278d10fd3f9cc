"""What a request passes before its body is read: its key, where there are keys, and the scope.

Whatever is not open needs a key, so that no route is forgotten, and paths that do not exist tell
nothing.
"""

from functools import partial

from anyio import to_thread
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.body import drain
from api.http.problems import of_lorasmith
from api.service.callers import identify
from api.service.service import Service
from api.service.settings import is_loopback
from library.errors import LorasmithError

OPEN = ("/health/live", "/health/ready", "/openapi.json", "/docs")
READING = ("GET", "HEAD", "OPTIONS")  # other methods write


class Guard:
    """An ASGI application behind its guard; the caller goes on as `request.state.caller`."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._keys = app, service.keys
        self._needed = not is_loopback(service.settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            request = Request(scope, receive)
            try:
                await self._admit(request)
            except LorasmithError as error:
                await drain(request.stream())
                answer = await of_lorasmith(request, error)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, request: Request) -> None:
        """Raises Unauthenticated, Forbidden, StorageFailed."""
        authorization = request.headers.get("authorization", "")
        ask = partial(identify, self._keys, authorization, needed=self._needed)
        caller = await to_thread.run_sync(ask)
        caller.require("read" if request.method in READING else "write")
        request.state.caller = caller
