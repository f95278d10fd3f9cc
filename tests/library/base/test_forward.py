"""The multi-adapter forward, held to models with ΔW merged into their weights."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.func import functional_call

from library.adapter import zeros
from library.base import multi_adapter
from library.base.multi_adapter import MultiAdapter, adapted, adapted_each
from library.errors import LayoutMismatch
from library.layout import Layout, layout_of

FAMILIES = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "gpt_neox": ["query_key_value", "dense"],
}


def setup(family: str = "llama", dtype: torch.dtype = torch.float32) -> tuple[Any, Layout]:
    config = tiny.config(family)
    layout = tiny.with_ranks(layout_of(config, FAMILIES[family]), [3, 5, 2])
    return tiny.model(config, dtype=dtype), layout


def logits(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_is_answered_by_its_own_adapter(family: str) -> None:
    model, layout = setup(family, torch.float64)
    adapter, rows = tiny.adapter(layout, 3, dtype=torch.float64), [2, 0, 0, 1]
    ids = tiny.tokens(4, 7)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0  # padded on the left
    with adapted(model, adapter, torch.tensor(rows)):
        together = logits(model, ids, mask)
    for i, row in enumerate(rows):
        with adapted(model, adapter, torch.tensor([row])):
            alone = logits(model, ids[[i]], mask[[i]])
        expected = logits(tiny.merged(model, adapter, row), ids[[i]], mask[[i]])
        real = mask[i].bool()
        torch.testing.assert_close(together[i][real], alone[0][real], atol=1e-10, rtol=0)
        torch.testing.assert_close(together[i][real], expected[0][real], atol=1e-10, rtol=0)


def test_gradients_are_those_of_the_merged_model() -> None:
    model, layout = setup(dtype=torch.float64)
    adapter, rows, ids = tiny.adapter(layout, 2, dtype=torch.float64), [0, 1, 1], tiny.tokens(3, 6)
    factors = [*adapter.A.values(), *adapter.B.values()]
    weight = torch.randn(3, 6, 61, dtype=torch.float64)
    for factor in factors:
        factor.requires_grad_()

    with adapted(model, adapter, torch.tensor(rows)):
        ours = torch.autograd.grad((model(input_ids=ids).logits * weight).sum(), factors)

    total = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(rows):
        changed = {}
        for site in layout.sites:
            a, b = adapter.site(site)
            name = f"{site.name}.weight"
            changed[name] = model.get_parameter(name) + b[row] @ a[row]
        out = functional_call(model, changed, kwargs={"input_ids": ids[[i]]})
        total = total + (out.logits * weight[[i]]).sum()
    expected = torch.autograd.grad(total, factors)
    for mine, theirs, factor in zip(ours, expected, factors, strict=True):
        # The merged model does not read padded ranks; the hooks' gradient there hits masked zeros.
        used = (factor != 0).to(theirs)
        torch.testing.assert_close(mine * used, theirs * used, atol=1e-10, rtol=1e-9)
        assert theirs.abs().max() > 1e-3


def test_generate_runs_under_the_adapters() -> None:
    model, layout = setup()
    adapter, ids = tiny.adapter(layout, 2), tiny.tokens(2, 5)
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    mask = torch.ones_like(ids)
    with adapted(model, adapter, torch.tensor([0, 1])):
        together = model.generate(ids, attention_mask=mask, **settings)
    bare = model.generate(ids, attention_mask=mask, **settings)
    assert not torch.equal(together, bare)
    for row in (0, 1):
        alone = tiny.merged(model, adapter, row).generate(
            ids[[row]], attention_mask=mask[[row]], **settings
        )
        assert torch.equal(together[row], alone[0])


def test_adapters_of_several_layouts_act_in_turn() -> None:
    """Modules overlap and ranks differ; what the last one set on other modules is gone."""
    model, _ = setup(dtype=torch.float64)
    config, ids, rows = tiny.config("llama"), tiny.tokens(2, 5), torch.tensor([1, 0])
    layouts = (
        layout_of(config, ["q_proj", "v_proj"], rank=2),
        layout_of(config, ["v_proj", "down_proj"], rank=3),
    )
    hooks = MultiAdapter(model, *layouts)
    before = logits(model, ids)
    for layout in (*layouts, layouts[0]):
        adapter = tiny.adapter(layout, 2, dtype=torch.float64)
        with adapted(tiny.model(config, dtype=torch.float64), adapter, rows) as alone:
            wanted = logits(alone, ids)
        hooks.set(adapter, rows)
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-12, rtol=0)
        hooks.set_mixture(adapter, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        mixed = logits(model, ids)
        torch.testing.assert_close(mixed[0], wanted[0], atol=1e-10, rtol=0)
        assert torch.equal(mixed[1], before[1])  # no share of any adapter: the base itself
    with pytest.raises(LayoutMismatch, match="the adapted model has layout"):
        hooks.set(tiny.adapter(layout_of(config, ["q_proj"])), torch.tensor([0, 0]))
    hooks.close()
    assert torch.equal(logits(model, ids), before)
    assert not any("lora_factors" in vars(module) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_one_batch_have_adapters_of_several_layouts_or_none(family: str) -> None:
    model, layout = setup(family, torch.float64)
    first, second = FAMILIES[family][0], FAMILIES[family][-1]
    others = [layout_of(tiny.config(family), [name], rank=4) for name in (first, second)]
    made = [tiny.adapter(each, dtype=torch.float64, seed=7) for each in (layout, *others)]
    adapters, ids = [made[1], None, made[0], made[2], made[0]], tiny.tokens(5, 6)
    before = logits(model, ids)
    with adapted_each(model, adapters):
        together = logits(model, ids)
    assert torch.equal(together[1], before[1])
    for i, adapter in enumerate(adapters):
        if adapter is not None:
            expected = logits(tiny.merged(model, adapter), ids[[i]])[0]
            torch.testing.assert_close(together[i], expected, atol=1e-10, rtol=0)
            assert (expected - before[i]).abs().max() > 1e-3
    with adapted_each(model, [None] * 5):
        assert torch.equal(logits(model, ids), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_left_behind_even_after_an_error() -> None:
    model, layout = setup()
    ids = tiny.tokens(2, 5)
    before, state = logits(model, ids), {k: v.clone() for k, v in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(RuntimeError, match="inside"):  # noqa: SIM117
        with adapted(model, tiny.adapter(layout), torch.tensor([0, 0])):
            assert not torch.equal(logits(model, ids), before)
            assert set(model.state_dict()) == set(state)
            raise RuntimeError("inside")
    assert torch.equal(logits(model, ids), before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_that_stay_answer_as_the_base_while_nothing_is_set() -> None:
    model, layout = setup()
    ids = tiny.tokens(2, 5)
    before = logits(model, ids)
    hooks = MultiAdapter(model, layout)
    assert torch.equal(logits(model, ids), before)
    hooks.set(tiny.adapter(layout, 2), torch.tensor([1, 0]))
    first = logits(model, ids)
    hooks.set(tiny.adapter(layout, 2, seed=1), torch.tensor([1, 0]))
    assert (logits(model, ids) - first).abs().max() > 0.1
    hooks.clear()
    assert torch.equal(logits(model, ids), before)
    hooks.set(zeros(layout), torch.tensor([0, 0]))
    assert torch.equal(logits(model, ids), before)
    hooks.close()


def test_another_layout_is_a_mismatch_and_leaves_the_model_alone() -> None:
    model, layout = setup()
    ids, rows = tiny.tokens(1, 5), torch.tensor([0])
    before = logits(model, ids)
    deep = layout_of(tiny.config("llama", num_hidden_layers=3))
    wide = layout_of(tiny.config("llama", num_key_value_heads=4))
    for other in (deep, wide, layout_of(tiny.config("gpt2"))):
        with pytest.raises(LayoutMismatch), adapted(model, tiny.adapter(other), rows):
            pass
    hooks = MultiAdapter(model, layout)
    with pytest.raises(LayoutMismatch, match=r"adapted model.*the adapter"):
        hooks.set(tiny.adapter(layout.with_rank(2)), rows)
    hooks.close()
    assert torch.equal(logits(model, ids), before)


def test_a_second_set_of_hooks_is_refused_not_applied_twice() -> None:
    model, layout = setup()
    ids = tiny.tokens(1, 5)
    with adapted(model, tiny.adapter(layout), torch.tensor([0])):
        first = logits(model, ids)
        with pytest.raises(ValueError, match="already"):
            MultiAdapter(model, layout)
        assert torch.equal(logits(model, ids), first)
    MultiAdapter(model, layout).close()


def test_threads_take_turns_on_one_model() -> None:
    model, layout = setup()
    ids = torch.arange(12).view(1, 12)
    adapters = [tiny.adapter(layout, seed=seed) for seed in range(3)]
    rows = torch.tensor([0])

    def answered(adapter: Any) -> Tensor:
        with adapted(model, adapter, rows):
            return logits(model, ids)

    alone = [answered(adapter) for adapter in adapters]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(answered, adapters * 20))
    assert all(torch.equal(found, alone[i % 3]) for i, found in enumerate(together))


def test_compiled_layers_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lora_delta", "_add_delta"):  # without the tests' own shape checks around them
        monkeypatch.setattr(multi_adapter, name, inspect.unwrap(getattr(multi_adapter, name)))
    model, layout = setup()
    adapter, ids = tiny.adapter(layout, 2), tiny.tokens(2, 5)
    with adapted(model, adapter, torch.tensor([1, 0])):
        expected = logits(model, ids)
    hooks = MultiAdapter(model, layout)
    for layer in model.get_decoder().layers:
        layer.compile(backend="eager")
    for rows in ([1, 0], [0, 0]):  # the second call must not answer with the first's factors
        hooks.set(adapter, torch.tensor(rows))
        got = logits(model, ids)
        torch.testing.assert_close(got[1], expected[1], atol=1e-6, rtol=0)
        assert torch.allclose(got[0], expected[0], atol=1e-6) == (rows == [1, 0])
    hooks.close()


def test_factors_are_cast_to_the_type_of_the_base() -> None:
    model, layout = setup(dtype=torch.bfloat16)
    adapter = tiny.adapter(layout, dtype=torch.float64)
    ids = tiny.tokens(1, 5)
    with adapted(model, adapter, torch.tensor([0])):
        got = logits(model, ids)
    assert got.dtype == torch.bfloat16
    exact, _ = setup()
    exact.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    with adapted(exact, adapter, torch.tensor([0])):
        torch.testing.assert_close(got.float(), logits(exact, ids), atol=0.2, rtol=0.1)
