"""Limits on waiting work: who comes when everything is taken is refused, not queued without end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import anyio
from anyio import to_thread

from api.errors import NotReady, Overloaded

P = ParamSpec("P")
T = TypeVar("T")
Waited = Callable[[float], None]
ENDING = "the service is being stopped"


def never() -> bool:
    """What does not come."""
    return False


def unobserved(seconds: float) -> None:
    """Waiting that nobody measures."""


class Admission:
    """One piece of work runs, or a few at once; a few wait in order, the rest are refused.

    All methods are for the event loop's thread only.

    Args:
        work: plural noun for what is limited, for the refusal.
        waiting: how many may wait.
        at_once: how many run.
        retry_after: seconds that a refused client is told to wait.
        waited: called with the seconds that a piece of work waited, when it begins.

    Attributes:
        draining: whether no more work is to begin; who waits is refused too, in his turn.
    """

    def __init__(
        self,
        work: str,
        *,
        waiting: int,
        retry_after: int,
        at_once: int = 1,
        waited: Waited = unobserved,
    ) -> None:
        self.retry_after, self._waited = retry_after, waited
        self._work, self._capacity, self._admitted = work, waiting + at_once, 0
        self._running = anyio.CapacityLimiter(at_once)
        self.draining: Callable[[], bool] = never

    def require_place(self) -> None:
        """Raise Overloaded if there is no place, NotReady while the service ends."""
        self._require_time()
        if self._admitted >= self._capacity:
            message = f"{self._admitted} {self._work} are running or waiting; try again later"
            raise Overloaded(message, self.retry_after)

    def enter(self) -> None:
        """Take a place, until `leave`. Raises Overloaded if there is none, NotReady."""
        self.require_place()
        self._admitted += 1

    def leave(self) -> None:
        """Give a place back."""
        self._admitted -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the time of a `with` block. Raises as `enter` does."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread, in its turn. Raises as `enter` does."""
        with self.place():
            return await self.in_turn(function, *args, **kwargs)

    async def in_turn(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for who has a place. Raises NotReady."""
        entered = time.monotonic()

        def timed() -> T:
            self._require_time()
            self._waited(time.monotonic() - entered)
            return function(*args, **kwargs)

        return await to_thread.run_sync(timed, limiter=self._running)

    def _require_time(self) -> None:
        if self.draining():
            raise NotReady(ENDING, self.retry_after)
