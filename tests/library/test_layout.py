"""Layouts: read from configs alone, ordered, and equal wherever they are read."""

import re
from dataclasses import replace
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from library.errors import LayoutMismatch, UnsupportedModel, UsageError
from library.layout import DEFAULT_TARGETS, Layout, Site, layout_of

LLAMA_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("family", DEFAULT_TARGETS)
def test_the_layout_of_a_config_names_the_modules_of_the_real_model(family: str) -> None:
    config = tiny.config(family)
    layout = layout_of(config, rank=3)
    modules = dict(tiny.model(config).named_modules())
    wanted = [name for name in modules if name.rsplit(".", 1)[-1] in DEFAULT_TARGETS[family]]
    assert [site.name for site in layout.sites] == wanted  # the model's own order
    for site in layout.sites:
        module: Any = modules[site.name]
        assert isinstance(module, Conv1D if site.transposed else nn.Linear)
        shape = tuple(module.weight.shape)
        assert (shape[::-1] if not site.transposed else shape) == (
            site.in_features,
            site.out_features,
        )
        assert (site.rank, site.depth) == (3, int(*re.findall(r"\d+", site.name)))
    assert (layout.model_type, layout.depth) == (family, 2)


def test_fused_and_transposed_projections() -> None:
    phi3 = layout_of(tiny.config("phi3"))
    assert [(g.key, len(g.sites)) for g in phi3.groups] == [("qkv_proj_32x64", 2)]
    gpt2 = layout_of(tiny.config("gpt2"), ["c_attn", "c_proj"])
    # One name, two shapes: attention's and the MLP's output projections are two groups.
    assert {g.key: [s.name for s in g.sites] for g in gpt2.groups} == {
        "c_attn_32x96": [f"transformer.h.{i}.attn.c_attn" for i in (0, 1)],
        "c_proj_32x32": [f"transformer.h.{i}.attn.c_proj" for i in (0, 1)],
        "c_proj_128x32": [f"transformer.h.{i}.mlp.c_proj" for i in (0, 1)],
    }
    assert all(site.transposed for site in gpt2.sites)


def test_no_group_mixes_shapes_and_every_site_is_in_one() -> None:
    layout = tiny.with_ranks(layout_of(tiny.config("llama"), LLAMA_LINEAR), [2, 5, 3])
    seen = [site for group in layout.groups for site in group.sites]
    assert sorted(site.name for site in seen) == sorted(site.name for site in layout.sites)
    for group in layout.groups:
        assert {(s.module_type, s.in_features, s.out_features) for s in group.sites} == {
            (group.module_type, group.in_features, group.out_features)
        }
        assert group.rank == max(site.rank for site in group.sites)


def test_the_order_of_targets_does_not_matter() -> None:
    config = tiny.config("llama")
    forwards, backwards = layout_of(config, LLAMA_LINEAR), layout_of(config, LLAMA_LINEAR[::-1])
    assert forwards.digest == backwards.digest


def test_the_digest_sees_every_part() -> None:
    layout = layout_of(tiny.config("llama"), rank=4)
    first = layout.sites[0]
    others = [
        replace(layout, model_type="mistral"),
        replace(layout, depth=3),
        replace(layout, sites=layout.sites[::-1]),
        replace(layout, sites=layout.sites[1:]),
        *(
            replace(layout, sites=(replace(first, **change), *layout.sites[1:]))
            for change in (
                {"name": "model.layers.0.x.q_proj"},
                {"in_features": 31},
                {"out_features": 31},
                {"rank": 3},
                {"kernel": 3},
                {"transposed": True},
            )
        ),
    ]
    assert len({layout.digest, *(other.digest for other in others)}) == len(others) + 1
    for other in others:
        with pytest.raises(LayoutMismatch, match=f"left.*{layout.digest[:12]}.*right"):
            layout.require_same(other, "left", "right")


@given(
    st.lists(
        st.builds(
            Site,
            name=st.from_regex(r"\A[a-z]{1,5}(\.[0-9]{1,2})?\.[a-z]{1,5}\Z"),
            in_features=st.integers(4, 64),
            out_features=st.integers(4, 64),
            rank=st.integers(1, 4),
            kernel=st.integers(1, 9),
            transposed=st.booleans(),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda site: site.name,
    )
)
def test_a_layout_survives_its_dictionary(sites: list[Site]) -> None:
    layout = Layout("family", 100, tuple(sites))
    assert Layout.from_dict(layout.to_dict()) == layout
    assert Layout.from_dict(layout.to_dict()).digest == layout.digest


@pytest.mark.parametrize("family", ["mamba", "bert", "t5", "bloom"])
def test_an_unsupported_family_is_refused_by_name(family: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"'{family}' is not supported.*llama"):
        layout_of(AutoConfig.for_model(family))


@pytest.mark.parametrize(
    ("family", "target"), [("llama", "lm_head"), ("llama", "embed_tokens"), ("gpt2", "wte")]
)
def test_output_layer_and_embeddings_are_refused(family: str, target: str) -> None:
    with pytest.raises(UsageError, match=target):
        layout_of(tiny.config(family), ["q_proj", target])


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="'c_attn'"):
        layout_of(tiny.config("llama"), ["q_proj", "c_attn"])
    with pytest.raises(UnsupportedModel, match="not a linear layer"):
        layout_of(tiny.config("llama"), ["input_layernorm"])
    with pytest.raises(UsageError, match="at least one"):
        layout_of(tiny.config("llama"), [])
    for rank in (0, -1):
        with pytest.raises(UsageError, match=f"rank {rank}"):
            layout_of(tiny.config("llama"), rank=rank)
    layout = layout_of(tiny.config("llama"))
    with pytest.raises(UsageError, match="twice"):
        replace(layout, sites=(*layout.sites, layout.sites[0]))


def test_a_mismatch_names_a_module_that_only_one_side_has() -> None:
    layout = layout_of(tiny.config("llama"), rank=4)
    renamed = replace(layout.sites[0], name="visual.layers.0.q_proj")
    other = replace(layout, sites=(renamed, *layout.sites[1:]))
    assert layout.describe() == other.describe()  # the two sides of the sentence read the same
    with pytest.raises(LayoutMismatch, match=rf"only the second has {re.escape(renamed.name)}"):
        layout.require_same(other, "one", "another")
