"""Every answer of the service: named by its request's id, counted, timed and logged."""

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.headers import adding
from api.http.logs import ACCESS
from api.http.request_id import HEADER, current_request_id, request_id_of
from api.service.metrics import Metrics

UNMATCHED = "unmatched"  # the route of paths that there are none for
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_log = logging.getLogger(ACCESS)


class Observed:
    """An application, observed from outside of it, so that accidents are seen as well.

    Paths go by their templates: neither queries nor what paths hold is counted or logged.

    Args:
        app: the application.
        metrics: where answers are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500  # where it breaks before it answers

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        identity = request_id_of(Headers(scope=scope).get(HEADER))
        current_request_id.set(identity)  # in the task of this request
        try:
            await self._app(scope, receive, adding({HEADER: identity}, noting))
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.answered(route, method, status, seconds)
        fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
        _log.info("%s %s %d", method, route, status, extra={"fields": fields})
