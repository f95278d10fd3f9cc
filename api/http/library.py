"""`/v1/library`: the adapters of the service's library, page by page, alone, and on a map."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from api.errors import NotFound
from api.http.dependencies import ServiceOf
from api.http.problems import BUSY, documented
from api.service.store import ADAPTER_ID
from library.errors import UsageError
from library.store.records import Position, RecordEntry, read_record
from lorasmith.libraries import Library, load_library

MAX_PAGE = 1000
MAX_POINTS = 2000  # of a map
Limit = Annotated[int, Query(description="Largest number of adapters.", ge=1, le=MAX_PAGE)]
Cursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before (default: the list from its beginning).",
        json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"},
    ),
]
# Not validated: an id that no adapter can have is not found (404).
Identity = Annotated[str, Path(json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"})]
MapText = Annotated[str | None, Query(alias="q", description="A description to place as well.")]

router = APIRouter(tags=["search"])


class LibraryAdapter(BaseModel):
    """An adapter of the library; `sha256` is the digest of its weights."""

    id: str
    sha256: str
    task: str
    recipe: str
    base_model: str
    rank: int
    score: float | None = Field(description="Share of right answer tokens on its tune rows.")


class DescribedAdapter(LibraryAdapter):
    """An adapter of the library with what its record says of its task."""

    description: str | None = Field(description="Null if the task has none.")
    categories: list[str]
    licenses: list[str]


class PlaceBody(BaseModel):
    """A place on the map; the axes have no unit."""

    x: float
    y: float


class PlacedAdapter(PlaceBody):
    """An adapter on the map."""

    id: str
    task: str


class MapAnswer(BaseModel):
    """A map of the library: the nearer two descriptions, the nearer their points, as a rule."""

    adapters: list[PlacedAdapter] = Field(
        description=f"By task; of more than {MAX_POINTS:,} evenly many of them."
    )
    total: int = Field(description="How many adapters the library's index has.")
    explained: float = Field(
        ge=0, le=1, description="Share of what tells descriptions apart that the two axes hold."
    )
    query: PlaceBody | None = Field(description="Where the text `q` lies, if there is one.")


class LibraryPage(BaseModel):
    """Adapters in the order of their tasks."""

    adapters: list[LibraryAdapter]
    next: str | None = Field(description="Cursor of the next page; null on the last one.")


@router.get("/v1/library", responses=documented("invalid-field", "internal"))
def list_library(service: ServiceOf, limit: Limit = 100, cursor: Cursor = None) -> LibraryPage:
    """List the adapters of the library that search and generators take from, by task."""
    library = load_library(service.settings.library)
    after = None if cursor is None else _position(library, cursor)
    found = library.adapters(limit=limit + 1, after=after)
    page = [LibraryAdapter(**entry.to_dict()) for entry in found[:limit]]
    return LibraryPage(adapters=page, next=page[-1].id if len(found) > limit else None)


@router.get(
    "/v1/library/map",
    responses=documented(
        *BUSY, "encoder-mismatch", "invalid-description", "index-unreadable", "internal"
    ),
)
async def map_library(service: ServiceOf, q: MapText = None) -> MapAnswer:
    """Place the library's adapters, and a text, on a plane by their descriptions.

    The axes are the first two principal components.
    """
    found, query = await service.library_map(q)
    total = len(found.entries)
    step = max(total / MAX_POINTS, 1)
    rows = [int(number * step) for number in range(min(total, MAX_POINTS))]
    return MapAnswer(
        adapters=[
            PlacedAdapter(id=found.entries[row].id, task=found.entries[row].task, x=x, y=y)
            for row, (x, y) in zip(rows, found.points[rows].tolist(), strict=True)
        ],
        total=total,
        explained=min(found.explained, 1.0),
        query=None if query is None else PlaceBody(x=query[0], y=query[1]),
    )


@router.get("/v1/library/{id}", responses=documented("not-found", "internal"))
def show_library_adapter(service: ServiceOf, id: Identity) -> DescribedAdapter:
    """Show an adapter of the library, with the description of its task."""
    library = load_library(service.settings.library)
    missing = NotFound("the library holds no such adapter")
    named = _named(library, id)
    if not named:
        raise missing
    try:
        record = read_record(library.catalogue.folder, named[0].path)
    except FileNotFoundError as error:  # removed meanwhile
        raise missing from error
    return DescribedAdapter(
        **named[0].to_dict(),
        description=record.get("description") or None,
        categories=record.get("categories") or [],
        licenses=record.get("licenses") or [],
    )


def _named(library: Library, identity: str) -> list[RecordEntry]:
    """The records of an adapter, by its id."""
    return library.catalogue.named(identity) if ADAPTER_ID.fullmatch(identity) else []


def _position(library: Library, cursor: str) -> Position:
    """Where the adapter stands that a page ended with. Raises UsageError."""
    named = _named(library, cursor)
    if not named:
        raise UsageError("cursor: the library holds no such adapter; begin again without one")
    return named[-1].position
