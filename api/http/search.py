"""`/v1/search`: which adapters of the library are for a task."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.http.dependencies import ServiceOf
from api.http.problems import documented
from api.http.schemas import SearchAnswer, SearchResult
from api.service.store import ADAPTER_ID
from index.encoders.descriptions import MAX_CHARACTERS
from index.search.sources import By
from index.segments.metadata import Filter
from index.segments.view import MOST

router = APIRouter()

# Limits are documented here and held by the search itself, whose errors say more.
Text = Annotated[
    str | None,
    Query(
        description=f"The task, 1 to {MAX_CHARACTERS:,} characters once trimmed.",
        examples=["Say whether the review is positive or negative."],
    ),
]
Count = Annotated[
    int,
    Query(description="How many at most.", json_schema_extra={"minimum": 1, "maximum": MOST}),
]
AdapterName = Annotated[
    str | None,
    Query(
        description="Id of an adapter that this service made.",
        json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"},
    ),
]
Compared = Annotated[
    By | None,
    Query(
        description="What of the library's adapters is compared; by default descriptions with a "
        "text, and weights with an adapter (its description where they cannot be)."
    ),
]
Condition = Annotated[str | None, Query()]


@router.get(
    "/v1/search",
    tags=["search"],
    responses=documented(
        "encoder-mismatch",
        "not-found",
        "not-searchable",
        "invalid-field",
        "invalid-description",
        "unknown-name",
        "index-unreadable",
        "internal",
        "not-ready",
        "overloaded",
    ),
)
async def search_library(
    service: ServiceOf,
    q: Text = None,
    adapter: AdapterName = None,
    by: Compared = None,
    k: Count = 10,
    base: Condition = None,
    layout: Condition = None,
    recipe: Condition = None,
    license: Condition = None,
    tag: Annotated[list[str] | None, Query()] = None,
) -> SearchAnswer:
    """The adapters that are nearest to a description, an adapter or the mean of both, best first.

    Only those of a base model, layout (its digest), recipe, licence or licence class, and tags,
    where these are given.
    """
    wanted = Filter(base, layout, recipe, license, tuple(tag or ()))
    found = await service.search(q, adapter, by, k, wanted)
    return SearchAnswer(results=[SearchResult(**result.to_dict()) for result in found])
