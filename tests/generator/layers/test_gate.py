"""The gate: an exact sum of a static and a conditional part; off by default."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions, row

from generator.layers.config import TextToLoRAConfig
from generator.layers.gate import START, conditional, squared_norm
from generator.models.base import Condition
from generator.models.text_to_lora import TextToLoRA
from library.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from library.errors import UsageError
from library.layout import layout_of

# Ranks differ within a group; half of the smallest is static.
LAYOUT = tiny.with_ranks(layout_of(tiny.config("llama"), ["q_proj", "v_proj"]), [4, 5, 6])
READER = {"queries": 2, "words_dim": WORDS, "reader_dim": 5}
STATIC = 2


def made(gate: bool = True, **more: Any) -> TextToLoRA:
    torch.manual_seed(0)
    config = TextToLoRAConfig(WIDTH, latent=16, head_in=20, gate=gate, **{**READER, **more})
    return TextToLoRA(config, LAYOUT).double().eval()


def random(**more: Any) -> TextToLoRA:
    module = made(**more)
    tiny.randomise(module)
    return module


@pytest.mark.parametrize("size", ["L", "M", "S"])
def test_before_training_nothing_changes_and_the_gate_is_nearly_closed(size: str) -> None:
    with torch.no_grad():
        adapter, figures = made(size=size).measured(Condition(text=descriptions([3, 5])))
    assert adapter.layout == LAYOUT
    for site in LAYOUT.sites:
        a, b = adapter.site(site)
        assert not (b @ a).any()
        assert a.abs().sum(dim=-1).all() and a.abs().max() <= site.in_features**-0.5
    assert figures["gate"] == pytest.approx(torch.tensor(START).sigmoid().item())
    assert figures["gated_norm"] < 1e-5


def test_it_is_the_static_part_and_the_gates_share_of_what_the_condition_makes() -> None:
    module, embedded = random(), descriptions([3, 5, 2])
    adapter, figures = module.measured(Condition(text=embedded))
    task = module.task_encoder(embedded)
    delta = module._made(embedded, task)
    assert module.gated_sum is not None and delta.layout == conditional(LAYOUT)
    g = module.gated_sum.gate(task).sigmoid()[:, 0]
    assert g.unique().numel() == 3
    squares = torch.zeros(3, dtype=torch.float64)
    for site in LAYOUT.sites:
        group, i = LAYOUT.position(site.name)
        static = module.gated_sum.B[group.key][i] @ module.gated_sum.A[group.key][i]
        a, b = delta.site(site)
        gated = g[:, None, None] * (b @ a)
        a, b = adapter.site(site)
        torch.testing.assert_close(b @ a, static + gated)
        squares += gated.square().sum(dim=(1, 2))
    torch.testing.assert_close(figures["gate"], g.mean())
    torch.testing.assert_close(figures["gated_norm"], squares.sqrt().mean())
    assert torch.equal(module(Condition(text=embedded)).factors()[0], adapter.factors()[0])


def test_ranks_beyond_a_sites_own_are_zero_and_rows_are_independent() -> None:
    module, embedded = random(), descriptions([3, 1, 7])
    together = module(Condition(text=embedded))
    for group in LAYOUT.groups:
        for i, site in enumerate(group.sites):
            a, b = together.A[group.key][:, i], together.B[group.key][:, i]
            assert not a[:, site.rank :].any() and not b[..., site.rank :].any()
            assert a[:, : site.rank].all() and b[..., : site.rank].all()
    for i in range(3):
        alone = module(Condition(text=row(embedded, i)))
        for one, all_of_them in zip(alone.factors(), together.factors(), strict=True):
            torch.testing.assert_close(all_of_them[[i]], one, atol=1e-12, rtol=1e-12)


def test_a_closed_gate_leaves_what_all_conditions_share() -> None:
    module, embedded = random(), descriptions([3, 5])
    assert module.gated_sum is not None
    with torch.no_grad():
        module.gated_sum.gate.bias.fill_(-1e9)
    adapter, figures = module.measured(Condition(text=embedded))
    for site in LAYOUT.sites:
        a, b = adapter.site(site)
        assert torch.equal((b @ a)[0], (b @ a)[1]) and (b @ a).any()
        assert not b[..., STATIC:].any() and not torch.equal(a[0, STATIC:], a[1, STATIC:])
    assert figures["gate"] == 0 and figures["gated_norm"] < 1e-5


def test_training_from_the_start_reaches_every_parameter_and_a_penalty_closes_the_gate() -> None:
    """The norm has a gradient of zero where it is zero, not of infinity."""
    module, embedded = made(), descriptions([3, 5])
    target = tiny.adapter(LAYOUT, 2, dtype=torch.float64)
    optimizer, norms = torch.optim.Adam(module.parameters(), lr=1e-2), []
    for step in range(60):
        adapter, figures = module.measured(Condition(text=embedded))
        norms.append(figures["gated_norm"].item())
        pairs = [(adapter.A[k], target.A[k], adapter.B[k], target.B[k]) for k in adapter.A]
        near = sum((b @ a - d @ c).square().sum() for a, c, b, d in pairs)
        loss = near if step < 20 else figures["gated_norm"]
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()
        if step == 10:
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None and parameter.grad.any(), name
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
        optimizer.step()
    assert norms[0] < 1e-5 < 0.1 < norms[20] and norms[-1] < norms[20] / 2


def test_the_norm_is_that_of_the_product() -> None:
    a, b = torch.randn(2, 3, 2, 7).double(), torch.randn(2, 3, 5, 2).double()
    torch.testing.assert_close(squared_norm(a, b), (b @ a).square().sum(dim=(-2, -1)))


def test_checkpoints_from_before_the_gate_load_and_gated_ones_return(tmp_path: Path) -> None:
    text = descriptions([4]).to(dtype=torch.float32)
    for gate in (False, True):
        module = random(gate=gate).float()
        folder = tmp_path / str(gate)
        save_checkpoint(folder, module, CheckpointInfo())
        if not gate:  # as such checkpoints say it, which know no gate
            assert not any(key.startswith("gated_sum") for key in module.state_dict())
            config = json.loads((folder / "config.json").read_text())
            del config["architecture"]["gate"]
            (folder / "config.json").write_text(json.dumps(config))
        read = load_checkpoint(folder, TextToLoRA).module
        assert read.config.gate is gate
        wanted = module(Condition(text=text)).factors()
        for one, other in zip(read(Condition(text=text)).factors(), wanted, strict=True):
            assert torch.equal(one, other)


def test_a_module_of_rank_1_has_no_half() -> None:
    layout = layout_of(tiny.config("llama"), rank=1)
    with pytest.raises(UsageError, match="a gate needs rank 2 or more"):
        TextToLoRA(TextToLoRAConfig(WIDTH, latent=16, gate=True), layout)
