"""`/v1/generators`, `/v1/base-models` and `/health`."""

from fastapi import APIRouter

from api.http.problems import documented
from api.http.schemas import (
    BaseModelInfo,
    BaseModelList,
    GeneratorInfo,
    GeneratorList,
    Health,
)
from api.service.service import ServiceOf
from generator.strategies.strategies import (
    DEFAULT_GENERATOR,
    FROM_CHECKPOINT,
    GENERATORS,
    WITH_EXAMPLES,
)

router = APIRouter()


@router.get("/v1/generators", tags=["offers"], responses=documented("not-ready"))
def list_generators(service: ServiceOf) -> GeneratorList:
    """List the generators that can make adapters for the default base model."""
    strategies, base = service.strategies, service.settings.base()
    offers = []
    for name in GENERATORS:
        if name in FROM_CHECKPOINT and strategies.generator is not None:
            checkpoint = strategies.generator.checkpoint
            record, layout, digest = checkpoint.info.base, checkpoint.layout, checkpoint.digest
        elif name not in FROM_CHECKPOINT and strategies.has_library(base):
            plan = strategies.shelf(base).plan
            record, layout, digest = plan.base, plan.layout, None
        else:
            continue
        offers.append(
            GeneratorInfo(
                name=name,
                default=name == DEFAULT_GENERATOR,
                checkpoint=digest,
                base_model=record["id"],
                layout_digest=layout.digest,
                rank=layout.rank,
                uses_examples=name in WITH_EXAMPLES,
            )
        )
    return GeneratorList(generators=offers)


@router.get("/v1/base-models", tags=["offers"])
def list_base_models(service: ServiceOf) -> BaseModelList:
    """List the base models."""
    settings = service.settings
    return BaseModelList(
        base_models=[
            BaseModelInfo(
                name=name,
                default=name == settings.default_base,
                base_model=settings.base(name).name,
            )
            for name in settings.bases
        ]
    )


@router.get("/health/live", tags=["health"])
async def live() -> Health:
    """Liveness: the process answers."""
    return Health(status="live")


@router.get("/health/ready", tags=["health"], responses=documented("not-ready"))
async def ready(service: ServiceOf) -> Health:
    """Readiness: generator and encoder are loaded."""
    _ = service.strategies
    return Health(status="ready")
