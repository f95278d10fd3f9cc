"""SG-LoRA: μ* at the start, rows independent, a learned prior, draws by the seed."""

from dataclasses import replace

import pytest
import tiny
import torch
from experts import near_one_start, random_experts, rows_of

from generator.layers.gaussian import kl_divergence
from generator.models.base import Condition, Experts
from generator.models.sg_lora import SGLoRA, SGLoRAConfig
from index.search.retriever import similarity_weights
from library.adapter import Adapter, zeros
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout, layout_of
from training.objectives.reconstruction import squared_error

LLAMA = layout_of(tiny.config("llama"), rank=2)
LAYOUTS = [LLAMA, tiny.with_ranks(layout_of(tiny.config("phi3"), rank=3), [3, 1])]


def made(layout: Layout = LLAMA, *, prepared: bool = True, **config: object) -> SGLoRA:
    torch.manual_seed(0)
    settings = {"latent": 4, "hidden": 12, "code": 3, **config}
    module = SGLoRA(SGLoRAConfig(**settings), layout).double().eval()  # type: ignore[arg-type]
    if prepared:
        module.prepare(near_one_start(layout, 9, seed=50))
    return module


def random_one(layout: Layout = LLAMA, **config: object) -> SGLoRA:
    module = made(layout, **config)
    tiny.randomise(module)
    return module


def assert_same(one: Adapter, other: Adapter) -> None:
    for x, y in zip(one.factors(), other.factors(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def differ(one: Adapter, other: Adapter) -> bool:
    """Whether every factor of one differs from the other's."""
    pairs = zip(one.factors(), other.factors(), strict=True)
    return all(not torch.allclose(x, y, rtol=1e-3) for x, y in pairs)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.model_type)
@pytest.mark.parametrize("seed", [0, 5])
def test_untrained_it_gives_the_weighted_mean_of_the_experts(layout: Layout, seed: int) -> None:
    experts = random_experts(layout, 3)
    adapter = made(layout)(Condition(experts=experts, seed=seed))
    assert adapter.layout == layout and len(adapter) == 3
    weights = similarity_weights(experts.similarities)
    for i, means in enumerate(experts.means):
        for x, mu in zip(adapter[[i]].factors(), means.factors(), strict=True):
            torch.testing.assert_close(x[0], torch.einsum("k,ksij->sij", weights[i], mu))


def test_faithful_it_is_the_decoder_alone() -> None:
    """Nothing of μ* is left once the decoder does not read it: only training's mean is."""
    module = random_one(residual=False)
    for decoder in module.decoders.values():
        torch.nn.init.zeros_(decoder.last.weight)  # type: ignore[union-attr,arg-type]
        torch.nn.init.zeros_(decoder.last.bias)  # type: ignore[union-attr,arg-type]
    adapter = module(Condition(experts=random_experts(LLAMA, 2)))
    training = near_one_start(LLAMA, 9, seed=50)
    for x, y in zip(adapter.factors(), training.factors(), strict=True):
        torch.testing.assert_close(x[0], y.mean(dim=0))
        torch.testing.assert_close(x[0], x[1])


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.model_type)
def test_rows_do_not_see_each_other_and_padded_ranks_are_zero(
    layout: Layout, residual: bool
) -> None:
    module, experts = random_one(layout, residual=residual), random_experts(layout, 3)
    for seed in (0, 3):
        together = module(Condition(experts=experts, seed=seed))
        for i in range(3):
            alone = module(Condition(experts=rows_of(experts, [i]), seed=seed))
            assert_same(together[[i]], alone)
    for group in layout.groups:
        for position, site in enumerate(group.sites):
            a, b = together.A[group.key][:, position], together.B[group.key][:, position]
            assert not a[:, site.rank :].any() and not b[:, :, site.rank :].any()
            assert a[:, : site.rank].all() and b[:, :, : site.rank].all()


@pytest.mark.parametrize("residual", [True, False])
def test_mean_variance_and_latent_all_count(residual: bool) -> None:
    module, experts = random_one(residual=residual), random_experts(LLAMA, 1)
    plain = module(Condition(experts=experts))
    still = [zeros(LLAMA, 4, dtype=torch.float64)]
    assert differ(plain, module(Condition(experts=replace(experts, variances=still))))
    other = replace(experts, similarities=experts.similarities.flip(1))
    assert differ(plain, module(Condition(experts=other)))
    mixture = module.mixture(Condition(experts=experts))
    prior = module.prior(mixture)
    assert_same(plain, module.decode(mixture, prior.mean))  # seed 0 is the prior's mean
    assert differ(plain, module.decode(mixture, prior.mean + 1))


def test_a_seed_draws_from_the_learned_prior() -> None:
    module, experts = random_one(), random_experts(LLAMA, 1)
    condition = Condition(experts=experts, seed=3)
    assert_same(module(condition), module(condition))
    assert differ(module(condition), module(replace(condition, seed=4)))
    assert differ(module(condition), module(replace(condition, seed=0)))
    mixture = module.mixture(condition)
    prior = module.prior(mixture)
    narrow = replace(prior, log_variance=torch.full_like(prior.mean, -60.0))
    assert_same(module(replace(condition, seed=0)), module.decode(mixture, narrow.at(prior.mean)))


@pytest.mark.parametrize("residual", [True, False])
def test_what_all_training_adapters_share_is_kept_as_it_is(residual: bool) -> None:
    adapters = near_one_start(LLAMA, 2, seed=50).to("cpu", torch.float32)
    for a in adapters.A.values():
        a.copy_(a[:1].clone())  # a frozen A
    module = made(prepared=False, residual=residual).float()
    module.prepare(adapters)
    tiny.randomise(module)
    near = adapters[[0, 1, 0, 1]]
    experts = Experts([near], [zeros(LLAMA, 4)], torch.tensor([[0.9, 0.8, 0.7, 0.6]]))
    made_one, terms = module.posterior(Condition(experts=experts), adapters[[0]])
    assert terms["kl"].isfinite()
    for key, a in made_one.A.items():
        torch.testing.assert_close(a, adapters.A[key][:1], rtol=1e-5, atol=1e-7)
        assert not torch.allclose(made_one.B[key], adapters.B[key][:1], rtol=1e-2)


def test_the_posterior_reads_the_target_and_tells_its_kl() -> None:
    module, experts = random_one().train(), random_experts(LLAMA, 3)
    condition, target = Condition(experts=experts), near_one_start(LLAMA, 3, seed=80)
    torch.manual_seed(1)
    adapter, terms = module.posterior(condition, target)
    assert list(terms) == ["kl"] and terms["kl"] > 0
    torch.manual_seed(1)
    again, same = module.posterior(condition, target)
    assert_same(adapter, again)
    assert same["kl"] == terms["kl"]
    torch.manual_seed(1)
    other, _ = module.posterior(condition, near_one_start(LLAMA, 3, seed=90))
    assert differ(adapter, other)
    assert differ(other, module.posterior(condition, near_one_start(LLAMA, 3, seed=90))[0])
    module.eval()  # where nothing is drawn
    assert_same(*(module.posterior(condition, target)[0] for _ in range(2)))
    # Encoders that say what the priors say cost nothing.
    mixture = module.mixture(condition)
    assert kl_divergence(module.prior(mixture), module.prior(mixture)).sum() == 0


@pytest.mark.parametrize("residual", [True, False])
def test_training_reaches_every_parameter_and_gets_closer(residual: bool) -> None:
    module, experts = made(residual=residual), random_experts(LLAMA, 4)
    condition, target = Condition(experts=experts), near_one_start(LLAMA, 4, seed=50)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        adapter, terms = module.posterior(condition, target)
        loss = squared_error(adapter, target) + terms["kl"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert losses[-1] < 0.5 * losses[0]


def test_inputs_are_measured_in_deviations_of_the_training_adapters() -> None:
    """So the units of A and B do not matter: a library in others gives adapters in others."""
    module, experts = random_one(), random_experts(LLAMA, 2)
    plain = module(Condition(experts=experts))
    scaled = random_one(prepared=False)
    scaled.prepare(near_one_start(LLAMA, 9, seed=50).scaled(100.0))
    means = [m.scaled(100.0) for m in experts.means]
    variances = [v.scaled(1e4) for v in experts.variances]
    inflated = scaled(Condition(experts=Experts(means, variances, experts.similarities)))
    assert_same(plain.scaled(100.0), inflated)


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(UsageError, match="needs experts"):
        made()(Condition())
    foreign = [tiny.adapter(LLAMA, 4, seed=7, dtype=torch.float64)]
    experts = replace(random_experts(LLAMA, 1), means=foreign)
    with pytest.raises(LayoutMismatch, match="not trained from the A"):
        made()(Condition(experts=experts))
    for wrong in (
        {"latent": 0},
        {"hidden": -1},
        {"top_k": 0},
        {"temperature": 0.0},
        {"floor": 2.0},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            SGLoRAConfig(**wrong)  # type: ignore[arg-type]
