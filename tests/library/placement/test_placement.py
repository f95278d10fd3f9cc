"""Placements: whole ranks out of one budget, and what each of them chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.base.loss import answer_logits, answer_loss
from library.base.models import BaseReference, resolve_base
from library.errors import UnknownName, UsageError
from library.layout import Layout, Site, layout_of
from library.placement.allocate import allocated
from library.placement.placement import Placement
from library.placement.probe import Probe, recorded
from library.placement.probed import Contribution, Inflection, Plop
from library.placement.registry import PLACEMENTS, placed, placement_named
from library.tasks.files import Example, Task

pair = Example.pair
TYPES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def cost(layout: Layout) -> int:
    return sum(s.rank * (s.in_features * s.kernel + s.out_features) for s in layout.sites)


def layout(depth: int = 6, rank: int = 4) -> Layout:
    """q and v of `depth` layers, of other shapes."""
    sites = [
        Site(f"model.layers.{i}.self_attn.{kind}", 32, out, rank)
        for i in range(depth)
        for kind, out in (("q_proj", 32), ("v_proj", 16))
    ]
    return Layout("llama", depth, tuple(sites))


def nothing() -> Probe:
    """A probe that is not to be looked at: its base cannot be loaded."""
    return Probe(BaseReference("none", "nowhere"), [])


@pytest.fixture(scope="module")
def probe(tiny_base: Path) -> Probe:
    tasks = [
        Task(name, f"Say {name} to all.", tuple(pair(f"{name} {i}", str(i)) for i in range(70)))
        for name in ("one", "two", "three")
    ]
    return Probe(resolve_base(str(tiny_base)), tasks)


@given(
    st.integers(1, 8),
    st.lists(st.floats(0, 10), min_size=12, max_size=12).filter(lambda scores: max(scores) > 0.01),
)
def test_the_budget_is_spent_and_not_overspent(rank: int, scores: list[float]) -> None:
    uniform = layout(rank=rank)
    by_name = dict(zip(uniform.ranks, scores, strict=True))
    result = allocated(uniform, by_name)
    assert cost(result) <= cost(uniform)
    spare = cost(uniform) - cost(result)
    for site in uniform.sites:
        rank = result.ranks.get(site.name, 0)
        most = min(site.in_features, site.out_features)
        assert rank <= most and (rank == 0 or by_name[site.name] > 0)
        if by_name[site.name] > 0 and rank < most:  # no next rank would still fit
            assert site.in_features + site.out_features > spare


def test_equal_scores_give_the_uniform_layout() -> None:
    assert placed(layout(), placement_named("uniform"), nothing()) == layout()


def test_a_full_module_passes_on_what_it_does_not_need() -> None:
    scores = dict.fromkeys(layout(2, rank=8).ranks, 1.0)
    scores["model.layers.0.self_attn.v_proj"] = 1e6
    ranks = allocated(layout(2, rank=8), scores).ranks
    assert ranks["model.layers.0.self_attn.v_proj"] == 16
    assert ranks["model.layers.1.self_attn.q_proj"] >= 6


def test_without_a_score_there_is_nothing_to_adapt() -> None:
    with pytest.raises(UsageError, match="leaves no module"):
        allocated(layout(), dict.fromkeys(layout().ranks, 0.0))


def chosen(text: str, depth: int = 6) -> dict[int, int]:
    """The rank of q_proj by layer."""
    result = placed(layout(depth), placement_named(text), nothing())
    return {site.depth: site.rank for site in result.sites if site.module_type == "q_proj"}


def test_fixed_placements_by_depth() -> None:
    rising = chosen("increasing")
    assert [*rising.values()] == sorted(rising.values()) and rising[0] == 2 and rising[5] == 6
    assert [*chosen("increasing:first=0,depth=0.5")] == [4, 5]  # of 3, 4, 5 the first gets 0
    assert [*chosen("ends")] == [0, 5]
    assert [*chosen("ends:first=0.34,last=0.1")] == [0, 1, 5]
    strata = chosen("strata")
    assert [*strata] == [2, 3, 4, 5] and strata[2] * 2 == strata[4]
    assert [*chosen("ends", depth=1)] == [0]


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("best", UnknownName, "known: uniform, increasing"),
        ("ends:width=1", UsageError, "no setting 'width'; it has first, last"),
        ("ends:first=2", UsageError, "first must be from 0 to 1, not '2'"),
        ("plop:types=0.5", UsageError, "types must be a whole number"),
        ("uniform:a=1", UsageError, "it has none"),
        ("ends:first", UsageError, "not ''"),
    ],
)
def test_what_is_no_placement(text: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        placement_named(text)


def fast(name: str) -> Placement:
    """The placement, with few steps where it is learnt."""
    return placement_named(f"{name}:steps=4" if hasattr(PLACEMENTS[name], "steps") else name)


@pytest.mark.parametrize("name", sorted(PLACEMENTS))
def test_every_placement_gives_a_layout_of_the_base(name: str, probe: Probe) -> None:
    uniform = layout_of(probe.base.model.config, TYPES, rank=4)
    before = probe.base.model.config._attn_implementation
    result = placed(uniform, fast(name), probe)
    assert {*result.ranks} <= {*uniform.ranks} and cost(result) <= cost(uniform)
    assert result == placed(uniform, fast(name), probe)  # the same again
    assert probe.base.model.config._attn_implementation == before
    assert not any(probe.base.model.get_submodule(n)._forward_hooks for n in uniform.ranks)


def test_contribution_is_the_gradient_by_the_weights(probe: Probe) -> None:
    model, uniform = probe.base.model, layout_of(probe.base.model.config, TYPES, rank=4)
    scores = Contribution().scores(uniform, probe)
    weights = {name: model.get_submodule(name).weight.requires_grad_() for name in uniform.ranks}
    try:
        for batch in probe.batches():
            logits = answer_logits(model, batch.ids, batch.answer)
            answer_loss(logits, batch.ids, batch.answer).sum().backward()
        for name, weight in weights.items():
            assert scores[name] == pytest.approx(weight.grad.norm().item(), rel=1e-4)
    finally:
        for weight in weights.values():
            weight.requires_grad_(False).grad = None


def changed(model: Any, edit: Callable[[str, torch.Tensor], object]) -> Callable[[], None]:
    """Edits weights in place; what is returned puts them back."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            edit(name, parameter)
    return lambda: model.load_state_dict(kept)


def test_plop_takes_the_type_that_lets_least_through(probe: Probe) -> None:
    """A W of rank 1 that reads the direction of which its inputs have least."""
    model, uniform = probe.base.model, layout_of(probe.base.model.config, TYPES, rank=4)
    keys = [name for name in uniform.ranks if "k_proj" in name]
    (batch, *_) = probe.batches()
    with recorded(model, keys) as seen, torch.no_grad():
        model.get_decoder()(input_ids=batch.ids)
    least = {n: torch.linalg.svd(s.into.flatten(0, 1))[2][-1] for n, s in seen.items()}

    def blind(name: str, weight: torch.Tensor) -> None:
        direction = least.get(name.removesuffix(".weight"))
        if direction is not None:
            weight.copy_(torch.ones(len(weight), 1) * direction)

    back = changed(model, blind)
    try:
        scores = Plop(types=1).scores(uniform, probe)
        assert {name for name, score in scores.items() if score} == {*keys}
    finally:
        back()


def test_plop_does_not_see_the_size_of_weights(probe: Probe) -> None:
    model, uniform = probe.base.model, layout_of(probe.base.model.config, TYPES, rank=4)
    before = Plop().norms(uniform, probe)
    key = next(name for name in before if "1.mlp.down_proj" in name)  # nothing else reads it
    back = changed(model, lambda name, weight: weight.mul_(3.0 if key in name else 1.0))
    try:
        assert Plop().norms(uniform, probe)[key] == pytest.approx(before[key], rel=1e-4)
    finally:
        back()


def test_inflection_prefers_sharp_attention(probe: Probe) -> None:
    model, uniform = probe.base.model, layout_of(probe.base.model.config, TYPES, rank=4)

    def sharp(name: str, weight: torch.Tensor) -> None:
        if ".1." in name and ("q_proj.weight" in name or "k_proj.weight" in name):
            weight.mul_(30.0)

    back = changed(model, sharp)
    try:
        scores = Inflection(share=0.5).scores(uniform, probe)
        assert {site.depth for site in uniform.sites if scores[site.name]} == {1}
    finally:
        back()


def test_a_placement_is_a_dataclass_of_numbers() -> None:
    for name, kind in PLACEMENTS.items():
        assert issubclass(kind, Placement) and kind.name == name
        assert placement_named(name) == kind()
