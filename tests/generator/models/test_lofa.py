"""LoFA: zero at the start, trainable everywhere, each module by its own weights and description."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions, row
from torch.nn.functional import softplus
from weights import LAYOUT, base_of

from generator.layers.lofa_config import LoFAConfig, ResponseMapsConfig
from generator.layers.response_maps import ResponseMaps
from generator.models.base import Condition
from generator.models.lofa import LoFA
from index.encoders.descriptions import Embeddings
from library.adapter import Adapter, stack
from library.base.models import load_config, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import LayoutMismatch, UsageError
from library.factored import squared_delta_distance
from library.layout import Layout, layout_of

TRUNK = {"embedding_dim": WIDTH, "words_dim": WORDS, "width": 16, "blocks": 2, "heads": 2}
BASE = base_of(LAYOUT)


def made(features: bool = True, layout: Layout = LAYOUT, **more: Any) -> LoFA:
    torch.manual_seed(0)
    return LoFA(LoFAConfig(**{**TRUNK, **more}, features=features), layout).double().eval()


def random_one(features: bool = True) -> LoFA:
    module = made(features)
    tiny.randomise(module)
    return module


def generated(module: LoFA, text: Embeddings, base: torch.nn.Module = BASE) -> Adapter:
    with torch.no_grad():
        return module(Condition(text=text, base=base))


def same(one: Adapter, other: Adapter) -> list[bool]:
    """For each site of the layout, whether its factors are equal up to rounding."""
    close = torch.allclose
    pairs = [(one.site(site), other.site(site)) for site in LAYOUT.sites]
    return [close(a, c, atol=1e-9) and close(b, d, atol=1e-9) for (a, b), (c, d) in pairs]


@pytest.mark.parametrize("features", [True, False])
def test_the_start_changes_nothing_and_a_is_ready_to_learn(features: bool) -> None:
    adapter = generated(made(features), descriptions([3, 5]))
    assert adapter.layout == LAYOUT and len(adapter) == 2
    for group in LAYOUT.groups:
        for place, site in enumerate(group.sites):
            a, b = adapter.A[group.key][:, place], adapter.B[group.key][:, place]
            assert not b.any() and a[:, : site.rank].all()
            assert not a[:, site.rank :].any()  # nor are there ranks beyond a site's own


@pytest.mark.parametrize("features", [True, False])
def test_training_from_the_zero_start_reaches_every_parameter_but_stage_1(features: bool) -> None:
    module, embedded = made(features), descriptions([3, 5])
    target = tiny.adapter(LAYOUT, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    before = {name: p.clone() for name, p in module.named_parameters()}
    losses = []
    for _ in range(12):
        adapter = module(Condition(text=embedded, base=BASE))
        distances = [
            squared_delta_distance(adapter.A[k], adapter.B[k], target.A[k], target.B[k]).sum()
            for k in adapter.A
        ]
        loss = torch.stack(distances).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == ({"stage1", "tokens"} if features else set())
    for name, parameter in module.named_parameters():
        if name in frozen:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name
            continue
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("features", [True, False])
def test_a_batch_is_its_rows_one_by_one_and_padding_does_not_matter(features: bool) -> None:
    module, embedded = random_one(features), descriptions([3, 1, 7])
    together = generated(module, embedded)
    for i in range(3):
        alone = generated(module, row(embedded, i))
        for key in together.A:
            torch.testing.assert_close(together.A[key][[i]], alone.A[key], atol=1e-11, rtol=1e-11)
            torch.testing.assert_close(together.B[key][[i]], alone.B[key], atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("features", [True, False])
def test_every_part_of_a_description_matters_in_every_module(features: bool) -> None:
    module, embedded = random_one(features), descriptions([4, 4])
    adapter = generated(module, embedded)
    for part in ("tokens", "words"):
        turned = replace(embedded, **{part: vars(embedded)[part].flip(0)})
        assert not any(same(adapter, generated(module, turned)))
    assert not any(same(adapter[[0]], adapter[[1]]))
    other = replace(embedded, pooled=embedded.pooled.flip(0))
    assert all(same(adapter, generated(module, other)))  # it reads tokens only


def test_a_module_is_made_from_its_own_weights_and_no_others() -> None:
    module, embedded = random_one(), descriptions([4])
    adapter = generated(module, embedded)
    for number, site in enumerate(LAYOUT.sites):
        base = base_of(LAYOUT)
        base.get_submodule(site.name).get_parameter("weight")[0, 0] += 3.0
        found = same(adapter, generated(module, embedded, base))
        assert found == [i != number for i in range(len(LAYOUT.sites))]


def test_the_order_of_modules_is_only_an_order() -> None:
    """With modules listed in another order, and what belongs to each, the same adapter comes."""
    order = [4, 1, 0, 3, 2]
    turned = replace(LAYOUT, sites=tuple(LAYOUT.sites[i] for i in order))
    assert [g.key for g in turned.groups] == [g.key for g in LAYOUT.groups]
    module, other, embedded = random_one(), made(layout=turned), descriptions([4, 2])
    state = module.state_dict()
    for group in LAYOUT.groups:
        to = next(g for g in turned.groups if g.key == group.key)
        places = [group.sites.index(site) for site in to.sites]
        for name in ("start_a", "start_b"):
            key = f"heads.{group.key}.{name}"
            state[key] = state[key][places]
    other.load_state_dict(state)
    one, two = generated(module, embedded), generated(other, embedded)
    for site in LAYOUT.sites:
        for factor, again in zip(one.site(site), two.site(site), strict=True):
            torch.testing.assert_close(factor, again, atol=1e-11, rtol=1e-11)


def stage1(layout: Layout = LAYOUT, **more: Any) -> ResponseMaps:
    network = ResponseMaps(ResponseMapsConfig(**{**TRUNK, **more}), layout)
    tiny.randomise(network, seed=1)
    return network.double()


def test_it_begins_from_stage_1_strictly() -> None:
    first, module = stage1(LAYOUT.with_rank(9)), made()  # ranks do not matter
    module.begin_from(first)
    assert module.stage1 is not None
    for mine, others in (
        (module.tokens, first.tokens),
        (module.trunk, first.trunk),
        (module.stage1, first.trunk),
    ):
        for key, value in others.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value), key
    # What stage II reads is what stage I had made of the weights when its heads read it.
    embedded, group = descriptions([4]), LAYOUT.groups[0]
    placed = module.stage1.place(module.tokens.of(BASE, group), group)
    a, b = first.heads[group.key](module.stage1(placed, embedded))
    for factor, again in zip((a, b), first.factors(embedded, BASE, group, None), strict=True):
        assert torch.equal(factor, again)


def test_another_stage_1_is_refused() -> None:
    with pytest.raises(UsageError, match="stage II has width 16 and stage I has 8"):
        made().begin_from(stage1(width=8))
    with pytest.raises(UsageError, match="leave stage1 out"):
        made(features=False).begin_from(stage1())
    fewer = replace(LAYOUT, sites=LAYOUT.sites[:4])
    with pytest.raises(LayoutMismatch, match=r"only the first has m\.layers\.4\.attn\.q"):
        made().begin_from(stage1(fewer))


def test_it_prepares_itself_by_the_mean_of_the_adapters() -> None:
    shared = tiny.adapter(LAYOUT, dtype=torch.float64)
    targets = stack([tiny.adapter(LAYOUT, seed=i, dtype=torch.float64) for i in range(5)])
    targets = Adapter(
        LAYOUT, {k: a.expand_as(targets.A[k]) for k, a in shared.A.items()}, targets.B
    )
    module = made()
    module.prepare(targets)
    adapter = generated(module, descriptions([4, 2]))
    for key in adapter.B:
        torch.testing.assert_close(adapter.B[key][0], targets.B[key].mean(dim=0))
        # A did not vary, and stays nearly the shared one; B's head speaks in its spread.
        torch.testing.assert_close(adapter.A[key][0], shared.A[key][0], atol=1e-3, rtol=0)
        scale = softplus(module.heads[key].get_parameter("scales"))[1]
        torch.testing.assert_close(scale, targets.B[key].std(dim=0, correction=0).mean())


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UsageError, match="needs descriptions"):
        made()(Condition(base=BASE))
    with pytest.raises(UsageError, match="needs the base model"):
        made()(Condition(text=descriptions([3])))
    with pytest.raises(LayoutMismatch, match="no weights of a module"):
        made()(Condition(text=descriptions([3]), base=torch.nn.Linear(3, 3)))


@pytest.mark.parametrize("features", [True, False])
def test_for_the_default_base_it_takes_less_than_four_megabytes(
    features: bool, tmp_path: Path
) -> None:
    layout = layout_of(load_config(resolve_base()), rank=8)
    module = LoFA(LoFAConfig(features=features), layout)
    assert sum(p.numel() for p in module.parameters()) < 25e6
    save_checkpoint(tmp_path / "c", module, CheckpointInfo(), storage="int8")
    assert sum(file.stat().st_size for file in (tmp_path / "c").iterdir()) < 3.9e6
