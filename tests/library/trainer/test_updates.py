"""Update rules, held to PEFT's optimiser and to what they are to minimise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from building import content
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_riemannian_optimizer
from torch import Tensor
from training_jobs import job

from api.cli.main import main
from library.adapter import Adapter
from library.base.batches import grouped
from library.base.loss import row_scores
from library.errors import UnknownName, UsageError
from library.layout import Layout, layout_of
from library.trainer.batched import BatchedTrainer
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes.recipe import Recipe
from library.trainer.recipes.registry import (
    RECIPES,
    recipe_from_dict,
    recipe_named,
    recipe_to_dict,
)
from library.trainer.recipes.updates import UPDATES, allora, lora_pro
from library.trainer.run_state import TrainConfig

RULES = [name for name in UPDATES if name != "adamw"]
CONFIG = TrainConfig(steps=8, rows=4, slots=2, micro_batches=1, patience=0, check_every=8)
SCALE = 2.0


def setup() -> tuple[Any, Layout]:
    config = tiny.config("llama")
    return tiny.model(config, dtype=torch.float64), layout_of(config, ["q_proj", "v_proj"], rank=4)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def factors() -> tuple[Tensor, Tensor, Tensor]:
    """A and B of three adapters and two modules, and the gradients on ΔW."""
    return random(3, 2, 2, 6), random(3, 2, 5, 2, seed=1), random(3, 2, 5, 6, seed=2)


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_riemannian_is_peft_s() -> None:
    """Three steps by the same gradients."""
    base, layout = setup()
    recipe = Recipe("lora", lr=0.01, weight_decay=0.1, clip=1e9, update="riemannian")
    start = shared_start(layout, 3, torch.float64)
    stacked = StackedAdamW(start, 2, recipe)
    model: Any = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).double()
    modules = [model.get_base_model().get_submodule(site.name) for site in layout.sites]
    pairs = [(m.lora_A["default"].weight, m.lora_B["default"].weight) for m in modules]
    for site, (a, _) in zip(layout.sites, pairs, strict=True):
        a.data.copy_(start.site(site)[0][0])
    peer = create_riemannian_optimizer(model, torch.optim.AdamW, lr=0.01, weight_decay=0.1)
    for step in range(3):
        for i, parameter in enumerate(stacked.parameters):
            parameter.grad = random(*parameter.shape, seed=10 * step + i)
        gradients = Adapter(layout, *[
            dict(zip(start.A, [p.grad for p in half], strict=True))
            for half in (stacked.parameters[:2], stacked.parameters[2:])
        ])  # fmt: skip
        for site, pair in zip(layout.sites, pairs, strict=True):
            for parameter, gradient in zip(pair, gradients.site(site), strict=True):
                parameter.grad = gradient[1].clone()
        stacked.step([0.005, 0.01])
        peer.step()
    adapters = stacked.adapters()
    for site, (a, b) in zip(layout.sites, pairs, strict=True):
        torch.testing.assert_close(adapters.site(site)[0][1], a, atol=1e-10, rtol=0)
        torch.testing.assert_close(adapters.site(site)[1][1], 4 * b, atol=1e-10, rtol=0)


def test_lora_pro_moves_along_the_projected_gradient() -> None:
    """ΔW's move is the orthogonal projection of the full gradient onto all moves that there are."""
    a, b, full = factors()
    on_a, on_b = SCALE * b.mT @ full, SCALE * full @ a.mT
    new_a, new_b = lora_pro(a, b, on_a, on_b, SCALE)
    move = SCALE * (b @ new_a + new_b @ a)
    onto_b, onto_a = b @ torch.linalg.pinv(b), torch.linalg.pinv(a) @ a
    assert_close(move, onto_b @ full + full @ onto_a - onto_b @ full @ onto_a)
    # What is left over is orthogonal to every move of either factor.
    assert_close(b.mT @ (full - move), torch.zeros_like(on_a))
    assert_close((full - move) @ a.mT, torch.zeros_like(on_b))


def test_lora_pro_stays_as_near_to_the_gradients_as_it_can() -> None:
    """Other pairs with that move (A + X·A, B − B·X) are further from the gradients."""
    a, b, full = factors()
    on_a, on_b = SCALE * b.mT @ full, SCALE * full @ a.mT
    new_a, new_b = lora_pro(a, b, on_a, on_b, SCALE)
    x = torch.zeros(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    distance = (new_a + x @ a - on_a).square().sum() + (new_b - b @ x - on_b).square().sum()
    (slope,) = torch.autograd.grad(distance, x)
    assert slope.abs().max() < 1e-5


def test_allora_scales_rows_by_the_root_of_their_norms() -> None:
    a, b, _ = factors()
    b[0, 0, 0] = 0
    new_a, new_b = allora(a, b, torch.ones_like(a), torch.ones_like(b), SCALE)
    assert_close(new_b[0, 0, 0], torch.full((2,), 10.0).double())
    assert_close(new_b[1, 1, 3, 0], (b[1, 1, 3].norm() + 0.01) ** -0.5)
    assert_close(new_a[1, 1, 1, 5], (a[1, 1, 1].norm() + 0.01) ** -0.5)
    assert recipe_named("lora", update="allora").scale(8) == 1 and RECIPES["lora"].scale(8) == 2


@pytest.mark.parametrize("update", RULES)
def test_adapters_learn_apart_and_one_that_is_lost_restarts_alone(update: str) -> None:
    recipe = replace(recipe_named("lora", update=update), lr=2e-2)
    calm, wild = job("calm", 12), job("wild", 12)
    calm = replace(calm, tune=calm.train)
    base, layout = setup()

    def trainer() -> BatchedTrainer:
        return BatchedTrainer(base, layout, recipe, CONFIG, pad=0, seed=3)

    (alone,) = trainer().run([calm])
    together = trainer()
    original, steps = together.optimiser.step, []

    def poisoned(rates: list[float]) -> Tensor:
        finite = original(rates)
        steps.append(rates)
        if len(steps) == 2:
            together.optimiser.parameters[0].data[1] = float("nan")
        return finite

    together.optimiser.step = poisoned
    results = {result.job.name: result for result in together.run([calm, wild])}
    assert (results["calm"].restarts, results["wild"].restarts) == (0, 1)
    one, other = results["calm"].adapter, alone.adapter
    assert one is not None and other is not None
    for actual, expected in zip(one.factors(), other.factors(), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=0)
    (rows,) = grouped(calm.tune, 0, 1)
    bare = float(row_scores(base, rows)[1].detach().mean())
    assert alone.checks[-1].loss < bare - 0.1 and results["wild"].adapter is not None


def test_a_rule_is_part_of_a_plan_only_if_there_is_one() -> None:
    assert "update" not in recipe_to_dict(RECIPES["lora"])
    ruled = recipe_named("lora-plus", update="lora-pro")
    stored = json.loads(json.dumps(recipe_to_dict(ruled)))
    assert stored["update"] == "lora-pro" and recipe_from_dict(stored) == ruled
    assert recipe_from_dict(recipe_to_dict(RECIPES["lora"])) == RECIPES["lora"]


@pytest.mark.parametrize("recipe", ["lora-fa", "moslora", "dora"])
def test_a_rule_takes_a_and_b_themselves(recipe: str) -> None:
    layout = setup()[1]
    with pytest.raises(UsageError, match=f"update 'allora' takes a recipe .* not '{recipe}'"):
        recipe_named(recipe, update="allora").require_fit(layout, 9)
    with pytest.raises(UsageError, match="update 'allora' takes one rank"):
        recipe_named("lora", update="allora").require_fit(tiny.with_ranks(layout, [4, 2]), 9)
    with pytest.raises(UnknownName, match="unknown update rule 'sgd'; known: adamw, riemannian"):
        recipe_named(recipe, update="sgd")


def test_a_library_is_built(tiny_base: Path, tmp_path: Path) -> None:
    tasks, out = tmp_path / "tasks", tmp_path / "library"
    tasks.mkdir()
    rows = [{"input": f"one {i}", "output": f"one {i % 3}"} for i in range(70)]
    (tasks / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "one.txt").write_text("Answer.")
    command = ["library", "build", "--tasks", str(tasks), "--base", str(tiny_base), "--out",
               str(out), "--steps", "2", "--rows", "2", "--rank", "4"]  # fmt: skip
    assert main([*command, "--recipe", "dora", "--update", "lora-pro"]) == 2 and not out.exists()
    assert main([*command, "--update", "lora-pro"]) == 0
    (record,) = content(out)
    assert (record["recipe"], record["update"]) == ("lora", "lora-pro")
    provenance = json.loads((out / "adapters" / record["id"] / "provenance.json").read_text())
    assert "lora-pro" in json.dumps(provenance)
    assert main([*command, "--resume"]) == 2
    assert main([*command, "--update", "lora-pro", "--resume"]) == 0
