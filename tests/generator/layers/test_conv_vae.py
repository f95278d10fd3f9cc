"""The convolutional VAE: the paper's sizes, and its KL against its definition."""

from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal

from generator.layers.conv_vae import ConvDecoder, ConvEncoder, kl_to_standard
from generator.models.icm_lora import CHANNELS


def test_the_kl_is_what_it_is_by_definition() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    posterior = Normal(mean, (log_variance / 2).exp())
    draws = posterior.sample((200_000,))  # (draws, n, latent)
    ratio = posterior.log_prob(draws) - Normal(0.0, 1.0).log_prob(draws)
    estimate = ratio.sum(-1)  # (draws, n), in nats
    error = estimate.std(0) / len(draws) ** 0.5
    assert ((estimate.mean(0) - kl_to_standard(mean, log_variance)).abs() < 5 * error).all()
    assert torch.equal(kl_to_standard(torch.zeros(2, 4), torch.zeros(2, 4)), torch.zeros(2))


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
    mean, log_variance = encoder(values, condition)
    assert mean.shape == log_variance.shape == (2, 6)
    assert decoder(mean, condition).shape == values.shape
