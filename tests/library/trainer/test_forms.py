"""Forms of the factors: exactly LoRA in the end, nothing at the start, learning in between."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from training_jobs import job

from library.adapter import Adapter
from library.base.batches import TokenRow, grouped
from library.base.loss import row_scores
from library.errors import UsageError
from library.layout import Layout, layout_of
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.trainer.batched import BatchedTrainer
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.recipes.registry import FORMS, recipe_named
from library.trainer.run_state import TrainConfig, Trained

CONFIG = TrainConfig(steps=4, rows=3, slots=2, micro_batches=1, patience=0)
SITE = Callable[[dict[str, Tensor], int, int], Any]  # of parameters, slot and site
# ΔW of a site without the scale, as the papers write it.
DELTAS: dict[str, SITE] = {
    "share-lora": lambda p, n, s: p["B"][n, s] @ p["A"][n, 0],
    "share-lora-b": lambda p, n, s: p["B"][n, 0] @ p["A"][n, s],
    "moslora": lambda p, n, s: p["B"][n, s] @ p["mixer"][n, s] @ p["A"][n, s],
    "multi-lora": lambda p, n, s: sum(
        p["scales"][n, s, :, i].diag() @ p["B"][n, s, :, half] @ p["A"][n, s, half]
        for i, half in enumerate((slice(0, 2), slice(2, 4)))
    ),
    "lotr": lambda p, n, s: p["U"][n, 0] @ p["cores"][n, s] @ p["V"][n, 0],
    "msp-lora": lambda p, n, s: (  # of three layers, so that a third of them is one
        p["B_global"][n, 0] @ p["A_global"][n, 0]
        + p["B_middle"][n, s] @ p["A_middle"][n, s]
        + p["B_layer"][n, s] @ p["A_layer"][n, s]
    ),
    "fedsa": lambda p, n, s: p["B"][n, s] @ p["A"][0, s],
    "lora-sb": lambda p, n, s: p["U"][n, s] @ p["R"][n, s] @ p["V"][n, s],
    "as-lora": lambda p, n, s: (
        (p["shares"][n, 0, s, :, None, None] * p["B"][n]).sum(0) @ p["A"][n, 0]
    ),
}
forms = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def setup(dtype: torch.dtype = torch.float64) -> tuple[Any, Layout]:
    config = tiny.config("llama", num_hidden_layers=3)
    return tiny.model(config, dtype=dtype), layout_of(config, ["q_proj", "v_proj"], rank=4)


def optimiser(form: Recipe, layout: Layout) -> StackedAdamW:
    return StackedAdamW(shared_start(layout, 3, torch.float64), 2, form, seed=3)


def trainer(form: Recipe, config: TrainConfig = CONFIG, *, packed: bool = False) -> BatchedTrainer:
    base, layout = setup()
    fast = replace(form, lr=2e-2)
    return BatchedTrainer(base, layout, fast, config, pad=0, seed=3, packed=packed)


def trained(form: Recipe, jobs: list[TrainingJob], *, packed: bool = False) -> dict[str, Trained]:
    return {r.job.name: r for r in trainer(form, packed=packed).run(jobs)}


def adapter_of(result: Trained) -> Adapter:
    assert result.adapter is not None
    return result.adapter


def assert_close(one: Adapter, other: Adapter, atol: float = 1e-9) -> None:
    for actual, expected in zip(one.factors(), other.factors(), strict=True):
        torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@forms
def test_a_start_changes_nothing(form: Recipe) -> None:
    assert optimiser(form, setup()[1]).adapters().to(dtype=torch.float64).is_zero()


@forms
def test_what_is_stored_is_the_form_s_update(form: Recipe, tmp_path: Path) -> None:
    """Any values of the parameters, in float64, against the formula; then through a file."""
    layout = setup()[1]
    stacked, random = optimiser(form, layout), torch.Generator().manual_seed(1)
    for parameter in stacked.parameters:
        parameter.data += torch.rand(parameter.shape, generator=random, dtype=torch.float64) - 0.5
    adapters = stacked.adapters()[[1]].to("cpu")
    for number, group in enumerate(layout.groups):
        parameters = stacked.groups[number]
        for i, site in enumerate(group.sites):
            a, b = adapters.site(site)
            expected = form.scale(site.rank) * DELTAS[form.name](parameters, 1, i)
            torch.testing.assert_close(b[0] @ a[0], expected, atol=1e-12, rtol=1e-12)
    files = to_peft(adapters, base_name="tiny", profile="lossless")
    (tmp_path / CONFIG_FILE).write_bytes(files.config_bytes)
    (tmp_path / WEIGHTS_FILE).write_bytes(files.weights)
    assert_close(read_peft(tmp_path, layout).to(dtype=torch.float64), adapters, atol=1e-6)


@forms
def test_all_that_is_trained_moves_and_the_loss_falls(form: Recipe) -> None:
    learned = replace(job("one", 12), tune=job("one", 12).train)
    trains = trainer(form, replace(CONFIG, steps=16, check_every=16, rows=4))
    before = [parameter.detach().clone() for parameter in trains.optimiser.parameters]
    (result,) = trains.run([learned])
    (rows,) = grouped(learned.tune, 0, 1)
    bare = float(row_scores(setup()[0], rows)[1].detach().mean())
    assert result.checks[-1].loss < bare - 0.1
    for old, new in zip(before, trains.optimiser.parameters, strict=True):
        if new.requires_grad:
            assert (old[0] != new[0]).any(dim=(-1, -2)).all()


@forms
def test_an_adapter_learns_from_its_own_rows_alone(form: Recipe) -> None:
    jobs = [job(name) for name in ("one", "two", "three")]  # the third takes a slot that came free
    together = trained(form, jobs)
    for one in jobs[1:]:
        alone = adapter_of(trained(form, [one])[one.name])
        if form.over_slots:
            with pytest.raises(AssertionError):
                assert_close(adapter_of(together[one.name]), alone)
        else:
            assert_close(adapter_of(together[one.name]), alone)


@forms
def test_what_a_form_cannot_serve_is_refused(form: Recipe) -> None:
    layout = setup()[1]
    for wrong in (layout.with_rank(33), tiny.with_ranks(layout, [4, 2])):
        with pytest.raises(UsageError, match=f"recipe '{form.name}' takes"):
            form.require_fit(wrong, 100)
    form.require_fit(layout, 100)
    with pytest.raises(UsageError, match="cannot go on from an adapter"):
        optimiser(form, layout).reset(0, tiny.adapter(layout))


def test_one_factor_is_the_same_in_all_layers() -> None:
    for name, tied, own in (("share-lora", "A", "B"), ("share-lora-b", "B", "A")):
        adapter = adapter_of(trained(recipe_named(name), [job("one")])["one"])
        for group in adapter.layout.groups:
            shared, others = getattr(adapter, tied)[group.key], getattr(adapter, own)[group.key]
            assert torch.equal(shared, shared[:, :1].expand_as(shared))
            assert not torch.equal(others[:, 0], others[:, 1])


def test_adapters_that_train_at_once_have_one_a() -> None:
    jobs = [replace(job(name), tune=()) for name in ("one", "two")]
    one, two = (adapter_of(r) for r in trained(recipe_named("fedsa"), jobs).values())
    start = shared_start(one.layout, 3, torch.float64)
    for key in one.A:
        assert torch.equal(one.A[key], two.A[key]) and not torch.equal(one.A[key], start.A[key])
        assert not torch.equal(one.B[key], two.B[key])


@pytest.mark.parametrize("packed", [False, True], ids=["grouped", "packed"])
def test_lora_sb_starts_with_a_step_along_the_first_gradient(packed: bool) -> None:
    """On so few tokens that its rank is below the form's, the gradient itself, by autograd."""
    row = TokenRow(0, [3, 4], [5])
    trains = trainer(recipe_named("lora-sb"), replace(CONFIG, steps=1, rows=1), packed=packed)
    seen: list[Adapter] = []
    trains.optimiser.step = lambda rates: (  # only the start is looked at
        seen.append(trains.optimiser.adapters()[[0]]) or torch.ones(len(rates)).bool()
    )
    list(trains.run([TrainingJob("one", (row,))]))
    base, layout = setup()
    weights = {site.name: base.get_submodule(site.name).weight for site in layout.sites}
    for weight in weights.values():
        weight.requires_grad_()
    base(input_ids=torch.tensor([[3, 4]])).logits[0, -1].log_softmax(-1)[5].neg().backward()
    for site in layout.sites:
        gradient = weights[site.name].grad
        a, b = (factor[0].detach() for factor in seen[0].site(site))
        length = 2e-2 * gradient.numel() ** 0.5
        torch.testing.assert_close(b @ a, -gradient * length / gradient.norm())


def test_the_most_similar_bs_become_one_half_way() -> None:
    form = recipe_named("as-lora")
    b = torch.randn(1, 5, 6, 2, generator=torch.Generator().manual_seed(0))
    b[0, 3], b[0, 4] = 2 * b[0, 1], b[0, 0] + 0.01
    p = {"A": torch.ones(1, 1, 2, 3), "B": b, "shares": torch.eye(5)[None, None]}
    after = form.expand({**p, **form.midway(0, p)})[1][0]
    assert torch.equal(form.expand(p)[1], b)
    torch.testing.assert_close(after[0], (b[0, 0] + b[0, 4]) / 2)
    torch.testing.assert_close(after[1], (b[0, 1] + b[0, 3]) / 2)
    assert torch.equal(after[2], b[0, 2]) and len(after.flatten(1).unique(dim=0)) == 3
    adapter = adapter_of(trained(form, [job("one")])["one"])
    assert all(len(f[0].flatten(1).unique(dim=0)) == 2 for f in adapter.B.values())


def test_as_lora_counts_no_check_before_its_bs_are_put_together() -> None:
    config = replace(CONFIG, steps=8, check_every=1)
    (result,) = trainer(recipe_named("as-lora"), config).run([job("one")])
    assert [check.step for check in result.checks] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(("name", "rank", "steps"), [
    ("multi-lora", 3, 9), ("as-lora", 4, 1),
])  # fmt: skip
def test_ranks_and_steps_of_one_form_alone(name: str, rank: int, steps: int) -> None:
    with pytest.raises(UsageError, match=f"recipe '{name}' takes a"):
        recipe_named(name).require_fit(setup()[1].with_rank(rank), steps)
