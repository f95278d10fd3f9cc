"""The sparse aggregator of SG-LoRA: a few experts become one distribution over adapters.

It has no learned parameters. Of the experts' cosines with a description the k greatest are kept and
weighted by their softmax; the mixture of the experts then has a mean and a variance in the space of
factors (SG-LoRA, arXiv 2509.10535, sparse aggregator). Averaging A and B, not ΔW, makes sense for
adapters that were trained from one A.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from library.adapter import Adapter, stack


@dataclass(frozen=True)
class ExpertMixture:
    """Mean and variance of every entry of A and B for each of n conditions.

    Attributes:
        mean: μ*, n adapters.
        variance: σ*², in the units of A and B squared.
    """

    mean: Adapter
    variance: Adapter

    def __len__(self) -> int:
        return len(self.mean)


def nearest_first(cosines: Float[Tensor, "*n m"], k: int) -> Int[Tensor, "*n k"]:
    """Positions of the k greatest cosines, greatest first; of equal ones the first comes first."""
    return cosines.argsort(dim=-1, descending=True, stable=True)[..., :k]


def aggregate(
    means: Sequence[Adapter], variances: Sequence[Adapter], weights: Float[Tensor, "n k"]
) -> ExpertMixture:
    """The mixture Σ α_k N(μ_k, σ_k²) of each condition by its first two moments.

    μ* = Σ α_k μ_k and σ*² = Σ α_k σ_k² + Σ α_k (μ_k − μ*)², entry by entry: the law of total
    variance.

    Args:
        means: μ_k, for each condition an adapter of k rows.
        variances: σ_k², likewise.
        weights: α; rows sum to 1.
    """
    mixtures = [_mixture(*row) for row in zip(means, variances, weights, strict=True)]
    return ExpertMixture(
        stack([mixture.mean for mixture in mixtures]),
        stack([mixture.variance for mixture in mixtures]),
    )


def _mixture(means: Adapter, variances: Adapter, weights: Float[Tensor, " k"]) -> ExpertMixture:
    pairs = {
        (side, key): _moments(mu, sigma2[key], weights)
        for side, factors, sigma2 in (("A", means.A, variances.A), ("B", means.B, variances.B))
        for key, mu in factors.items()
    }

    def adapter(part: int) -> Adapter:
        a, b = ({key: pairs[side, key][part] for key in means.A} for side in ("A", "B"))
        return Adapter(means.layout, a, b)

    return ExpertMixture(adapter(0), adapter(1))


def _moments(
    mu: Float[Tensor, "k s i j"], sigma2: Float[Tensor, "k s i j"], weights: Float[Tensor, " k"]
) -> tuple[Float[Tensor, "1 s i j"], Float[Tensor, "1 s i j"]]:
    alpha = weights.to(mu)[:, None, None, None]
    mean = (alpha * mu).sum(dim=0, keepdim=True)
    # The differences of the means, not of squares: these would cancel.
    between = (alpha * (mu - mean).square()).sum(dim=0, keepdim=True)
    return mean, (alpha * sigma2).sum(dim=0, keepdim=True) + between
