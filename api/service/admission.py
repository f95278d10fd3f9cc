"""A bounded waiting line in front of work that is done one at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import anyio
from anyio import to_thread

from api.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class Admission:
    """One call computes in a thread, a few wait in order, the rest are refused.

    Args:
        waiting: how many may wait.
        retry_after: seconds that a refused caller is told to wait.
    """

    def __init__(self, *, waiting: int, retry_after: int) -> None:
        self._places = waiting + 1
        self._retry_after = retry_after
        self._taken = 0
        self._one = anyio.CapacityLimiter(1)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one place. Raises Overloaded if there is none. For the event loop's thread only."""
        if self._taken >= self._places:
            raise Overloaded(
                f"{self._taken} requests are being worked on already; try again later",
                self._retry_after,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function` in a thread, alone. Raises Overloaded."""
        with self.place():
            return await to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._one)
