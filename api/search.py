"""`/v1/search`: which adapters of the library are for a task."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.problems import documented
from api.schemas import SearchAnswer, SearchResult
from api.service import ServiceOf
from index.encoder import MAX_CHARACTERS
from index.entries import Filter
from index.state import MOST

router = APIRouter()

# Limits are documented here and held by the search itself, whose errors say more.
Text = Annotated[
    str,
    Query(
        description=f"The task, 1 to {MAX_CHARACTERS:,} characters once trimmed.",
        examples=["Say whether the review is positive or negative."],
    ),
]
Count = Annotated[
    int,
    Query(description="How many at most.", json_schema_extra={"minimum": 1, "maximum": MOST}),
]
Condition = Annotated[str | None, Query()]


@router.get(
    "/v1/search",
    tags=["search"],
    responses=documented(
        "encoder-mismatch",
        "invalid-field",
        "invalid-description",
        "unknown-name",
        "index-unreadable",
        "internal",
        "not-ready",
        "overloaded",
    ),
)
async def search(
    service: ServiceOf,
    q: Text,
    k: Count = 10,
    base: Condition = None,
    layout: Condition = None,
    recipe: Condition = None,
    license: Condition = None,
    tag: Annotated[list[str] | None, Query()] = None,
) -> SearchAnswer:
    """The adapters that are nearest to a description, best first.

    Only those of a base model, layout (its digest), recipe, licence or licence class, and tags,
    where these are given.
    """
    wanted = Filter(base, layout, recipe, license, tuple(tag or ()))
    found = await service.search(q, k, wanted)
    return SearchAnswer(results=[SearchResult(**result.to_dict()) for result in found])
