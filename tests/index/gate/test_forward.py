"""The forward under a gate: Arrow as PEFT runs it, priors, and a cache that changes nothing."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import ArrowConfig, create_arrow_model
from transformers import DynamicCache

from index.gate.experts import admitted, experts_of
from index.gate.forward import GatedAdapter
from index.gate.prototypes import Prototypes
from index.gate.systems import SYSTEMS, System
from library.adapter import Adapter
from library.base.decode import decode
from library.base.models import load_base, resolve_base
from library.base.multi_adapter import adapted
from library.layout import layout_of
from library.peft.write import to_peft

TRAINED = {s.reads: s for s in (SYSTEMS["mixlora"], SYSTEMS["milora"], SYSTEMS["x-lora"])}
CONFIG = tiny.config("llama")
LAYOUT = layout_of(CONFIG, ["q_proj", "v_proj"], rank=3)
F64 = torch.float64


def linear(system: System, adapter: Adapter, width: int = 32) -> Any:
    """A random matrix for each site in place of a trained gate."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        site.name: torch.randn(len(adapter), width, generator=generator, dtype=F64)
        for site in adapter.layout.sites
    }
    return lambda name, x: x.double() @ weights[name].mT


def test_arrow_routes_as_peft_does(tmp_path: Path) -> None:
    model, adapter, ids = tiny.model(CONFIG), tiny.adapter(LAYOUT, 4), tiny.tokens(2, 9)
    for b in adapter.B.values():
        b[..., 0] *= 8  # a top singular value that PEFT's power iteration finds
    system, ones = SYSTEMS["arrow"], torch.ones(2, 4)
    stored = adapter.to(dtype=torch.bfloat16).to(dtype=torch.float32)
    with closing(GatedAdapter(model, Prototypes(system, stored), system, LAYOUT)) as hooks:
        hooks.set_mixture(stored, ones)
        ours = model(ids).logits
    paths = [tmp_path / f"{i}" for i in range(4)]
    for i, path in enumerate(paths):
        path.mkdir()
        files = to_peft(adapter[[i]], base_name="tiny")
        (path / "adapter_config.json").write_bytes(files.config_bytes)
        (path / "adapter_model.safetensors").write_bytes(files.weights)
    arrow = create_arrow_model(model, [str(p) for p in paths], ArrowConfig(top_k=3))
    torch.testing.assert_close(ours, arrow(ids).logits, rtol=1e-4, atol=1e-4)


def test_prototypes_are_those_of_dense_delta_w() -> None:
    adapter = tiny.adapter(LAYOUT, 5, dtype=F64)
    x = torch.randn(1, 6, 32, dtype=F64)
    scores = {n: Prototypes(SYSTEMS[n], adapter) for n in ("arrow", "spectr", "lag")}
    for site in LAYOUT.sites:
        dense = torch.stack([tiny.deltas(adapter, i)[site.name] for i in range(5)])
        top = torch.linalg.svd(dense).Vh[:, 0]
        arrow, spectr = (x @ top.mT).abs(), (x @ dense.mT).norm(dim=-1).mT[None]
        torch.testing.assert_close(scores["arrow"](site.name, x), arrow)
        torch.testing.assert_close(scores["spectr"](site.name, x), spectr)
        lag = scores["lag"](site.name, x)
        kept = lag.isfinite()
        assert torch.equal(lag[kept], scores["spectr"](site.name, x)[kept])
        assert (kept.sum(-1) == 3).all()
        assert (arrow.masked_fill(kept, 0).amax(-1) <= arrow.masked_fill(~kept, 9).amin(-1)).all()


def test_single_ranks_sum_to_the_adapter_and_one_a_keeps_adapters_that_share_it() -> None:
    adapter = tiny.adapter(tiny.with_ranks(LAYOUT, [3, 2]), 2, dtype=F64)
    ranks = experts_of(SYSTEMS["smora"], adapter)
    assert len(ranks) == 6 and ranks.layout.rank == 1
    one_a = Adapter(
        adapter.layout, {key: a[:1].expand_as(a) for key, a in adapter.A.items()}, adapter.B
    )
    shared = experts_of(SYSTEMS["mosld"], one_a)
    for key, a in shared.A.items():
        assert torch.equal(a[0], a[1])
        delta, other = shared.B[key] @ a, one_a.B[key] @ one_a.A[key]
        torch.testing.assert_close(delta, other)
        singles = (ranks.B[key] @ ranks.A[key]).unflatten(0, (2, 3)).sum(1)
        torch.testing.assert_close(singles, adapter.B[key] @ adapter.A[key])


def test_higher_layers_admit_more_experts_the_longest_first() -> None:
    config = tiny.config("llama", num_hidden_layers=4)
    adapter = tiny.adapter(layout_of(config, ["q_proj", "v_proj"], rank=2), 6)
    for group in adapter.layout.groups:
        allowed = admitted(adapter)[group.key]
        assert allowed.sum(1).tolist() == [2, 3, 5, 6]
        lengths = (adapter.B[group.key] @ adapter.A[group.key]).flatten(2).norm(dim=-1).mT
        for row, length in zip(allowed, lengths, strict=True):
            assert length[row].min() > length.masked_fill(row, 0).max()


@pytest.mark.parametrize("reads", TRAINED)
def test_a_prior_of_nothing_leaves_an_expert_out(reads: str) -> None:
    model, adapter = tiny.model(CONFIG, dtype=F64), tiny.adapter(LAYOUT, 3, dtype=F64)
    ids, system = tiny.tokens(2, 6), TRAINED[reads]
    gate = linear(system, adapter)
    with closing(GatedAdapter(model, gate, system, LAYOUT)) as hooks:
        hooks.set_mixture(adapter, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
        logits = model(ids).logits
        assert all(not shares[0, :, 0].any() for _, shares in hooks.chosen.values())
        assert all((shares[1, :, 0] == 1).all() for _, shares in hooks.chosen.values())
    with adapted(model, adapter, torch.tensor([0])):
        torch.testing.assert_close(logits[[1]], model(ids[[1]]).logits)
    pair = adapter[[1, 2]]
    other = lambda name, x: gate(name, x)[..., 1:]  # noqa: E731
    with closing(GatedAdapter(model, other, system, LAYOUT)) as hooks:
        hooks.set_mixture(pair, torch.ones(1, 2))
        torch.testing.assert_close(logits[[0]], model(ids[[0]]).logits)


def test_a_foreign_cache_is_refused_where_the_gate_needs_its_own() -> None:
    model, adapter, ids = tiny.model(CONFIG), tiny.adapter(LAYOUT, 2), tiny.tokens(1, 4)
    for system in TRAINED.values():
        with closing(GatedAdapter(model, linear(system, adapter), system, LAYOUT)) as hooks:
            before = model(ids, past_key_values=DynamicCache()).logits  # nothing is set
            assert torch.equal(before, model(ids).logits)
            hooks.set_mixture(adapter, torch.ones(1, 2))
            if system.reads == "token":
                model(ids, past_key_values=DynamicCache())
                continue
            with pytest.raises(ValueError, match="cache of its own"):
                model(ids, past_key_values=DynamicCache())


@pytest.mark.parametrize("reads", TRAINED)
def test_decoding_with_a_cache_is_decoding_without_one(reads: str, tiny_base: Path) -> None:
    """Rows of several lengths that end at several steps; without a cache each is run alone."""
    base = load_base(resolve_base(str(tiny_base)), dtype=F64)
    adapter = tiny.adapter(layout_of(base.model.config, rank=2), 3, dtype=F64)
    system = TRAINED[reads]
    prompts = tiny.prompts([4, 9, 6, 5], 4096)
    eos = base.tokenizer.eos_token_id
    gate, ones = linear(system, adapter), torch.ones(4, 3)
    with closing(GatedAdapter(base.model, gate, system, adapter.layout)) as hooks:
        found = decode(base, prompts, adapter, ones.tolist(), max_new_tokens=8, hooks=hooks)
        hooks.set_mixture(adapter, ones[:1])
        for prompt, answer in zip(prompts, found, strict=True):
            ids = list(prompt)
            while len(ids) < len(prompt) + 8 and (ids == prompt or ids[-1] != eos):
                hooks.prompt = torch.arange(len(ids))[None] < len(prompt)
                logits = base.model(torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
            assert answer == ids[len(prompt) :]
    assert len({len(answer) for answer in found}) > 1
