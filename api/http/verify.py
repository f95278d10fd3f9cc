"""`POST /v1/adapters/{id}/verify`: verification in the background."""

from fastapi import APIRouter, Response

from api.http.adapters import AdapterId
from api.http.answers import ACCEPTED, accepted
from api.http.body import JsonRoute
from api.http.dependencies import CallerOf, ServiceOf
from api.http.problems import BUSY, JSON_BODY, documented
from api.http.requests import VerifyRequest
from api.http.schemas import JobAnswer

router = APIRouter(prefix="/v1", tags=["verification"], route_class=JsonRoute)


@router.post(
    "/adapters/{id}/verify",
    status_code=202,
    response_model=JobAnswer,
    responses={
        202: ACCEPTED,
        **documented(
            *JSON_BODY, *BUSY, "not-found", "unknown-name", "extra-missing", "storage-failed"
        ),
    },
)
async def verify_adapter(
    id: AdapterId, service: ServiceOf, caller: CallerOf, body: VerifyRequest | None = None
) -> Response:
    """Verify an adapter in the background; without a body, by all hooks but zk."""
    options = (body or VerifyRequest()).arguments()
    return accepted(await service.verify(caller, id, **options))
