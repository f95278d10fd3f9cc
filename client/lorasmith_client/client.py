"""The clients: the same methods for synchronous code and for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Self, TypeVar

import httpx

from lorasmith_client.answers import Job
from lorasmith_client.connection import Connection
from lorasmith_client.errors import Unreachable, require_success
from lorasmith_client.flow import Flow, Pause, Request, segment
from lorasmith_client.methods import Methods
from lorasmith_client.parsing import job_of

T = TypeVar("T")


class Client(Methods):
    """A client of the service; use it in a `with` block, or close it.

    Methods named after what they make wait for it; `submit_` ones return the job at once.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """See Connection; `transport` is for proxies, certificates and tests."""
        self._connection = Connection(url, key, timeout, patience)
        self._http = httpx.Client(transport=transport, **self._connection.options())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
        """The result of a flow."""
        with closing(flow):
            answer: httpx.Response | None = None
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    return end.value
                wait = isinstance(step, Pause)
                answer = time.sleep(step.seconds) if wait else self._answer(step)

    def events(self, job: str) -> Iterator[Job]:
        """A job at once and whenever its state or progress has changed, until it has ended."""
        with self._stream(_events(job)) as response:
            if not response.is_success:
                response.read()
                require_success(response)
            yield from filter(None, map(job_of, response.iter_lines()))

    def _answer(self, request: Request) -> httpx.Response:
        waited = 0.0
        while True:
            with self._stream(request) as response:
                if request.sink is None or not response.is_success:
                    response.read()
                else:
                    for piece in response.iter_bytes():
                        request.sink(piece)
            seconds = self._connection.pause(response, waited)
            if seconds is None:
                return response
            time.sleep(seconds)
            waited += seconds

    @contextmanager
    def _stream(self, request: Request) -> Iterator[httpx.Response]:
        with _reached(), self._http.stream(**request.options()) as response:
            yield response


class AsyncClient(Methods):
    """The same for asyncio: methods are awaited, `events` is an `async for`.

    Files are read and written in the event loop, a piece at a time.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See Connection; `transport` is for proxies, certificates and tests."""
        self._connection = Connection(url, key, timeout, patience)
        self._http = httpx.AsyncClient(transport=transport, **self._connection.options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """The result of a flow."""
        with closing(flow):
            answer: httpx.Response | None = None
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    return end.value
                wait = isinstance(step, Pause)
                answer = await (asyncio.sleep(step.seconds) if wait else self._answer(step))

    async def events(self, job: str) -> AsyncIterator[Job]:
        """A job at once and whenever its state or progress has changed, until it has ended."""
        async with self._stream(_events(job)) as response:
            if not response.is_success:
                await response.aread()
                require_success(response)
            async for line in response.aiter_lines():
                if (now := job_of(line)) is not None:
                    yield now

    async def _answer(self, request: Request) -> httpx.Response:
        waited = 0.0
        while True:
            async with self._stream(request) as response:
                if request.sink is None or not response.is_success:
                    await response.aread()
                else:
                    async for piece in response.aiter_bytes():
                        request.sink(piece)
            seconds = self._connection.pause(response, waited)
            if seconds is None:
                return response
            await asyncio.sleep(seconds)
            waited += seconds

    @asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[httpx.Response]:
        with _reached():
            async with self._http.stream(**request.options()) as response:
                yield response


def _events(job: str) -> Request:
    return Request("GET", f"/v1/jobs/{segment(job)}/events")


@contextmanager
def _reached() -> Iterator[None]:
    """Turn what httpx says of a connection into Unreachable."""
    try:
        yield
    except httpx.HTTPError as error:
        what = str(error) or type(error).__name__
        raise Unreachable(f"the service cannot be reached: {what}") from error
