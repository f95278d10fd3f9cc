"""Equal work that several ask for at one time is done once, and its outcome is everybody's."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


@dataclass
class _Flight(Generic[T]):
    landed: anyio.Event = field(default_factory=anyio.Event)
    results: list[T] = field(default_factory=list)  # none or one
    error: Exception | None = None


class SingleFlight(Generic[T]):
    """Work by key. For the event loop's thread only."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result of `work`, or that of equal work under way; and whether it was done here.

        Where whoever does the work is cancelled, one of those who wait does it instead. Raises what
        the work raises.
        """
        while (flight := self._flights.get(key)) is not None:
            await flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            if flight.results:
                return flight.results[0], False
        flight = self._flights[key] = _Flight()
        try:
            flight.results.append(await work())
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._flights[key]
            flight.landed.set()
        return flight.results[0], True
