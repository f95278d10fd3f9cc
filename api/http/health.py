"""`/health`: whether the service lives, and whether it is ready."""

from fastapi import APIRouter

from api.http.dependencies import ServiceOf
from api.http.problems import documented
from api.http.schemas import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> Health:
    """Liveness: the process answers."""
    return Health(status="live")


@router.get("/ready", responses=documented("not-ready"))
async def ready(service: ServiceOf) -> Health:
    """Readiness: generator and encoder are loaded, and the service is not about to end."""
    service.require_time()
    _ = service.engine
    return Health(status="ready")
