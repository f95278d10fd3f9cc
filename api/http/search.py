"""`/v1/search`: adapters of the library that are near a description or another adapter."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.http.dependencies import CallerOf, ServiceOf
from api.http.problems import BUSY, documented
from api.http.schemas import SearchAnswer, SearchResult
from api.service.store import ADAPTER_ID
from index.encoders.descriptions import MAX_CHARACTERS
from index.search.sources import By
from index.segments.metadata import Filter
from index.segments.view import MAX_RESULTS

router = APIRouter()

# Limits are documented here and held by the search itself, whose errors say more.
Text = Annotated[
    str | None,
    Query(
        description=f"Description of the task, 1 to {MAX_CHARACTERS:,} characters after trimming.",
        examples=["Say whether the review is positive or negative."],
    ),
]
Count = Annotated[
    int,
    Query(
        description="Largest number of results.",
        json_schema_extra={"minimum": 1, "maximum": MAX_RESULTS},
    ),
]
AdapterName = Annotated[
    str | None,
    Query(
        description="Id of an adapter of this service.",
        json_schema_extra={"pattern": f"^{ADAPTER_ID.pattern}$"},
    ),
]
Compared = Annotated[
    By | None,
    Query(
        description="What is compared (default: the description for a text; for an adapter its "
        "weights, or its description where weights cannot be compared)."
    ),
]
BaseName = Annotated[str | None, Query(description="Only adapters of this base model.")]
LayoutDigest = Annotated[str | None, Query(description="Only adapters of this layout's digest.")]
Recipe = Annotated[str | None, Query(description="Only adapters trained with this recipe.")]
License = Annotated[str | None, Query(description="Only adapters of this licence or its class.")]
Tags = Annotated[list[str] | None, Query(description="Only adapters with all of these tags.")]


@router.get(
    "/v1/search",
    tags=["search"],
    responses=documented(
        *BUSY,
        "encoder-mismatch",
        "not-found",
        "not-searchable",
        "invalid-field",
        "invalid-description",
        "unknown-name",
        "index-unreadable",
        "internal",
    ),
)
async def search_library(
    service: ServiceOf,
    caller: CallerOf,
    q: Text = None,
    adapter: AdapterName = None,
    by: Compared = None,
    k: Count = 10,
    base: BaseName = None,
    layout: LayoutDigest = None,
    recipe: Recipe = None,
    license: License = None,
    tag: Tags = None,
) -> SearchAnswer:
    """Search the library by a description, an adapter or both (their mean), best first."""
    filter = Filter(base, layout, recipe, license, tuple(tag or ()))
    results = await service.search(caller, q, adapter, by, k, filter)
    return SearchAnswer(results=[SearchResult(**result.to_dict()) for result in results])
