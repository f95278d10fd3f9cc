"""From scores to shares: properties of every way of taking."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from index.gate.systems import SYSTEMS, System
from index.gate.takes import taken, top_p, tsallis_entropy

WAYS = {system.takes: system for system in SYSTEMS.values()}


def drawn(system: System, seed: int, n: int, spread: float) -> Tensor:
    rows = n + (system.takes == "threshold")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, rows, generator=generator, dtype=torch.float64) * spread


@pytest.mark.parametrize("takes", WAYS)
@given(seed=st.integers(0, 99), n=st.integers(1, 7), spread=st.floats(0, 9), data=st.data())
def test_shares_are_of_those_that_may_act_and_sum_to_one(
    takes: str, seed: int, n: int, spread: float, data: st.DataObject
) -> None:
    system, prior = WAYS[takes], torch.zeros(4, n, dtype=torch.float64)
    out = torch.tensor([[data.draw(st.booleans()) for _ in range(n)] for _ in range(4)])
    scores = drawn(system, seed, n, spread)
    p, shares = taken(system, scores, prior.masked_fill(out, -torch.inf))
    assert (shares >= 0).all() and not shares[out].any() and not p[out].any()
    some = ~out.all(-1)
    torch.testing.assert_close(shares.sum(-1), some.double())
    assert (shares.argmax(-1) == p.argmax(-1))[some].all()  # the likeliest is always taken
    active = (shares > 0).sum(-1)
    most = {"top-1": 1, "top-k": system.k}.get(takes, n)
    assert (active <= most).all()


def test_the_hybrid_takes_all_only_where_it_is_unsure() -> None:
    system, even = WAYS["tsallis"], torch.zeros(1, 6)
    sure = torch.tensor([[9.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    assert (taken(system, even, even)[1] > 0).sum() == 6
    assert (taken(system, sure, even)[1] > 0).sum() == 2  # never fewer
    p = torch.tensor([[0.25, 0.75]])
    assert tsallis_entropy(p).item() == pytest.approx((1 - 0.25**1.1 - 0.75**1.1) / 0.1, rel=1e-5)


def test_a_learnt_threshold_drops_what_is_below_it() -> None:
    scores = torch.tensor([0.5, 0.3, 0.2]).log()
    for threshold, active in ((-20.0, 3), (20.0, 1), (0.8, 2)):
        all_scores = torch.cat([scores, torch.tensor([threshold])])[None]
        _, shares = taken(WAYS["threshold"], all_scores, torch.zeros(1, 3))
        assert (shares > 0).sum() == active


def test_the_best_alone_has_a_whole_share_and_the_softmax_s_gradient() -> None:
    scores = torch.tensor([[0.1, 0.7, -0.4]], dtype=torch.float64, requires_grad=True)
    p, shares = taken(WAYS["top-1"], scores, torch.zeros(1, 3, dtype=torch.float64))
    assert shares.tolist() == [[0.0, 1.0, 0.0]]
    mine, softmax = (
        torch.autograd.grad(x[0, 1], scores, retain_graph=True)[0] for x in (shares, p)
    )
    assert torch.equal(mine, softmax) and softmax.abs().min() > 0


@given(st.integers(0, 99), st.floats(0.05, 1))
def test_top_p_takes_the_fewest(seed: int, share: float) -> None:
    p = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)).double().softmax(-1)
    mask = top_p(p, share)
    sums, least = (p * mask).sum(-1), p.masked_fill(~mask, 2).amin(-1)
    assert (sums > share - 1e-9).all() and (sums - least < share + 1e-9).all()
    assert (p.masked_fill(mask, 0).amax(-1) <= least).all()


def test_every_choice_of_the_gate_is_used_by_a_system() -> None:
    for field, options in {
        "reads": {"token", "prompt", "first-pass"},
        "among": {"adapters", "shared-a", "ranks"},
        "takes": {"softmax", "top-1", "top-k", "threshold", "tsallis"},
        "balances": {"nothing", "load", "tsallis", "specialisation"},
        "scores": {"learnt", "arrow", "spectr", "lag"},
    }.items():
        assert {getattr(system, field) for system in SYSTEMS.values()} == options
    plain = {replace(system, paper="") for system in SYSTEMS.values()}
    assert len(plain) == len(SYSTEMS)  # no two systems are one
