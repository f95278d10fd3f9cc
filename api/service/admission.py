"""Limits on waiting work: who comes when everything is taken is refused, not queued without end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import anyio
from anyio import to_thread

from api.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")
Waited = Callable[[float], None]


def unobserved(seconds: float) -> None:
    """Waiting that nobody measures."""


class Admission:
    """One piece of work runs, a few wait in order, the rest are refused.

    All methods are for the event loop's thread only.

    Args:
        work: plural noun for what is limited, for the refusal.
        waiting: how many may wait.
        retry_after: seconds that a refused client is told to wait.
        waited: called with the seconds that a piece of work waited, when it begins.
    """

    def __init__(
        self, work: str, *, waiting: int, retry_after: int, waited: Waited = unobserved
    ) -> None:
        self.retry_after, self._waited = retry_after, waited
        self._work, self._capacity, self._admitted = work, waiting + 1, 0
        self._one = anyio.CapacityLimiter(1)

    def require_place(self) -> None:
        """Raise Overloaded if there is no place."""
        if self._admitted >= self._capacity:
            message = f"{self._admitted} {self._work} are running or waiting; try again later"
            raise Overloaded(message, self.retry_after)

    def enter(self) -> None:
        """Take a place, until `leave`. Raises Overloaded if there is none."""
        self.require_place()
        self._admitted += 1

    def leave(self) -> None:
        """Give a place back."""
        self._admitted -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the time of a `with` block. Raises Overloaded if there is none."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread, alone. Raises Overloaded."""
        with self.place():
            return await self.alone(function, *args, **kwargs)

    async def alone(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread, alone, for who has a place."""
        entered = time.monotonic()

        def timed() -> T:
            self._waited(time.monotonic() - entered)
            return function(*args, **kwargs)

        return await to_thread.run_sync(timed, limiter=self._one)
