"""`/metrics`, in the text format of Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.http.dependencies import ServiceOf

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Counts and durations, in the text format of Prometheus.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def show_metrics(service: ServiceOf) -> Response:
    """Show what is measured, for Prometheus: durations of stages and answers, jobs, bytes."""
    content = generate_latest(service.metrics.registry)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
