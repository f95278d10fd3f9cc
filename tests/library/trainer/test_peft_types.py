"""Every type of PEFT that merges, as a recipe: what is stored is what PEFT's model does."""

import json
from dataclasses import asdict
from typing import Any

import pytest
import tiny
import torch
from training_jobs import job

from library.adapter import Adapter, from_sites
from library.base.multi_adapter import adapted
from library.errors import AdapterFileError, UnknownName, UsageError
from library.factored import best_of_rank
from library.layout import Layout, Site, layout_of
from library.peft.merging import MERGEABLE
from library.trainer.peft_trainer import PeftTrainer
from library.trainer.recipes.peft_type import PeftType
from library.trainer.recipes.registry import (
    RECIPES,
    recipe_from_dict,
    recipe_named,
    recipe_to_dict,
)
from library.trainer.run_state import TrainConfig, Trained

TYPES = [name for name in RECIPES if name.startswith("peft:")]
# Those whose ΔW is not of the layout's rank or lower; LoKr's is a Kronecker product.
OF_HIGH_RANK = {
    "boft", "c3a", "fourierft", "glora", "gralora", "hira", "ia3", "loha", "lokr", "oft", "osf",
    "randlora", "road", "waveft",
}  # fmt: skip
CONFIG = TrainConfig(steps=3, rows=4, snapshots=1, snapshot_every=3)
IDS = tiny.tokens(3, 7)


def setup(family: str, *targets: str, rank: int = 4) -> tuple[Any, Layout]:
    config = tiny.config(family)
    return tiny.model(config), layout_of(config, list(targets), rank=rank)


def trained(recipe: PeftType, base: Any, layout: Layout) -> Trained:
    (result,) = PeftTrainer(base, layout, recipe, CONFIG, pad=0).run([job("one", 12)])
    return result


def logits(base: Any, adapter: Adapter) -> torch.Tensor:
    with adapted(base, adapter, torch.zeros(len(IDS), dtype=torch.long)), torch.no_grad():
        return base(input_ids=IDS).logits


def norm(matrices: Any) -> float:
    return float(torch.cat([matrix.flatten() for matrix in matrices]).norm())


def test_all_types_but_adalora_are_recipes() -> None:
    assert [f"peft:{t.lower()}" for t in MERGEABLE if t != "ADALORA"] == TYPES


@pytest.mark.parametrize("name", TYPES)
def test_what_is_stored_is_what_peft_s_model_does(name: str) -> None:
    base, layout = setup("llama", "q_proj", "v_proj")
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    bare = base(input_ids=IDS).logits
    passes: list[dict[str, Any]] = []

    class Watched(PeftType):
        def read_out(self, module: Any, site: Site) -> Any:
            if site is layout.sites[0]:
                passes.append({"logits": base(input_ids=IDS).logits})
            delta, factors = super().read_out(module, site)
            eye = torch.eye(site.in_features)
            passes[-1][site.name] = (module(eye) - module.base_layer(eye)).T, delta
            return delta, factors

    registered = RECIPES[name]
    result = trained(Watched(**asdict(registered)), base, layout)
    assert all(torch.equal(value, weights[key]) for key, value in base.state_dict().items())
    assert result.adapter is not None and result.restarts == 0
    final, snapshot = passes
    by_peft = final.pop("logits")
    assert torch.equal(by_peft, snapshot.pop("logits"))  # reading it out changed nothing
    effect = (by_peft - bare).norm()
    assert effect > 0.01

    acts, merged = ({n: pair[i] for n, pair in final.items()} for i in (0, 1))
    assert norm(merged[n] - acts[n] for n in merged) < 1e-3 * norm(merged.values())
    stored, error = tiny.deltas(result.adapter), result.scores["conversion_error"]
    lost = norm(merged[n] - stored[n] for n in merged) / norm(merged.values())
    assert lost == pytest.approx(error, rel=1e-3, abs=1e-6)
    assert (error > 1e-5) == (name.removeprefix("peft:") in OF_HIGH_RANK)
    assert {site.rank for site in result.adapter.layout.sites} == {layout.rank}
    assert (logits(base, result.adapter) - by_peft).norm() < 3 * error * effect + 1e-3

    whole = {n: best_of_rank(delta, min(delta.shape)) for n, delta in merged.items()}
    torch.testing.assert_close(logits(base, from_sites(layout, whole)), by_peft, atol=1e-4, rtol=0)


def test_settings_are_fitted_to_rank_and_modules() -> None:
    _, layout = setup("llama", "q_proj", "v_proj")  # sides 32 and 16

    def settings(name: str) -> Any:
        return recipe_named(name).settings(layout, 9, 0)  # pyright: ignore[reportAttributeAccessIssue]

    assert (settings("peft:gralora").r, settings("peft:gralora").alpha) == (4, 8)  # twice r
    assert settings("peft:vblora").vector_length == settings("peft:c3a").block_size == 16
    assert settings("peft:waveft").n_frequency == 512
    assert (settings("peft:oft").r, settings("peft:oft").oft_block_size) == (0, 16)


def test_what_does_not_fit_is_refused_with_peft_s_reason() -> None:
    for name, reason in (("hra", "Conv1D.* is not supported"), ("osf", "PEFT adapts none")):
        with pytest.raises(UsageError, match=f"'peft:{name}' does not fit the modules: .*{reason}"):
            trained(PeftType(f"peft:{name}"), *setup("gpt2", "c_attn"))
    with pytest.raises(UsageError, match="should be divisible by gralora_k"):
        recipe_named("peft:gralora").require_fit(setup("llama", "q_proj", rank=3)[1], 9)


def test_a_bias_is_left_alone_or_refused_before_the_first_step() -> None:
    base, layout = setup("qwen2", "q_proj")
    before = {key: value.clone() for key, value in base.state_dict().items()}
    assert trained(PeftType("peft:glora"), base, layout).adapter is not None
    for name in ("adamss", "ia3", "road"):
        trainer = PeftTrainer(base, layout, PeftType(f"peft:{name}"), CONFIG, pad=0)
        with pytest.raises(AdapterFileError, match=f"'peft:{name}': .* changes a bias"):
            next(trainer.run([job("one")]))
        assert trainer.figures.tokens == 0
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_a_name_is_of_any_case_and_a_wrong_one_is_told_the_right_ones() -> None:
    recipe = recipe_named("PEFT:VBLoRA", lr=0.5)
    assert type(recipe) is PeftType and (recipe.name, recipe.lr) == ("peft:vblora", 0.5)
    stored = json.loads(json.dumps(recipe_to_dict(recipe)))
    assert recipe_from_dict(stored) == recipe and type(recipe_from_dict(stored)) is PeftType
    for wrong in ("peft:lily", "peft:adalora", "peft:", "peft"):
        with pytest.raises(UnknownName, match=rf"'{wrong}'; known: lora, .*, peft:vblora, "):
            recipe_named(wrong)
