"""The two halves of a conditional variational autoencoder over long vectors, in 1-D convolutions.

The architecture is that of ICM-LoRA (arXiv 2501.17635), which took it from p-diff (arXiv
2402.13144). Every layer of the encoder halves the length and every one of the decoder doubles it,
so vectors are padded to a multiple of 2 to the number of layers. All that says where in the vector
something stands are the numbers between the halves: `channels[-1]` for each such multiple.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.gaussian import DiagonalGaussian

KERNEL = 7


class ConvEncoder(nn.Module):
    """A vector and its condition to mean and log-variance of a diagonal Gaussian.

    Each layer is a convolution of stride 2, batch norm and LeakyReLU; the condition joins behind.

    Args:
        channels: of each layer.
        length: of the vectors, a multiple of 2 to the number of layers.
        latent: dimensions of the Gaussian.
        condition: length of the condition.
    """

    def __init__(self, channels: Sequence[int], length: int, latent: int, condition: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([1, *channels], channels, strict=False):
            layers.append(nn.Conv1d(before, after, KERNEL, stride=2, padding=KERNEL // 2))
            layers += [nn.BatchNorm1d(after), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers)
        self.join = nn.Linear(channels[-1] * length // 2 ** len(channels), latent)
        self.mean = nn.Linear(latent + condition, latent)
        self.log_variance = nn.Linear(latent + condition, latent)

    def forward(
        self, values: Float[Tensor, "n length"], condition: Float[Tensor, "n d"]
    ) -> DiagonalGaussian:
        joined = self.join(self.layers(values[:, None]).flatten(1))  # from (n, channels, steps)
        state = torch.cat([joined, condition], dim=-1)
        return DiagonalGaussian(self.mean(state), self.log_variance(state))


class ConvDecoder(nn.Module):
    """A latent vector and its condition to a long vector.

    One linear layer, then transposed convolutions of stride 2 with batch norm and ELU through the
    encoder's channels backwards, one more without a change of channels, and a convolution to one
    channel. Arguments are the encoder's.
    """

    def __init__(self, channels: Sequence[int], length: int, latent: int, condition: int) -> None:
        super().__init__()
        down = list(reversed(channels))
        self.width = down[0]
        self.spread = nn.Linear(latent + condition, self.width * length // 2 ** len(channels))
        layers: list[nn.Module] = []
        for before, after in zip(down, [*down[1:], down[-1]], strict=True):
            transposed = nn.ConvTranspose1d(
                before, after, KERNEL, stride=2, padding=KERNEL // 2, output_padding=1
            )
            layers += [transposed, nn.BatchNorm1d(after), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv1d(down[-1], 1, KERNEL, padding=KERNEL // 2)

    def forward(
        self, z: Float[Tensor, "n latent"], condition: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n length"]:
        state = self.spread(torch.cat([z, condition], dim=-1))
        return self.out(self.layers(state.unflatten(1, (self.width, -1))))[:, 0]
