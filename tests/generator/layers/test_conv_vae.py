"""The convolutional VAE: the paper's sizes, and halves that fit together."""

from itertools import pairwise

import pytest
import torch

from generator.layers.conv_vae import ConvDecoder, ConvEncoder
from generator.models.icm_lora import CHANNELS


def test_the_released_architecture_has_7_5_million_parameters() -> None:
    """N = 1,933,312 and a condition of 768: 12 layers either way, and three kinds of linear."""
    length, latent, condition, codes = 1_933_312, 256, 768, 8 * 1_933_312 // 4096
    with torch.device("meta"):
        sizes = (CHANNELS, length, latent, condition)
        encoder, decoder = ConvEncoder(*sizes), ConvDecoder(*sizes)
    forward = [1, *CHANNELS]
    backward = [*reversed(CHANNELS), CHANNELS[0]]
    pairs = [*pairwise(forward), *pairwise(backward)]
    convolutions = sum(7 * a * b + b for a, b in pairs) + 7 * CHANNELS[0] + 1
    norms = sum(2 * b for _, b in pairs)
    linears = codes * latent + latent + 2 * (latent + condition + 1) * latent
    linears += (latent + condition + 1) * codes
    count = sum(p.numel() for half in (encoder, decoder) for p in half.parameters())
    assert count == convolutions + norms + linears
    assert count == pytest.approx(7.51e6, rel=1e-3)


@pytest.mark.parametrize("channels", [(4,), (3, 5, 2), (2, 4, 4, 2)])
def test_halves_fit_together_at_any_number_of_layers(channels: tuple[int, ...]) -> None:
    length = 3 * 2 ** len(channels)
    encoder, decoder = (half(channels, length, 6, 5) for half in (ConvEncoder, ConvDecoder))
    values, condition = torch.randn(2, length), torch.randn(2, 5)
    latent = encoder(values, condition)
    assert latent.mean.shape == latent.log_variance.shape == (2, 6)
    assert decoder(latent.mean, condition).shape == values.shape
