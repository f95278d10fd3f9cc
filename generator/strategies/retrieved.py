"""Retrieval: the library's adapter with the nearest description, or the sum of the nearest."""

import torch

from generator.request import Query
from generator.resources import Resources
from generator.strategies.base import Offer, Proposal, Strategy
from index.merge.weighted_sum import weighted_sum
from index.search.retriever import softmax_weights
from library.base.models import BaseReference


class FromLibrary(Strategy):
    """What `Nearest` and `Compose` share: a library that may fit a base or not."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def unavailable(self, base: BaseReference) -> str:
        return self._resources.library_fit.misfit(base)

    def offer(self, base: BaseReference) -> Offer | None:
        if self.unavailable(base):
            return None
        plan = self._resources.retriever(base).plan
        return Offer(None, plan.base["id"], plan.layout)


class Nearest(FromLibrary):
    """The adapter whose description is nearest, as it is."""

    name = "nearest"

    def propose(self, query: Query) -> Proposal:
        return self._neighbour(query, 0)

    def candidates(self, query: Query) -> list[tuple[str, Proposal]]:
        """Every neighbour, nearest first."""
        return [
            (f"{self.name} {neighbour.task}", self._neighbour(query, position))
            for position, neighbour in enumerate(query.neighbours)
        ]

    def _neighbour(self, query: Query, position: int) -> Proposal:
        retriever = query.require_neighbours()
        neighbour = query.neighbours[position]
        chosen = self.chosen(query, neighbour.similarity)
        usage = self.usage(query.request)
        return Proposal(retriever.adapter(neighbour.id), chosen, usage, parents=[neighbour.id])


class Compose(FromLibrary):
    """The softmax-weighted sum of the nearest, exact in ΔW, at the sum of their ranks."""

    name = "compose"

    def propose(self, query: Query) -> Proposal:
        retriever, weights = query.require_neighbours(), softmax_weights(query.neighbours)
        adapters = [retriever.adapter(n.id).to(dtype=torch.float64) for n in query.neighbours]
        return Proposal(
            weighted_sum(adapters, weights),
            self.chosen(query, query.similarity),
            self.usage(query.request),
            parents=[neighbour.id for neighbour in query.neighbours],
            details={"weights": [round(weight, 9) for weight in weights]},
        )
