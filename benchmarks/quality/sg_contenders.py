"""The adapters that SG-LoRA is compared with, and SG-LoRA with parts of it taken away.

All of a task come from one library without the task's own adapters. `soup`, `adapter-soup` and
`top-k` average factors, as the paper does; `compose` sums ΔW exactly with the weights of `top-k`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from generator.layers.aggregate import ExpertMixture, aggregate
from generator.layers.gaussian import seeded_noise
from generator.models.base import Condition
from generator.models.sg_lora import SGLoRA
from generator.request import Query, Request
from generator.resources import Resources
from index.merge.weighted_sum import weighted_sum
from index.search.retriever import Neighbour, similarity_weights
from library.adapter import Adapter
from library.base.models import BaseReference

COUNTS = (1, 2, 4, 8)  # of experts
OWN = "sg-lora"


class Contenders:
    """Adapters by the names of methods, for a description of a task.

    Args:
        module: the generator in float64, where the resources say.
        samples: draws of the prior, and of N(0, I).
    """

    def __init__(
        self, module: SGLoRA, resources: Resources, base: BaseReference, samples: int
    ) -> None:
        self.module, self.resources, self.base = module, resources, base
        self.seeds = range(1, samples + 1)

    def of_task(self, task: str, text: str) -> dict[str, Adapter]:
        """Everything, for a task's definition."""
        query, k = self.query(task, text), self.module.top_k
        every = query.nearest_experts(len(self.resources.retriever(self.base).experts))
        near = every[:k]
        mixture = self.mixture(query, near)
        parts = query.experts(near).means[0]
        found = {
            "soup": self._evenly(query, every),
            "adapter-soup": self._evenly(query, near),
            "nearest": parts[[0]],
            "top-k": mixture.mean,
            "compose": weighted_sum([parts[[i]] for i in range(len(near))], self._weights(near)),
            **self.draws(mixture),
            f"{OWN}, without variance": self.prior_mean(_even_variance(mixture)),
        }
        for count in COUNTS:
            if count != k and count <= len(every):
                fewer = self.mixture(query, every[:count])
                found[f"{OWN}, {count} experts"] = self.prior_mean(fewer)
                found[f"top-k, {count} experts"] = fewer.mean
        if len(every) > k:
            others = self.mixture(query, every[1 : k + 1])
            found[f"{OWN}, without the nearest"] = self.prior_mean(others)
            found["top-k, without the nearest"] = others.mean
        return found

    def of_paraphrase(self, task: str, text: str) -> dict[str, Adapter]:
        """SG-LoRA and what it starts from, for another description of a task."""
        query = self.query(task, text)
        mixture = self.mixture(query, query.nearest_experts(self.module.top_k))
        return {OWN: self.prior_mean(mixture), "top-k": mixture.mean}

    def draws(self, mixture: ExpertMixture) -> dict[str, Adapter]:
        """The prior's mean, and draws of the prior and of a standard Gaussian."""
        prior = self.module.prior(mixture)
        found = {OWN: self.module.decode(mixture, prior.mean)}
        for seed in self.seeds:
            noise = seeded_noise(seed, self.module.config.latent, prior.mean)
            found[f"{OWN}, sample {seed}"] = self.module.decode(mixture, prior.at(noise))
            found[f"{OWN}, N(0, I) {seed}"] = self.module.decode(mixture, noise)
        return found

    def prior_mean(self, mixture: ExpertMixture) -> Adapter:
        return self.module.decode(mixture, self.module.prior(mixture).mean)

    def mixture(self, query: Query, near: Sequence[Neighbour]) -> ExpertMixture:
        return self.module.mixture(Condition(experts=query.experts(near)))

    def query(self, task: str, text: str) -> Query:
        return Query(Request(text), self.base, self.resources, without=task)

    def _weights(self, near: Sequence[Neighbour]) -> list[float]:
        cosines = torch.tensor([n.similarity for n in near], dtype=torch.float64)
        return similarity_weights(cosines, self.module.config.temperature).tolist()

    def _evenly(self, query: Query, near: Sequence[Neighbour]) -> Adapter:
        experts = query.experts(near)
        weights = torch.full_like(experts.similarities, 1 / len(near))
        return aggregate(experts.means, experts.variances, weights).mean


def _even_variance(mixture: ExpertMixture) -> ExpertMixture:
    """The variance of every entry replaced by its row's mean: its pattern is gone, its size not.

    A variance of zero would be an input that the network has never seen.
    """

    def even(factors: Mapping[str, Tensor], dim: int) -> dict[str, Tensor]:
        return {k: v.mean(dim=dim, keepdim=True).expand_as(v) for k, v in factors.items()}

    variance = mixture.variance
    flat = Adapter(variance.layout, even(variance.A, -1), even(variance.B, -2))
    return replace(mixture, variance=flat)
