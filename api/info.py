"""What the service has to offer, and whether it is up."""

from fastapi import APIRouter

from api.problems import documented
from api.schemas import (
    BaseModelInfo,
    BaseModelList,
    GeneratorInfo,
    GeneratorList,
    Health,
)
from api.service import ServiceOf

router = APIRouter()


@router.get("/v1/generators", tags=["offers"], responses=documented("not-ready"))
def list_generators(service: ServiceOf) -> GeneratorList:
    """The generators that requests may name."""
    loaded = service.generator
    return GeneratorList(
        generators=[
            GeneratorInfo(
                name=loaded.name,
                default=True,
                checkpoint=loaded.checkpoint.digest,
                base_model=loaded.checkpoint.info.base["id"],
                layout_digest=loaded.checkpoint.layout.digest,
                rank=loaded.checkpoint.layout.rank,
                uses_examples=False,
            )
        ]
    )


@router.get("/v1/base-models", tags=["offers"])
def list_base_models(service: ServiceOf) -> BaseModelList:
    """The base models that requests may name."""
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
    """The process answers."""
    return Health(status="live")


@router.get("/health/ready", tags=["health"], responses=documented("not-ready"))
async def ready(service: ServiceOf) -> Health:
    """Adapters can be made: generator and encoder are loaded."""
    _ = service.generator
    return Health(status="ready")
