"""Diagonal Gaussians of latent-variable generators: draws, and their divergence in nats."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """n independent Gaussians of d dimensions each."""

    mean: Float[Tensor, "n d"]
    log_variance: Float[Tensor, "n d"]

    def at(self, noise: Float[Tensor, "#n d"]) -> Float[Tensor, "n d"]:
        """The point mean + deviation · noise; a draw if the noise is standard normal."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def draw(self) -> Float[Tensor, "n d"]:
        """A draw by torch's global generator."""
        return self.at(torch.randn_like(self.mean))


def standard_normal(like: DiagonalGaussian) -> DiagonalGaussian:
    """N(0, I), as many and of as many dimensions as others."""
    return DiagonalGaussian(torch.zeros_like(like.mean), torch.zeros_like(like.mean))


def seeded_noise(seed: int, width: int, like: Tensor) -> Float[Tensor, "1 d"]:
    """Standard normal noise that depends on a seed alone, not on the device or the batch."""
    drawn = torch.randn(
        1, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return drawn.to(like)


def kl_divergence(q: DiagonalGaussian, p: DiagonalGaussian) -> Float[Tensor, " n"]:
    """KL(q ‖ p) in nats, summed over dimensions.

    Each adds log(s_p/s_q) + (s_q² + (m_q − m_p)²) / (2 s_p²) − 1/2 (Kingma and Welling 2013,
    appendix B, where p is standard).
    """
    ratio = q.log_variance - p.log_variance
    distance = (q.mean - p.mean).square() * (-p.log_variance).exp()
    return 0.5 * (ratio.exp() - ratio - 1 + distance).sum(dim=-1)
