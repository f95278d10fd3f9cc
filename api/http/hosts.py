"""Under which names a service may be asked: no web page is to ask it in its visitor's browser.

A page may have its own name lead to this machine (DNS rebinding); its requests then carry that name
as their Host. A page may also send some requests to another host, unasked and without reading the
answer; they carry its own name as their Origin.
"""

import re

from fastapi import Request

from api.errors import CrossOrigin, Misdirected
from api.service.settings import HOST_NAME, Settings, is_loopback

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(rf"({HOST_NAME})(?::[0-9]{{1,5}})?", re.IGNORECASE)
_ORIGIN = re.compile(rf"https?://({HOST_NAME})(?::[0-9]{{1,5}})?", re.IGNORECASE)


class Hosts:
    """The names of one service.

    Those of the settings, and on loopback its own. Elsewhere, without any in the settings, it may
    have any name: every request there needs a key, which a web page has not.
    """

    def __init__(self, settings: Settings) -> None:
        names = settings.allowed_hosts
        if is_loopback(settings.host):
            own = f"[{settings.host}]" if ":" in settings.host else settings.host
            names = (*names, *LOOPBACK, own)
        self._names = {name.lower() for name in names}

    def require(self, request: Request) -> None:
        """Raise Misdirected or CrossOrigin for a request to, or by a page of, another host."""
        if not self._names:
            return
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(_HOST, hosts[0]):
            # 421 and not 400, as nothing is wrong with the request but where it was sent.
            raise Misdirected("the Host of the request is not a name of this service")
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own(_ORIGIN, origin):
            raise CrossOrigin("a web page of another origin may not ask this service")

    def _is_own(self, pattern: re.Pattern[str], value: str) -> bool:
        match = pattern.fullmatch(value)
        return match is not None and match[1].lower() in self._names
