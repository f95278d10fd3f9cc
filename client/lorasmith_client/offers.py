"""What there is: the library and its search, generators, base models, health."""

from typing import Unpack

from lorasmith_client.flow import Flow, get, segment
from lorasmith_client.listings import (
    BaseModel,
    DescribedAdapter,
    Generator,
    LibraryMap,
    LibraryPage,
    SearchResult,
)
from lorasmith_client.parsing import listed, parsed
from lorasmith_client.requests import SearchFields


def search(q: str | None = None, **fields: Unpack[SearchFields]) -> Flow[list[SearchResult]]:
    """Adapters of the library near a description `q`, an `adapter` or both, best first."""
    return listed(SearchResult, (yield from get("/v1/search", q=q, **fields)), "results")


def library(limit: int | None = None, cursor: str | None = None) -> Flow[LibraryPage]:
    """A page of the library, by task; 100, or `limit` (1 to 1,000)."""
    return parsed(LibraryPage, (yield from get("/v1/library", limit=limit, cursor=cursor)))


def library_adapter(adapter: str) -> Flow[DescribedAdapter]:
    """An adapter of the library, by its id, with the description of its task."""
    return parsed(DescribedAdapter, (yield from get(f"/v1/library/{segment(adapter)}")))


def library_map(q: str | None = None) -> Flow[LibraryMap]:
    """The library on a plane by its descriptions, and where a description `q` lies on it."""
    return parsed(LibraryMap, (yield from get("/v1/library/map", q=q)))


def generators() -> Flow[list[Generator]]:
    """The generators that requests may name."""
    return listed(Generator, (yield from get("/v1/generators")), "generators")


def base_models() -> Flow[list[BaseModel]]:
    """The base models that requests may name."""
    return listed(BaseModel, (yield from get("/v1/base-models")), "base_models")


def live() -> Flow[None]:
    """Return if the service answers at all."""
    yield from get("/health/live")


def ready() -> Flow[None]:
    """Return once the service is ready, which it is waited for as for any busy one. Raises Busy."""
    yield from get("/health/ready")


def metrics() -> Flow[str]:
    """Counts and durations, in the text format of Prometheus."""
    return (yield from get("/metrics")).text
