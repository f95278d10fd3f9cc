"""From a gate's scores to shares of experts: which are taken, and how much of each."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from index.gate.systems import System

TOP_P, MIN_TAKEN = 0.75, 2  # of the hybrid where it is sure
UNSURE = 0.9  # Tsallis entropy, as a share of its maximum, from which on the hybrid takes all
ENTROPIC_INDEX = 1.1  # q of the Tsallis entropy (DynMoLE)


def taken(
    system: System, scores: Float[Tensor, "*n rows"], prior: Float[Tensor, "*#n experts"]
) -> tuple[Float[Tensor, "*n experts"], Float[Tensor, "*n experts"]]:
    """The softmax over experts, and their shares.

    Args:
        scores: of the experts; behind them a threshold's where the system learns one.
        prior: added to the experts' scores; one with -inf gets no share.
    """
    experts = prior.shape[-1]
    # Where no expert may act the softmax is no number: no shares then.
    p = (scores[..., :experts] + prior).softmax(-1).nan_to_num(0.0)
    if system.takes == "softmax":
        return p, p
    if system.takes == "threshold":
        # AdaMoLE: what lies above the threshold, which is at most the mean share.
        threshold = scores[..., experts:].sigmoid() / experts
        return p, _normalised((p - threshold).clamp_min(0))
    if system.takes == "top-1":
        one = p * greatest(p, 1)
        return p, _normalised(one).detach() + (one - one.detach())  # 1, with the gradient of p
    if system.takes == "top-k":
        return p, _normalised(p * greatest(p, system.k))
    sure = tsallis_entropy(p) < UNSURE * _most(p.shape[-1])
    few = top_p(p, TOP_P) | greatest(p, MIN_TAKEN)
    return p, _normalised(p * (few | ~sure[..., None]))


def greatest(p: Float[Tensor, "*n experts"], k: int) -> Bool[Tensor, "*n experts"]:
    """The k largest."""
    best = p.topk(min(k, p.shape[-1])).indices
    return torch.zeros_like(p, dtype=torch.bool).scatter(-1, best, True)


def top_p(p: Float[Tensor, "*n experts"], share: float) -> Bool[Tensor, "*n experts"]:
    """The fewest, largest first, that reach a share of the whole; none of probability 0."""
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # the likelier ones' probability
    return torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, before < share) & (p > 0)


def tsallis_entropy(p: Float[Tensor, "*n experts"]) -> Float[Tensor, "*n"]:
    """(1 − Σ p^q) / (q − 1), q = 1.1; without a gradient at p = 0, where it has no finite one."""
    powers = torch.where(p > 0, p, 1.0).pow(ENTROPIC_INDEX) * (p > 0)
    return (1 - powers.sum(-1)) / (ENTROPIC_INDEX - 1)


def _most(experts: int) -> float:
    """The Tsallis entropy of equal shares."""
    return (1 - experts ** (1 - ENTROPIC_INDEX)) / (ENTROPIC_INDEX - 1)


def _normalised(shares: Float[Tensor, "*n experts"]) -> Float[Tensor, "*n experts"]:
    """Shares that sum to 1, but for those that are all zero."""
    total = shares.sum(-1, keepdim=True)
    return shares / torch.where(total > 0, total, 1.0)
