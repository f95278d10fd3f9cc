"""`POST /v1/adapters/compose`: adapters merged into one."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import FailFast, Field

from api.http.answers import CREATED, LOCATION, accepted, created
from api.http.body import JsonRoute
from api.http.dependencies import CallerOf, ServiceOf
from api.http.idempotency import KEYED, OnceOf
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.requests import ExampleBody, Strict, Text, profile_field, to_examples
from api.http.schemas import AdapterAnswer, JobAnswer
from api.service.job_store import JobRow
from generator.request import MAX_RANK, MAX_SEED
from index.merge.compose import MergeRequest
from index.merge.lorahub import CANDIDATES, EXAMPLES
from index.merge.methods import METHODS
from library.peft.write import Profile

Weight = Annotated[float, Field(allow_inf_nan=False)]

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)


class ComposeRequest(Strict):
    """What to merge, and how. Null is the same as an absent field."""

    adapters: Annotated[list[Text], FailFast()] = Field(
        min_length=1,
        max_length=CANDIDATES,
        description="Ids of your adapters, or of the library; for one base, of the same modules, "
        f"and with ranks of {MAX_RANK} together at most.",
    )
    method: str | None = Field(
        default=None,
        description="Merge method (default: cat, the exact sum).",
        json_schema_extra={"enum": [*METHODS]},
    )
    weights: Annotated[list[Weight] | None, FailFast()] = Field(
        default=None, description="One for each adapter (default: equal, with sum 1)."
    )
    rank: int | None = Field(
        default=None, ge=1, le=MAX_RANK, description="Rank of the result (default: the method's)."
    )
    density: float | None = Field(
        default=None, description="Share of entries that ties and dare keep, above 0 to 1."
    )
    examples: Annotated[list[ExampleBody] | None, FailFast()] = Field(
        default=None, description=f"Examples that lorahub searches weights for, at most {EXAMPLES}."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="Seed of dare's masks and lorahub's search (default: 0).",
    )
    profile: Profile | None = profile_field()

    def to_request(self) -> MergeRequest:
        """The request, validated. Raises UsageError."""
        fields = self.model_dump(exclude={"adapters", "examples"}, exclude_none=True)
        examples = None if self.examples is None else to_examples(self.examples)
        return MergeRequest(self.adapters, **{"method": "cat", **fields}, examples=examples)


@router.post(
    "/compose",
    status_code=201,
    response_model=AdapterAnswer,
    responses={
        **CREATED,
        202: {
            "description": "The job that merges them is queued, where that takes seconds: by ties, "
            "dare and lorahub, or with high ranks.",
            "model": JobAnswer,
            "headers": LOCATION,
        },
        **documented(
            *JSON_BODY,
            *BUSY,
            *KEYED,
            "not-found",
            "layout-mismatch",
            "unknown-name",
            "unsupported-model",
            "more-than-lora",
            "refused",
            "base-unreadable",
            "internal",
            "quota-exceeded",
            "storage-failed",
        ),
    },
)
async def compose_stored(
    body: ComposeRequest, request: Request, service: ServiceOf, caller: CallerOf, once: OnceOf
) -> Response:
    """Merge adapters into one, by the methods of `lorasmith compose`.

    The same request gives the same adapter, which `chosen` says the parts of. With `Accept:
    application/octet-stream` the answer is adapter_model.safetensors itself.
    """

    async def compose() -> Response:
        made = await service.compose(caller, body.to_request())
        if isinstance(made, JobRow):
            return accepted(made)
        return await created(request, service, caller, made)

    return await once(compose)
