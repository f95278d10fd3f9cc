"""Merges by name: PEFT as the oracle, changes of gauge, and what each method promises."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from differences import difference
from peft import PeftModel
from torch import Tensor

from index.merge.lora_rar import MergePredictor, MergePredictorConfig, Predictor
from index.merge.methods import METHODS, Mix, merge
from index.merge.ties_dare import dare, merge_entries
from library.adapter import Adapter
from library.errors import LayoutMismatch, UnknownName, UsageError
from library.factored import dense_to_rank
from library.layout import layout_of
from library.peft.write import to_peft

LAYOUT = layout_of(tiny.config("llama"), rank=3)
WEIGHTS = [0.7, 0.2, 0.4]
LOCAL = ("cat", "soup", "ties", "dare", "lego", "klora", "orthogonal")


def three(dtype: torch.dtype = torch.float32) -> list[Adapter]:
    return [tiny.adapter(LAYOUT, seed=seed, dtype=dtype) for seed in range(3)]


def mixed(method: str, adapters: list[Adapter], **settings: Any) -> Adapter:
    weights = None if method == "soup" else WEIGHTS
    return merge(method, Mix(adapters, weights, **settings)).adapter


def changed(adapter: Adapter, gauge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Adapter:
    pairs = {key: gauge(adapter.A[key], adapter.B[key]) for key in adapter.A}
    return Adapter(
        adapter.layout, {k: a for k, (a, _) in pairs.items()}, {k: b for k, (_, b) in pairs.items()}
    )


def any_basis(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    g = torch.randn(a.shape[-2], a.shape[-2], generator=generator, dtype=torch.float64).to(a.dtype)
    g = g + 2 * torch.eye(len(g), dtype=a.dtype)
    return torch.linalg.solve(g, a), b @ g


def permuted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.arange(a.shape[-2]).roll(1)
    return a[..., order, :], b[..., order]


def negated(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return -3 * a, -b / 3


def deficient(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Rank one less, with entries that are zero in whole rows."""
    a, b = a.clone(), b.clone()
    a[..., -1, :] = 2 * a[..., 0, :]
    b[..., ::3, :] = 0
    return a, b


def repeated(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """All singular values equal, and entries of equal size."""
    plain_a, plain_b = torch.zeros_like(a), torch.zeros_like(b)
    for rank in range(a.shape[-2]):
        plain_a[..., rank, rank::4] = 1
        plain_b[..., rank::4, rank] = 1 if rank % 2 else -1
    return plain_a, plain_b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["plain", "deficient", "repeated"])
@pytest.mark.parametrize("gauge", [any_basis, permuted, negated])
@pytest.mark.parametrize("method", ["cat", "ties", "dare", "klora", "orthogonal"])
def test_other_factors_of_the_same_adapters_give_the_same_merge(
    method: str, gauge: Any, kind: str, dtype: torch.dtype
) -> None:
    adapters = three(dtype)
    if kind != "plain":
        adapters[1:] = [
            changed(a, deficient if kind == "deficient" else repeated) for a in adapters[1:]
        ]
    # Above the rank at which what is cut off would be a part of equal singular values.
    ours = mixed(method, adapters, rank=16)
    theirs = mixed(method, [changed(adapter, gauge) for adapter in adapters], rank=16)
    assert difference(theirs, ours) < 1e-5


@pytest.mark.parametrize("gauge", [any_basis, permuted, negated])
@pytest.mark.parametrize("kind", ["plain", "deficient"])
def test_lego_does_not_see_the_factors_either(gauge: Any, kind: str) -> None:
    adapters = three(torch.float64)
    if kind == "deficient":
        adapters = [changed(adapter, deficient) for adapter in adapters]
    ours = mixed("lego", adapters, rank=4)
    assert difference(mixed("lego", [changed(a, gauge) for a in adapters], rank=4), ours) < 1e-5


@pytest.fixture
def peft_model(tmp_path: Path) -> Any:
    """Three adapters in PEFT's own model."""
    names = [f"a{i}" for i in range(3)]
    for name, adapter in zip(names, three(), strict=True):
        files = to_peft(adapter, base_name="tiny", profile="lossless")
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_bytes(files.config_bytes)
        (tmp_path / name / "adapter_model.safetensors").write_bytes(files.weights)
    base = tiny.model(tiny.config("llama"))
    model = PeftModel.from_pretrained(base, tmp_path / "a0", adapter_name="a0")
    for name in names[1:]:
        model.load_adapter(tmp_path / name, adapter_name=name)
    return model


@pytest.mark.parametrize(
    ("method", "theirs", "rank", "density"),
    [
        ("cat", "cat", None, None),
        ("cat", "svd", 4, None),
        ("ties", "ties_svd", 4, 0.3),
        ("dare", "dare_linear_svd", 4, 1.0),
    ],
)
@pytest.mark.filterwarnings("ignore:The density")
def test_peft_merges_alike(
    peft_model: Any, method: str, theirs: str, rank: int | None, density: float | None
) -> None:
    peft_model.add_weighted_adapter(
        ["a0", "a1", "a2"], WEIGHTS, "merged", combination_type=theirs,
        svd_rank=rank, density=density,
    )  # fmt: skip
    made = mixed(method, three(), rank=rank, density=density)
    for name, delta in tiny.deltas(made).items():
        module = peft_model.base_model.model.get_submodule(name)
        wanted = module.get_delta_weight("merged")
        assert float((delta - wanted).norm() / wanted.norm()) < 1e-5


def test_peft_linear_is_not_the_sum(peft_model: Any) -> None:
    peft_model.add_weighted_adapter(["a0", "a1", "a2"], WEIGHTS, "linear", "linear")
    for name, delta in tiny.deltas(mixed("cat", three())).items():
        module = peft_model.base_model.model.get_submodule(name)
        assert float((delta - module.get_delta_weight("linear")).norm() / delta.norm()) > 0.5


def test_dare_draws_entries_and_means_the_sum() -> None:
    adapters, rank = three(), 16
    wanted = tiny.deltas(mixed("cat", adapters))
    site = LAYOUT.sites[0]
    deltas = torch.stack([tiny.deltas(a)[site.name].double() for a in adapters])
    drawn = dare([1.0, 0.0, 0.0], 0.5, 3)(deltas, site)
    share = float((drawn != 0).double().mean())
    assert 0.45 < share < 0.55
    torch.testing.assert_close(drawn[drawn != 0], 2 * deltas[0][drawn != 0])
    made = [mixed("dare", adapters, rank=32, density=0.5, seed=seed) for seed in range(60)]
    for name, delta in wanted.items():
        mean = torch.stack([tiny.deltas(one)[name] for one in made]).mean(0)
        assert float((mean - delta).norm() / delta.norm()) < 3 / math.sqrt(60)
    assert difference(made[0], made[1]) > 0.1
    again = mixed("dare", adapters, rank=32, density=0.5, seed=0)
    assert difference(again, made[0]) == 0.0
    assert merge_entries(adapters, dare(WEIGHTS, 0.5, 0), rank).layout.rank == rank


def test_ties_resolves_a_conflict_by_the_larger_sum() -> None:
    one, other = three()[:2]
    against = one.scaled(-0.5)
    made = merge("ties", Mix([one, against], [1.0, 1.0], density=1.0)).adapter
    assert difference(made, one) < 1e-5  # the smaller side is dropped, not subtracted
    alone = merge("ties", Mix([other], [1.0], density=1.0)).adapter
    assert difference(alone, other) < 1e-5


def test_klora_takes_each_module_whole_from_one_adapter() -> None:
    adapters = three()
    made, chosen = tiny.deltas(mixed("klora", adapters)), []
    for name, delta in made.items():
        same = [torch.allclose(delta, tiny.deltas(a)[name], atol=1e-6) for a in adapters]
        assert sum(same) == 1
        chosen.append(same.index(True))
    only = merge("klora", Mix(adapters, [0.0, 1.0, 0.0])).adapter
    assert difference(only, adapters[1]) < 1e-6
    larger = [adapters[0].scaled(100.0), *adapters[1:]]  # balanced: size alone wins nothing
    for name, delta in tiny.deltas(mixed("klora", larger)).items():
        number = chosen[list(made).index(name)]
        torch.testing.assert_close(delta, tiny.deltas(larger[number])[name])


def test_orthogonal_counts_what_is_common_less_than_twice() -> None:
    one, other, _ = three()
    alone = merge("orthogonal", Mix([one], [0.7])).adapter
    assert difference(alone, one.scaled(0.7)) < 1e-5
    twice = merge("orthogonal", Mix([one, one], [1.0, 1.0])).adapter
    assert difference(twice, one.scaled(math.sqrt(2))) < 1e-5
    made = tiny.deltas(merge("orthogonal", Mix([one, other], [1.0, 1.0])).adapter)
    swapped = merge("orthogonal", Mix([other, one], [1.0, 1.0])).adapter
    for name, delta in made.items():
        norms = [float(tiny.deltas(a)[name].norm()) for a in (one, other)]
        assert float(delta.norm()) == pytest.approx(math.hypot(*norms), rel=1e-5)
        torch.testing.assert_close(delta, tiny.deltas(swapped)[name], atol=1e-5, rtol=1e-4)


def test_lego_of_one_adapter_or_of_copies_is_the_adapter() -> None:
    one = three()[0]
    for adapters in ([one], [one, one], [one, one, one]):
        made = merge("lego", Mix(adapters, None)).adapter
        assert made.layout.rank == LAYOUT.rank and difference(made, one) < 1e-5
    fewer = merge("lego", Mix(three(), None, rank=2)).adapter
    assert {torch.linalg.matrix_rank(d).item() for d in tiny.deltas(fewer).values()} == {2}


@pytest.mark.parametrize("method", ["lego", "klora"])
def test_ranks_that_hold_nothing_count_for_nothing(method: str) -> None:
    adapters = three()
    padded = [adapter.with_rank(LAYOUT.rank + 4) for adapter in adapters]
    ours, theirs = (merge(method, Mix(those, None, rank=4)).adapter for those in (adapters, padded))
    assert difference(theirs, ours) < 1e-5


def test_more_clusters_than_units_change_nothing() -> None:
    one = three()[0]
    made = merge("lego", Mix([one], None, rank=4 * LAYOUT.rank)).adapter
    assert difference(made, one) < 1e-5


def test_orthogonal_takes_rounding_for_no_direction() -> None:
    one = three()[0]
    rounded = one.to(dtype=torch.bfloat16).to(dtype=torch.float32)
    made = merge("orthogonal", Mix([one, rounded], [1.0, 1.0])).adapter
    assert difference(made, one.scaled(math.sqrt(2))) < 1e-2


@pytest.mark.parametrize("side", [96, 576])  # by SVD, and by random projection
def test_no_bytes_depend_on_the_number_of_threads(side: int) -> None:
    sparse = torch.randn(side, side, generator=torch.Generator().manual_seed(0)).double()
    sparse[::3], sparse[:, ::5] = 0, 0
    low = sparse @ torch.diag((torch.arange(side) < 6).double()) @ sparse
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(dense_to_rank(low, 8))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(one, two) for one, two in zip(made[0], other, strict=True))


def test_soup_is_the_mean() -> None:
    made = merge("soup", Mix(three()))
    assert made.weights == [1 / 3] * 3
    mean = merge("cat", Mix(three(), [1 / 3] * 3)).adapter
    assert difference(made.adapter, mean) == 0.0


@pytest.mark.parametrize("method", LOCAL)
def test_ranks_may_differ_and_the_asked_rank_comes_out(method: str) -> None:
    adapters = [
        tiny.adapter(tiny.with_ranks(LAYOUT, r), seed=i) for i, r in enumerate([[1, 4], [3], [2]])
    ]
    assert mixed(method, adapters, rank=5).layout == LAYOUT.with_rank(5)
    free = mixed(method, adapters)
    exact = method in ("cat", "soup", "orthogonal")
    assert free.layout.rank == (9 if exact else 4)
    first, again = mixed(method, adapters, rank=2), mixed(method, adapters, rank=2)
    assert all(torch.equal(x, y) for x, y in zip(first.factors(), again.factors(), strict=True))


def test_a_pair_is_merged_by_the_mean_until_the_network_has_learnt() -> None:
    one, other, third = three()
    network = MergePredictor(MergePredictorConfig(8)).double()
    mix = Mix([one, other], predictor=Predictor(network, ""))
    mean = merge("soup", Mix([one, other])).adapter
    assert difference(merge("lora-rar", mix).adapter, mean) < 1e-6
    tiny.randomise(network)
    made = merge("lora-rar", mix)
    assert made.weights is None and difference(made.adapter, mean) > 0.01
    swapped = merge("lora-rar", Mix([other, one], predictor=mix.predictor)).adapter
    assert difference(swapped, made.adapter) < 1e-6
    for gauge in (any_basis, permuted, negated):
        pair = [changed(one.to(dtype=torch.float64), gauge), other]
        assert (
            difference(merge("lora-rar", Mix(pair, predictor=mix.predictor)).adapter, made.adapter)
            < 1e-5
        )
    with pytest.raises(UsageError, match="merges two adapters, not 3"):
        merge("lora-rar", Mix([one, other, third], predictor=mix.predictor))


def test_what_does_not_suit_is_said() -> None:
    one, other, _ = three()
    wider = tiny.adapter(layout_of(tiny.config("llama", hidden_size=64), rank=3))
    for method in (m for m in METHODS if m not in ("lora-rar", "lorahub")):
        with pytest.raises(LayoutMismatch, match="cannot be in one layout"):
            merge(method, Mix([one, wider]))
    with pytest.raises(UnknownName, match="known: cat, soup, ties"):
        merge("blend", Mix([one]))
    for method, settings, message in (
        ("soup", {"weights": [1.0, 1.0]}, "takes no weights"),
        ("cat", {"density": 0.5}, "takes no density"),
        ("ties", {"density": 0.0}, "density must be"),
        ("klora", {"weights": [1.0, -1.0]}, "negative"),
        ("lego", {"weights": [1.0, 0.0]}, "above zero"),
        ("lorahub", {}, "needs examples"),
        ("lora-rar", {}, "needs a predictor"),
    ):
        with pytest.raises(UsageError, match=message):
            merge(method, Mix([one, other], **settings))
