"""HTTP/1.1 whose requests have to be asked in time: connections that only wait are closed.

uvicorn closes one that is kept after an answer; who connects and asks nothing, or sends the head of
a request byte by byte, would keep a connection, and so a file of the process, for ever.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.http.leftovers import DROPPED_BYTES, DROPPING_SECONDS

HEAD_SECONDS = 15.0


class TimedHeads(H11Protocol):
    """A connection that is closed where a head is begun, or awaited at first, and not ended."""

    _waiting: asyncio.TimerHandle | None = None
    _dropped: int | None = None  # bytes that came after a head that is none

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on for a head that is not complete; drop what follows one that is none."""
        if self._dropped is None:
            super().data_received(data)
        else:
            self._dropped += len(data)
        if self._dropped is None:
            self._wait_as_needed()
        elif self._dropped > DROPPED_BYTES:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait_no_more()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a head that is none, or a body, and close in a while: more may still come."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # nobody else answers any more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        content = msg.encode()
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close"),
                   ("content-length", str(len(content)))]  # fmt: skip
        response = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        self._wait_no_more()
        self._waiting = self.loop.call_later(DROPPING_SECONDS, self.transport.close)
        self._dropped = 0
        self.flow.resume_reading()

    def _wait_as_needed(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._wait_no_more()

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
