"""Placements that are learnt: what cannot matter gets less, and the base stays as it is."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from library.base.models import resolve_base
from library.errors import TaskFileError
from library.layout import Layout, layout_of
from library.placement.gated import GatedLoRA
from library.placement.learnt import ARDLoRA, DyLoRA
from library.placement.probe import Probe
from library.placement.registry import PLACEMENTS, placed, placement_named
from library.tasks.files import Example, Task

NAMES = ("autolora", "flexora", "ard", "dora", "dylora")
STEPS = 24


def a_task(name: str) -> Task:
    """90 rows whose answers can be learnt from their inputs."""
    words = ("red", "green", "blue")
    pairs = (Example.pair(f"{name} {words[i % 3]} {i}", words[i % 3]) for i in range(90))
    return Task(name, f"Say the colour of {name}.", tuple(pairs))


@pytest.fixture(scope="module")
def probe(tiny_base: Path) -> Probe:
    return Probe(resolve_base(str(tiny_base)), [a_task(name) for name in ("car", "house")])


@pytest.fixture
def layout(probe: Probe) -> Layout:
    """Query and value of two layers."""
    return layout_of(probe.base.model.config, rank=4)


@pytest.fixture
def deaf(probe: Probe) -> Iterator[Any]:
    """The first layer's attention does not reach the rest of the model."""
    weight = probe.base.model.model.layers[0].self_attn.o_proj.weight
    kept = weight.clone()
    weight.zero_()
    yield probe.base.model
    weight.copy_(kept)


def scores(name: str, layout: Layout, probe: Probe) -> dict[str, float]:
    return placement_named(f"{name}:steps={STEPS}").scores(layout, probe)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_matter_gets_less(name: str, layout: Layout, probe: Probe, deaf: Any) -> None:
    found = scores(name, layout, probe)
    idle, useful = ([found[s.name] for s in layout.sites if s.depth == d] for d in (0, 1))
    assert min(found.values()) >= 0 and max(idle) < min(useful)
    if name != "ard":  # whose penalties take some steps to get a module to zero
        assert max(idle) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_base_stays_as_it_is(name: str, layout: Layout, probe: Probe) -> None:
    before = {key: value.clone() for key, value in probe.base.model.state_dict().items()}
    found = scores(name, layout, probe)
    assert found.keys() == layout.ranks.keys() and max(found.values()) > 0
    assert found == scores(name, layout, probe)
    after = probe.base.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    for module in probe.base.model.modules():
        assert not module._forward_hooks and "lora_factors" not in vars(module)
    assert all(p.grad is None and not p.requires_grad for p in probe.base.model.parameters())


def test_steps_are_told(layout: Layout, probe: Probe) -> None:
    told: list[tuple[int, int]] = []
    watched = replace(probe, progress=lambda done, steps: told.append((done, steps)))
    DyLoRA(steps=2).scores(layout, watched)
    assert told == [(1, 2), (2, 2)]


def test_settings(layout: Layout, probe: Probe) -> None:
    for name in NAMES:
        assert placement_named(name) == PLACEMENTS[name]()
    chosen = placed(layout, placement_named(f"flexora:steps={STEPS},share=0.5"), probe)
    assert len({site.depth for site in chosen.sites}) == 1 and chosen.rank == 8
    everything = placed(layout, placement_named("flexora:steps=1,share=1"), probe)
    assert everything == layout


def test_penalties_take_rank_away_and_bring_layers_together(layout: Layout, probe: Probe) -> None:
    def factors(l1: float, tv: float) -> torch.Tensor:
        found = ARDLoRA(STEPS, l1, tv).scores(layout, probe)
        return torch.tensor([found[s.name] for g in layout.groups for s in g.sites]).view(2, 2)

    free, small, even = factors(0.0, 0.0), factors(1.0, 0.0), factors(0.0, 1.0)
    assert small.sum() < free.sum()
    assert even.diff().abs().sum() < free.diff().abs().sum()


def test_pruning_ends_at_the_budget(layout: Layout, probe: Probe) -> None:
    found = scores("dora", layout, probe)
    assert sum(found.values()) == sum(layout.ranks.values())
    wide = layout.with_rank(64)  # more than a module has: there is nothing to prune
    full = placement_named("dora:steps=2").scores(wide, probe)
    assert full == {s.name: min(s.in_features, s.out_features) for s in layout.sites}


def test_nested_training_puts_the_first_components_first(layout: Layout, probe: Probe) -> None:
    with closing(GatedLoRA(layout, probe)) as lora:
        DyLoRA(steps=2 * STEPS).learnt(layout, lora)
        norms = [b.flatten(0, 2).norm(dim=0) for b in lora.adapter(torch.ones(32)).B.values()]
    for norm in norms:
        assert norm[:2].sum() > 1.5 * norm[-2:].sum()


def test_gates_are_factors_on_components(layout: Layout, probe: Probe) -> None:
    """The loss under gates is that of a LoRA whose columns of B are scaled; shares add up."""
    with closing(GatedLoRA(layout, probe)) as lora:
        every = lora.filled(len(lora.module), 1.0)
        assert torch.equal(lora.module.bincount(), torch.full((4,), 8))
        lora.train(8, lambda: every, lambda _: None)
        assert lora.by_module(every) == dict.fromkeys(layout.ranks, 8.0)
        only = ((lora.module == 2) & (lora.place == 3)).float()
        alone, whole = lora.adapter(only), lora.adapter(every)
        site = layout.sites[2]
        a, b = whole.site(site)
        delta = alone.site(site)[1][0] @ alone.site(site)[0][0]
        assert torch.allclose(delta, torch.outer(b[0, :, 3], a[0, 3]))
        assert all(alone.site(s)[1].abs().sum() == 0 for s in layout.sites if s != site)
        expected = delta.norm() / (b[0] @ a[0]).norm()
        index = int(only.argmax())
        assert lora.shares(every)[index].item() == pytest.approx(expected.item(), rel=1e-4)
        assert lora.shares(only)[index].item() == pytest.approx(1.0)


def test_tune_rows_are_others_than_train_rows(probe: Probe, tiny_base: Path) -> None:
    train, tune = (probe.drawn_rows(part, 64) for part in ("train", "tune"))
    assert len(tune) == 40 and not {tuple(r.prompt) for r in train} & {
        tuple(r.prompt) for r in tune
    }
    long = Example.pair("word " * 400, "yes")
    task = a_task("car")
    rows = (*task.instances[:30], *[long] * 20, *task.instances[:40])
    narrow = Probe(resolve_base(str(tiny_base)), [Task("long", "Say.", rows)])
    with pytest.raises(TaskFileError, match="no tune row"):
        narrow.drawn_rows("tune", 64)
