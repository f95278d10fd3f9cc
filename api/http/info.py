"""`/v1/generators` and `/v1/base-models`."""

from fastapi import APIRouter

from api.http.dependencies import ServiceOf
from api.http.problems import documented
from api.http.schemas import (
    BaseModelInfo,
    BaseModelList,
    GeneratorInfo,
    GeneratorList,
)
from generator.engine import DEFAULT_STRATEGY, draws

router = APIRouter()


@router.get("/v1/generators", tags=["offers"], responses=documented("not-ready"))
def list_generators(service: ServiceOf) -> GeneratorList:
    """List the generators that can make adapters for the default base model."""
    base, engine = service.settings.base(), service.engine
    offers = [(s, s.offer(base)) for s in engine.strategies.values()]
    return GeneratorList(
        generators=[
            GeneratorInfo(
                name=strategy.name,
                default=strategy.name == DEFAULT_STRATEGY,
                checkpoint=offer.checkpoint,
                base_model=offer.base_model,
                layout_digest=offer.layout.digest,
                rank=offer.layout.rank,
                needs=engine.needs(strategy.name),
                uses_examples=strategy.uses_examples,
                draws=draws(strategy.name),
                **strategy.evidence(base).to_dict(),
            )
            for strategy, offer in offers
            if offer is not None
        ]
    )


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
