"""What is added to the loss, so that a gate uses its experts."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from index.gate.systems import System
from index.gate.takes import tsallis_entropy


def balance_loss(
    system: System,
    chosen: Mapping[str, tuple[Tensor, Tensor]],
    real: Bool[Tensor, "batch length"],
    own: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """The mean over sites; 0 for a system that has none.

    Args:
        chosen: each site's softmax over experts and their shares, of tokens or of rows.
        real: tokens that are no padding.
        own: the expert of each row's task.
    """
    by_token = own[:, None].expand(real.shape)[real]
    losses = [
        _loss(system, p[:, 0], shares[:, 0], own)
        if p.shape[1] == 1
        else _loss(system, p[real], shares[real], by_token)
        for p, shares in chosen.values()
    ]
    return torch.stack(losses).mean()


def _loss(
    system: System,
    p: Float[Tensor, "tokens n"],
    shares: Float[Tensor, "tokens n"],
    own: Int[Tensor, " tokens"],
) -> Float[Tensor, ""]:
    if system.balances == "nothing":
        return p.new_zeros(())
    if system.balances == "tsallis":
        return tsallis_entropy(p).mean()
    # Switch Transformer's: n times Σ (share of all choices) · (mean probability); 1 if even.
    counts = (shares > 0).to(p).mean(0)
    load = len(counts) * (counts / counts.sum() * p.mean(0)).sum()
    if system.balances == "load":
        return load
    return load - p.gather(-1, own[:, None]).clamp_min(1e-9).log().mean()
