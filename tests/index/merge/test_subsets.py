"""Merges of adapters with other ranks by module, fewer layers and other modules.

Each method is held to arithmetic on dense ΔW in float64, in which a module that an adapter lacks
is a matrix of zeros.
"""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from index.merge.lora_rar import MergePredictor, MergePredictorConfig, Predictor
from index.merge.methods import DARE_DENSITY, METHODS, Mix, merge
from index.merge.ties_dare import dare
from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter, of_all_modules, stack_padded, summed, zeros
from library.errors import LayoutMismatch
from library.layout import Layout, layout_of

FULL = layout_of(tiny.config("llama"), rank=3)
FIRST = FULL.with_ranks({name: 4 for name in FULL.ranks if ".layers.0." in name})
OTHERS = layout_of(tiny.config("llama"), ["k_proj", "o_proj", "gate_proj", "down_proj"], rank=2)
BY_SITE = tiny.with_ranks(FULL, [1, 3, 4, 2])
PAIRS = {"layers": (FULL, FIRST), "modules": (FULL, OTHERS), "ranks": (FULL, BY_SITE),
         "part first": (FIRST, FULL), "disjoint": (FIRST, OTHERS)}  # fmt: skip
WEIGHTS = [0.7, 0.4]

Deltas = dict[str, Tensor]


def pair_of(kind: str) -> list[Adapter]:
    return [
        tiny.adapter(layout, seed=i, dtype=torch.float64) for i, layout in enumerate(PAIRS[kind])
    ]


def dense(adapters: list[Adapter]) -> dict[str, Tensor]:
    """ΔW of every module that any has, [adapters, out, in]; zeros where one lacks it."""
    of_each = [tiny.deltas(adapter) for adapter in adapters]
    like = {name: delta for deltas in of_each for name, delta in deltas.items()}
    return {
        name: torch.stack([deltas.get(name, torch.zeros_like(delta)) for deltas in of_each])
        for name, delta in like.items()
    }


def weighted(deltas: Tensor, weights: list[float]) -> Tensor:
    return (torch.tensor(weights, dtype=torch.float64)[:, None, None] * deltas).sum(0)


def ties_of(deltas: Tensor, density: float) -> Tensor:
    kept = torch.zeros_like(deltas)
    for row, delta in enumerate(deltas):
        flat = delta.abs().flatten()
        count = max(1, int(density * len(flat)))
        kept[row] = torch.where(
            delta.abs() >= flat.sort(descending=True).values[count - 1], delta, 0
        )
    sign = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
    agrees = (kept.sign() == sign).double()
    mean = torch.tensor(WEIGHTS, dtype=torch.float64)[:, None, None] * kept * agrees
    return mean.sum(0) / agrees.sum(0).clamp_min(1)


def orthogonalised(deltas: Tensor) -> Tensor:
    """Σ w·‖ΔW‖·O by the polar factor of the ΔW of length one, those that are zero left out."""
    lengths = deltas.flatten(1).norm(dim=1)
    there = lengths > 0
    unit = deltas[there].flatten(1) / lengths[there][:, None]
    u, _, vh = torch.linalg.svd(unit, full_matrices=False)
    factors = (torch.tensor(WEIGHTS, dtype=torch.float64) * lengths)[there]
    return (factors @ (u @ vh)).reshape(deltas.shape[1:])


def losses(trials: Tensor) -> Tensor:
    """Least where the weights are 0.9 and −0.3."""
    return (trials - torch.tensor([0.9, -0.3], dtype=trials.dtype)).square().sum(1)


def predictor() -> Predictor:
    module = MergePredictor(MergePredictorConfig(8)).double()
    tiny.randomise(module)
    return Predictor(module, "digest")


def merged(method: str, adapters: list[Adapter], **options: Any) -> Any:
    takes = METHODS[method]
    return merge(
        method,
        Mix(
            adapters,
            WEIGHTS if takes.weights else None,
            predictor=predictor() if takes.predictor else None,
            losses=losses if takes.examples else None,
            **options,
        ),
    )


def close(made: Adapter, wanted: dict[str, Tensor]) -> None:
    found = tiny.deltas(made.to(dtype=torch.float64))
    assert found.keys() == wanted.keys()
    for name, delta in wanted.items():
        assert float((found[name] - delta).norm()) <= 1e-5 * float(delta.norm()) + 1e-9, name


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_that_of_the_dense_updates(method: str, kind: str) -> None:
    adapters = pair_of(kind)
    deltas = dense(adapters)
    rank = 32 if METHODS[method].dense else None  # at which entry by entry loses nothing
    result = merged(method, adapters, rank=rank)
    wanted: Deltas = {}
    for name, stacked in deltas.items():
        if method in ("cat", "soup", "lorahub"):
            wanted[name] = weighted(stacked, result.weights)
        elif method == "ties":
            wanted[name] = ties_of(stacked, 0.2)
        elif method == "dare":
            site = next(s for a in adapters for s in a.layout.sites if s.name == name)
            wanted[name] = dare(WEIGHTS, DARE_DENSITY, 0)(stacked, site)
        elif method == "orthogonal":
            wanted[name] = orthogonalised(stacked)
        elif method == "klora":
            ours = tiny.deltas(result.adapter)[name].double()
            errors = (stacked - ours).flatten(1).norm(dim=1)
            winner = int(errors.argmin())
            assert bool(stacked[winner].any())
            wanted[name] = stacked[winner]
    if wanted:
        close(result.adapter, wanted)
    # What is not there is the same as what is zero; lego and lora-rar have no shorter definition.
    padded = [a.expanded(wider) for a, wider in zip(adapters, wider_than(adapters), strict=True)]
    close(
        result.adapter,
        tiny.deltas(merged(method, padded, rank=rank).adapter.to(dtype=torch.float64)),
    )


def wider_than(adapters: list[Adapter]) -> list[Layout]:
    """For each the modules of all, one that it lacks at rank 2."""
    layouts = [each.layout for each in of_all_modules(adapters)]
    return [
        wide.with_ranks({n: own.layout.ranks.get(n, 2) for n in wide.ranks})
        for wide, own in zip(layouts, adapters, strict=True)
    ]


@pytest.mark.parametrize("kind", PAIRS)
def test_a_sum_has_no_more_rank_than_its_parts(kind: str) -> None:
    adapters = pair_of(kind)
    ranks = [adapter.layout.ranks for adapter in adapters]
    made = weighted_sum(adapters, WEIGHTS)
    names = dict.fromkeys(name for own in ranks for name in own)
    assert made.layout.ranks == {n: sum(own.get(n, 0) for own in ranks) for n in names}
    assert list(made.layout.ranks) == list(names)
    assert made.layout == summed(*adapters).layout
    close(made, tiny.deltas(summed(adapters[0].scaled(0.7), adapters[1].scaled(0.4))))


@given(
    own=st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any),
    more=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
def test_expanding_changes_no_delta(own: list[int], more: list[int], order: list[int]) -> None:
    names = list(FULL.ranks)
    adapter = tiny.adapter(FULL.with_ranks({n: r for n, r in zip(names, own, strict=True) if r}), 2)
    wide = FULL.with_ranks({n: max(1, a + b) for n, a, b in zip(names, own, more, strict=True)})
    wide = Layout(wide.model_type, wide.depth, tuple(wide.sites[i] for i in order))
    made = adapter.expanded(wide)
    assert made.layout == wide
    for row in range(2):
        before = tiny.deltas(adapter, row)
        for name, delta in tiny.deltas(made, row).items():
            torch.testing.assert_close(delta, before.get(name, torch.zeros_like(delta)))


def test_nothing_is_expanded_into_less() -> None:
    wide = layout_of(tiny.config("llama", hidden_size=64))
    for less in (FIRST, OTHERS, FULL.with_rank(2), wide):
        with pytest.raises(LayoutMismatch, match="layout"):
            tiny.adapter(FULL).expanded(less)
    gpt = tiny.adapter(layout_of(tiny.config("gpt2")))
    with pytest.raises(LayoutMismatch, match="cannot be in one layout of"):
        weighted_sum([tiny.adapter(FULL), gpt], WEIGHTS)


def test_a_stack_has_the_modules_of_all() -> None:
    adapters = [tiny.adapter(layout, seed=i) for i, layout in enumerate((FIRST, OTHERS, BY_SITE))]
    stacked = stack_padded([*adapters, zeros(FULL)])
    assert stacked.layout.ranks == dict.fromkeys({**FIRST.ranks, **OTHERS.ranks, **FULL.ranks}, 4)
    for row, adapter in enumerate(adapters):
        before = tiny.deltas(adapter)
        for name, delta in tiny.deltas(stacked, row).items():
            torch.testing.assert_close(delta, before.get(name, torch.zeros_like(delta)))
