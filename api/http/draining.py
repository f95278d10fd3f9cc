"""A server that ends in order: it takes no more work, finishes what runs, and is gone in time."""

import logging
import os
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

GRACE_SECONDS = 5  # for what is still there when the time is over: threads, lifespan

_log = logging.getLogger("lorasmith.api")


class DrainingServer(uvicorn.Server):
    """uvicorn that drains at the first SIGTERM or Ctrl-C, and stops working at the second.

    While it drains it listens, so that those who come are told to go elsewhere. It ends when no
    request runs, or at the latest after `seconds`; a process that then hangs is ended as it is,
    which harms nothing: what is stored is whole or absent.

    Args:
        config: of uvicorn.
        seconds: how long requests that run may take.
        on_drain: called in the event loop when draining begins.

    Attributes:
        draining: whether no more work is to be taken.
    """

    def __init__(self, config: uvicorn.Config, seconds: int, on_drain: Callable[[], None]) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = 1  # the requests had their time
        self._seconds, self._on_drain = seconds, on_drain
        self.draining, self._ticks = False, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or cut off what runs if that has begun."""
        if self.draining:
            self.should_exit = self.force_exit = True
            _abandon_in(GRACE_SECONDS)
        self.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to end."""
        if self.draining:
            if self._ticks == 0:
                _log.info("draining: no more work is taken; what runs has %d s", self._seconds)
                _abandon_in(self._seconds + GRACE_SECONDS)
                self._on_drain()
            self._ticks += 1
            over = self._ticks > 10 * self._seconds
            self.should_exit |= over or not self.server_state.tasks
        return await super().on_tick(counter)


def _abandon_in(seconds: float) -> None:
    """However the rest goes, end the process by then."""
    timer = threading.Timer(seconds, _abandon)
    timer.daemon = True
    timer.start()


def _abandon() -> None:
    _log.error("what runs does not end; the process ends without it")
    os._exit(1)
