"""Trained gates: gradients, learning which expert is right, what they are balanced by."""

from contextlib import closing
from typing import Any

import pytest
import tiny
import torch
from torch.nn.functional import one_hot

from index.gate.balance import balance_loss
from index.gate.experts import experts_of
from index.gate.forward import GatedAdapter
from index.gate.learnt import Gate, GateConfig
from index.gate.systems import SYSTEMS, System, system_named, systems
from library.base.multi_adapter import adapted
from library.errors import UsageError
from library.layout import layout_of

CONFIG = tiny.config("llama", num_hidden_layers=4)
LAYOUT = layout_of(CONFIG, ["q_proj", "v_proj"], rank=2)


def gate_of(name: str, n: int = 3) -> tuple[Gate, Any]:
    experts = experts_of(SYSTEMS[name], tiny.adapter(LAYOUT, n))
    made = Gate(GateConfig(name, ["a"] * n, ["t"] * n, len(experts), 32), LAYOUT)
    tiny.randomise(made, std=0.1)
    made.admit(experts)
    return made, experts


@pytest.mark.parametrize("name", systems(learnt=True))
def test_gradients_reach_every_site(name: str) -> None:
    gate, experts = gate_of(name, n=5)
    model, ids = tiny.model(CONFIG), tiny.tokens(4, 8)
    with closing(GatedAdapter(model, gate, gate.system, experts.layout)) as hooks:
        hooks.set_mixture(experts, torch.ones(4, 5))
        loss = model(ids, use_cache=False).logits.square().sum()
        real, own = torch.ones(4, 8, dtype=torch.bool), torch.tensor([0, 1, 2, 0])
        loss = loss + balance_loss(gate.system, hooks.chosen, real, own)
    loss.backward()
    for key, weight in gate.weight.items():
        assert weight.grad is not None and weight.grad.isfinite().all()
        assert (weight.grad.flatten(1).norm(dim=1) > 0).all(), key


@pytest.mark.parametrize("name", ["mixlora", "milora", "x-lora", "llava-mole", "adamole"])
def test_a_gate_learns_which_expert_is_right(name: str) -> None:
    """Two kinds of prompts, each answered best by its own adapter; no other expert is trained."""
    gate, experts = gate_of(name)
    model = tiny.model(CONFIG)
    rows = torch.tensor([0, 1] * 4)
    ids = tiny.tokens(8, 6)
    ids[:, 0] = 3 + rows  # what tells them apart
    with adapted(model, experts, rows):
        wanted = model(ids).logits.detach()
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    losses = []
    with closing(GatedAdapter(model, gate, gate.system, experts.layout)) as hooks:
        hooks.set_mixture(experts, torch.ones(8, 3))
        for _ in range(40):
            loss = (model(ids, use_cache=False).logits - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert min(losses[-5:]) < 0.6 * losses[0], losses


def test_even_choices_are_the_best_balanced() -> None:
    even = torch.full((2, 6, 4), 0.25)
    one = one_hot(torch.zeros(2, 6, dtype=torch.long), 4).float()
    real, own = torch.ones(2, 6, dtype=torch.bool), torch.tensor([0, 1])
    real[1, 3:] = False

    def loss(balances: Any, p: Any, owners: Any = own) -> float:
        return balance_loss(System("", balances=balances), {"a": (p, p)}, real, owners).item()

    assert loss("nothing", even) == loss("nothing", one) == 0
    assert loss("load", even) == pytest.approx(1) and loss("load", one) == pytest.approx(4)
    assert loss("tsallis", one) == pytest.approx(0, abs=1e-6) and loss("tsallis", even) > 1
    right = one_hot(own[:, None].expand(2, 6), 4).float()
    assert loss("specialisation", right) < loss("specialisation", one)
    padded = right.clone()
    padded[1, 3:] = 0.25  # what stands on padding does not count
    assert loss("specialisation", padded) == loss("specialisation", right)
    assert loss("specialisation", right[:, :1]) == pytest.approx(2)  # two of four, evenly


def test_low_layers_have_fewer_experts_where_the_system_says_so() -> None:
    for name, few in (("mola", True), ("mixlora", False)):
        gate, experts = gate_of(name, n=4)
        model, ids = tiny.model(CONFIG), tiny.tokens(2, 9)
        with closing(GatedAdapter(model, gate, gate.system, experts.layout)) as hooks:
            hooks.set_mixture(experts, torch.ones(2, 4))
            model(ids, use_cache=False)
            p, _ = hooks.chosen["model.layers.0.self_attn.q_proj"]
            assert ((p > 0).sum(-1) == (1 if few else 4)).all()
            p, _ = hooks.chosen["model.layers.3.self_attn.q_proj"]
            assert (p > 0).all()


def test_a_system_that_is_not_in_the_table() -> None:
    with pytest.raises(UsageError, match="no gate 'moe'; there are mixlora"):
        system_named("moe", list(SYSTEMS))
    with pytest.raises(UsageError, match="no gate 'arrow'"):
        gate_of("arrow")
