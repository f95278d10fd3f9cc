"""The sparse aggregator and the Gaussians, against their formulas and against draws."""

import math

import pytest
import tiny
import torch
from experts import random_experts, squared
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from generator.layers.aggregate import ExpertMixture, aggregate, nearest_first
from generator.layers.gaussian import DiagonalGaussian, kl_divergence, seeded_noise
from index.search.retriever import similarity_weights
from library.adapter import Adapter, zeros
from library.layout import layout_of

LAYOUT = layout_of(tiny.config("llama"), rank=2)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(temperature: float, k: int = 4, seed: int = 0) -> ExpertMixture:
    experts = random_experts(LAYOUT, 2, k, seed=seed)
    weights = similarity_weights(experts.similarities, temperature)
    return aggregate(experts.means, experts.variances, weights)


def assert_same(one: Adapter, other: Adapter) -> None:
    for x, y in zip(one.factors(), other.factors(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0.01, 10))
def test_weights_sum_to_one_and_follow_the_formula(cosines: list[float], tau: float) -> None:
    weights = similarity_weights(torch.tensor(cosines, dtype=torch.float64), tau)
    assert weights.sum().item() == pytest.approx(1)
    powers = [math.exp((c - max(cosines)) / tau) for c in cosines]
    assert weights.tolist() == pytest.approx([p / sum(powers) for p in powers])


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=4, max_size=60), st.integers(1, 4))
def test_the_k_nearest_come_first_and_of_equals_the_first(cosines: list[float], k: int) -> None:
    chosen = nearest_first(torch.tensor([cosines]), k)[0].tolist()
    assert chosen == sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))[:k]


def test_a_cold_softmax_takes_the_nearest_and_a_hot_one_all_alike() -> None:
    experts = random_experts(LAYOUT, 2)
    cold, hot = mixture(1e-6), mixture(1e9)
    for i in range(2):
        assert_same(cold.mean[[i]], experts.means[i][[0]])
        assert_same(cold.variance[[i]], experts.variances[i][[0]])
        soup = [f.mean(dim=0, keepdim=True) for f in experts.means[i].factors()]  # AdapterSoup
        for x, y in zip(hot.mean[[i]].factors(), soup, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-9)


def test_one_expert_has_its_own_mean_and_variance() -> None:
    experts, alone = random_experts(LAYOUT, 2, 1), mixture(0.05, k=1)
    for i in range(2):
        assert_same(alone.mean[[i]], experts.means[i])
        assert_same(alone.variance[[i]], experts.variances[i])


def test_the_variance_is_that_of_draws_from_the_mixture() -> None:
    """A component by its weight, then an entry from its Gaussian: 200,000 times."""
    experts, made = random_experts(LAYOUT, 1, 3), mixture(0.5, k=3, seed=0)
    experts = random_experts(LAYOUT, 2, 3)
    weights = similarity_weights(experts.similarities, 0.5)[0]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(weights, 200_000, replacement=True, generator=generator)
    for side in ("A", "B"):
        for key, mu in getattr(experts.means[0], side).items():
            sigma2 = getattr(experts.variances[0], side)[key]
            entries = mu.flatten(1)[:, :6], sigma2.flatten(1)[:, :6].sqrt()
            noise = torch.randn(200_000, 6, generator=generator, dtype=torch.float64)
            x = entries[0][drawn] + entries[1][drawn] * noise
            mean = getattr(made.mean, side)[key][0].flatten()[:6]
            variance = getattr(made.variance, side)[key][0].flatten()[:6]
            error = (variance / 200_000).sqrt()
            assert ((x.mean(dim=0) - mean).abs() < 5 * error).all()
            fourth = (x - x.mean(dim=0)).pow(4).mean(dim=0)  # the error of a sample variance
            error = ((fourth - variance.square()) / 200_000).sqrt()
            assert ((x.var(dim=0) - variance).abs() < 5 * error).all()


def test_experts_that_agree_leave_their_own_variance_alone() -> None:
    """Nothing is left over between equal means, however large they are."""
    one = tiny.adapter(LAYOUT, 1, dtype=torch.float64).scaled(1e6)
    means, own = one[[0, 0, 0]], squared(tiny.adapter(LAYOUT, 3, dtype=torch.float64))
    weights = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    still = zeros(LAYOUT, 3, dtype=torch.float64)
    for x in aggregate([means], [still], weights).variance.factors():
        assert x.abs().max() < 1e-12
    found = aggregate([means], [own], weights).variance
    for x, y in zip(found.factors(), own.factors(), strict=True):
        torch.testing.assert_close(x[0], torch.einsum("k,ksij->sij", weights[0], y))


def test_the_order_of_experts_does_not_matter_and_rows_do_not_see_each_other() -> None:
    experts = random_experts(LAYOUT, 2)
    weights = similarity_weights(experts.similarities)
    order = [2, 0, 3, 1]
    made = aggregate(experts.means, experts.variances, weights)
    turned = aggregate(
        [m[order] for m in experts.means], [v[order] for v in experts.variances], weights[:, order]
    )
    alone = aggregate(experts.means[1:], experts.variances[1:], weights[1:])
    assert_same(made.mean, turned.mean)
    assert_same(made.variance, turned.variance)
    assert_same(made.mean[[1]], alone.mean)


def gaussians(seed: int) -> DiagonalGaussian:
    return DiagonalGaussian(randn(3, 5, seed=seed), randn(3, 5, seed=seed + 10))


def test_kl_in_nats_is_torch_s_and_that_of_draws_and_zero_for_equals() -> None:
    q, p = gaussians(0), gaussians(1)
    normals = [Normal(g.mean, (0.5 * g.log_variance).exp()) for g in (q, p)]
    torch.testing.assert_close(kl_divergence(q, p), reference_kl(*normals).sum(dim=-1))
    x = q.at(randn(3, 5)[None].expand(1, 3, 5)[0])
    assert x.shape == (3, 5)
    draws = q.mean + (0.5 * q.log_variance).exp() * randn(100_000, 3, 5, seed=2)
    logs = [n.log_prob(draws).sum(dim=-1) for n in normals]
    ratio = logs[0] - logs[1]  # (draws, 3)
    error = ratio.std(dim=0) / 100_000**0.5
    assert ((ratio.mean(dim=0) - kl_divergence(q, p)).abs() < 5 * error).all()
    assert kl_divergence(q, q).tolist() == [0, 0, 0]


def test_noise_is_the_seed_s_whatever_the_batch() -> None:
    like = torch.zeros(3, 4, dtype=torch.float64)
    assert torch.equal(seeded_noise(7, 4, like), seeded_noise(7, 4, like[:1]))
    assert not torch.equal(seeded_noise(7, 4, like), seeded_noise(8, 4, like))
    gaussian = DiagonalGaussian(like, like)
    assert torch.equal(gaussian.at(seeded_noise(7, 4, like)), seeded_noise(7, 4, like).expand(3, 4))
