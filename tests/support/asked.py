"""The Python client, synchronous and with asyncio, against a real server."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rest import serving

from api.http.app import create_app
from api.service.service import Service
from lorasmith_client import AsyncClient, Client, jobs


class InLoop:
    """AsyncClient as if it were Client: each call in an event loop of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.made = lambda: AsyncClient(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **fields: asyncio.run(self._call(name, *args, **fields))

    async def _call(self, name: str, *args: Any, **fields: Any) -> Any:
        async with self.made() as client:
            if name == "events":
                return [job async for job in client.events(*args)]
            return await getattr(client, name)(*args, **fields)


CLIENTS: dict[str, Any] = {"sync": Client, "async": InLoop}


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> Any:
    """Each of the two clients."""
    return CLIENTS[request.param]


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    """Where the service is."""
    with serving(create_app(service)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def asked(kind: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the service."""
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.02)
    return kind(url)
