"""`/v1/library`: the adapters of the service's library, page by page."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.http.dependencies import ServiceOf
from api.http.problems import documented
from api.service.store import ADAPTER_ID
from library.errors import UsageError
from library.store.records import Position
from lorasmith.libraries import Library, load_library

MAX_PAGE = 1000
Limit = Annotated[int, Query(description="Largest number of adapters.", ge=1, le=MAX_PAGE)]
Cursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before (default: the list from its beginning).",
        json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"},
    ),
]

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


def _position(library: Library, cursor: str) -> Position:
    """Where the adapter stands that a page ended with. Raises UsageError."""
    named = library.catalogue.named(cursor) if ADAPTER_ID.fullmatch(cursor) else []
    if not named:
        raise UsageError("cursor: the library holds no such adapter; begin again without one")
    return named[-1].position
