"""How a phase enters a descriptor: sinusoidal features of t through a linear map from zero."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

FREQUENCIES = 6


def phase_features(t: Float[Tensor, "n"]) -> Float[Tensor, "n _"]:
    """Sines, then cosines, of π/2·2^j·t for j below `FREQUENCIES`; t runs from 0 to 1.

    The slowest pair tells all phases apart, the fastest has a period of 1/8.
    """
    speeds = torch.pi / 2 * 2.0 ** torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype)
    angles = t[:, None] * speeds  # (n, frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PhaseEncoder(nn.Module):
    """What a phase adds to a descriptor of `width` numbers: nothing before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * FREQUENCIES, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n width"]:
        return self.linear(phase_features(t.to(self.linear.weight)))
