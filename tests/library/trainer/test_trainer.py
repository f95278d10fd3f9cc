"""The batched trainer, held to PEFT with torch's own AdamW, one task alone."""

import gc
import weakref
from dataclasses import replace
from itertools import islice
from typing import Any

import peft
import pytest
import tiny
import torch
from torch import Tensor
from training_jobs import job

from library.base.batches import TokenRow, grouped
from library.base.loss import answer_logits, token_losses
from library.layout import Layout, layout_of
from library.trainer import cuda_graphs
from library.trainer.batched import BatchedTrainer
from library.trainer.optimiser import StackedAdamW, shared_start
from library.trainer.recipes.recipe import Recipe, TrainingJob
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import (
    Check,
    RunState,
    TrainConfig,
    Trained,
    TrainingJob,
    best_check,
    shuffled_rows,
)

STEPS = 5
CONFIG = TrainConfig(steps=STEPS, rows=3, slots=2, micro_batches=2, patience=0)


def setup(dtype: torch.dtype = torch.float64) -> tuple[Any, Layout]:
    config = tiny.config("llama")
    return tiny.model(config, dtype=dtype), layout_of(config, ["q_proj", "v_proj"], rank=4)


def trained(
    jobs: list[TrainingJob],
    config: TrainConfig,
    recipe: Recipe,
    *,
    packed: bool = False,
    **model: Any,
) -> list[Trained]:
    base, layout = setup(**model)
    trainer = BatchedTrainer(base, layout, recipe, config, pad=0, seed=3, packed=packed)
    return list(trainer.run(jobs))


def alone_in_peft(job: TrainingJob, recipe: Recipe) -> dict[str, Tensor]:
    """ΔW's factors after STEPS steps on the same batches, by PEFT and torch."""
    base, layout = setup()
    settings = peft.LoraConfig(
        r=layout.rank,
        lora_alpha=int(recipe.alpha),
        target_modules=["q_proj", "v_proj"],
        use_rslora=recipe.rank_stabilised,
    )
    model = peft.get_peft_model(base, settings).double()
    start = shared_start(layout, 3, torch.float64)
    initial = {s.name: start.site(s)[0][0] for s in layout.sites}
    a, b = {}, {}
    for name, module in model.named_modules():
        site = name.removeprefix("base_model.model.")
        if site in initial and hasattr(module, "lora_A"):
            a[site], b[site] = module.lora_A["default"].weight, module.lora_B["default"].weight
            a[site].data.copy_(initial[site])
            a[site].requires_grad_(not recipe.freeze_a)
    groups = [
        {"params": [p for p in a.values() if p.requires_grad], "lr": recipe.lr},
        {"params": list(b.values()), "lr": recipe.lr * recipe.b_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: recipe.rate(k, STEPS))
    rows = shuffled_rows(job)
    for _ in range(STEPS):
        (batch,) = grouped(list(islice(rows, CONFIG.rows)), 0, 1)
        logits = answer_logits(model.base_model.model, batch.ids, batch.answer)
        token_losses(logits, batch.ids, batch.answer)[0].mean().backward()
        parameters = [p for group in groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    scale = recipe.scale(layout.rank)
    return {f"{n} A": a[n].detach() for n in a} | {f"{n} B": scale * b[n].detach() for n in b}


@pytest.mark.parametrize("packed", [False, True], ids=["grouped", "packed"])
@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if r.is_plain])
def test_each_adapter_is_what_peft_makes_of_its_task_alone(name: str, packed: bool) -> None:
    recipe = replace(RECIPES[name], lr=1e-2, weight_decay=0.1, clip=0.3)
    jobs = [job(n) for n in ("one", "two", "three")]  # the third takes a slot that became free
    for result in trained(jobs, CONFIG, recipe, packed=packed):
        assert result.adapter is not None and result.steps == STEPS
        expected = alone_in_peft(result.job, recipe)
        assert [check.step for check in result.checks] == [STEPS]  # one evaluation, at the end
        for site in result.adapter.layout.sites:
            a, b = result.adapter.site(site)
            torch.testing.assert_close(a[0], expected[f"{site.name} A"], atol=1e-8, rtol=0)
            torch.testing.assert_close(b[0], expected[f"{site.name} B"], atol=1e-8, rtol=0)
            assert b.abs().max() > 1e-3


def test_graphs_go_with_the_run_without_garbage_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[weakref.ref[cuda_graphs.Replayed]] = []

    class Watched(cuda_graphs.Replayed):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            seen.append(weakref.ref(self))

    monkeypatch.setattr(cuda_graphs, "Replayed", Watched)
    gc.disable()
    try:
        trained([job("one")], CONFIG, RECIPES["lora"], packed=True)
        assert seen and not any(replayed() for replayed in seen)
    finally:
        gc.enable()


@pytest.mark.parametrize("packed", [False, True], ids=["grouped", "packed"])
def test_an_adapter_that_goes_non_finite_restarts_alone(packed: bool) -> None:
    recipe = replace(RECIPES["lora"], lr=1e-2)
    wild, calm = job("wild"), job("calm")
    undisturbed = trained([calm], CONFIG, recipe, packed=packed)[0]
    base, layout = setup()
    trainer = BatchedTrainer(base, layout, recipe, CONFIG, pad=0, seed=3, packed=packed)
    original, seen = StackedAdamW.step, []

    def poisoned(self: StackedAdamW, rates: list[float]) -> Tensor:
        finite = original(self, rates)
        if len(seen) == 1:  # after the second step slot 0's weights are lost
            self.parameters[0].data[0] = float("nan")
        seen.append(list(rates))
        return finite

    trainer.optimiser.step = poisoned.__get__(trainer.optimiser)
    results = {r.job.name: r for r in trainer.run([wild, calm])}
    assert (results["wild"].restarts, results["calm"].restarts) == (1, 0)
    assert results["wild"].steps == STEPS
    assert seen[3][0] == pytest.approx(seen[0][0] / 2)
    for actual, expected in zip(
        results["calm"].adapter.factors(), undisturbed.adapter.factors(), strict=True
    ):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_a_hopeless_adapter_is_given_up() -> None:
    config = replace(CONFIG, restarts=2)
    recipe = replace(RECIPES["lora"], lr=1e300)
    (result,) = trained([job("hopeless")], config, recipe)
    assert result.adapter is None and result.restarts == 2


def test_an_adapter_that_gets_no_better_stops_and_frees_its_slot() -> None:
    config = replace(CONFIG, steps=40, slots=1, check_every=2, patience=2)
    recipe = replace(RECIPES["lora"], lr=0.3)  # too fast to learn from
    first, second = trained([job("first"), job("second")], config, recipe)
    assert first.steps < 40 and [first.job.name, second.job.name] == ["first", "second"]
    best = best_check(first.checks)
    assert best == first.checks[-3]  # two evaluations without a better one


def test_progress_counts_the_steps_of_all_jobs() -> None:
    base, layout = setup()
    config = replace(CONFIG, slots=2)
    trainer = BatchedTrainer(base, layout, RECIPES["lora"], config, pad=0)
    calls: list[tuple[int, int]] = []
    list(trainer.run([job(n) for n in ("a", "b", "c")], lambda *call: calls.append(call)))
    done = [step for step, _ in calls]
    assert done == [*range(2, 2 * STEPS + 1, 2), *range(2 * STEPS + 1, 3 * STEPS + 1)]
    assert {total for _, total in calls} == {3 * STEPS}


def test_ties_in_accuracy_go_to_the_lower_loss() -> None:
    state: RunState[str] = RunState(job("a"), RECIPES["lora"], replace(CONFIG, patience=2))
    outcomes = []
    for step, (accuracy, loss) in enumerate([(0.5, 2.0), (0.5, 1.0), (0.5, 1.0), (0.4, 0.1)]):
        state.record(Check(step, accuracy, loss))
        outcomes.append((state.is_best, state.is_done))
    assert outcomes == [(True, False), (True, False), (False, False), (False, True)]
    assert best_check(state.checks) == Check(1, 0.5, 1.0)


def test_snapshots_are_the_last_states() -> None:
    config = replace(CONFIG, snapshots=2, snapshot_every=1)
    (result,) = trained([replace(job("a"), tune=())], config, replace(RECIPES["lora"], lr=1e-2))
    assert len(result.snapshots) == 2 and result.adapter is not None
    for last, final, before in zip(
        result.snapshots[1].factors(),
        result.adapter.factors(),
        result.snapshots[0].factors(),
        strict=True,
    ):
        assert torch.equal(last, final) and not torch.equal(last, before)


def test_runs_are_equal_to_the_bit() -> None:
    jobs = [job(n) for n in ("a", "b", "c", "d")]
    runs = [trained(jobs, CONFIG, RECIPES["lora"], dtype=torch.float32) for _ in range(2)]
    for one, two in zip(*runs, strict=True):
        assert one.job == two.job and one.checks == two.checks
        assert one.adapter is not None and two.adapter is not None
        assert all(map(torch.equal, one.adapter.factors(), two.adapter.factors()))


def test_non_uniform_ranks_stay_padded_with_zeros() -> None:
    base, layout = setup()
    ragged = tiny.with_ranks(layout, [4, 1, 2])
    trainer = BatchedTrainer(base, ragged, replace(RECIPES["lora"], lr=1e-2), CONFIG, pad=0, seed=3)
    (result,) = trainer.run([job("a")])
    assert result.adapter is not None
    for group in ragged.groups:
        for position, site in enumerate(group.sites):
            assert not result.adapter.A[group.key][0, position, site.rank :].any()
            assert not result.adapter.B[group.key][0, position, :, site.rank :].any()
            assert result.adapter.B[group.key][0, position, :, : site.rank].any()


def run_state(training_job: TrainingJob, **settings: int) -> RunState[str]:
    return RunState(training_job, RECIPES["lora"], replace(CONFIG, **settings))


def steps_where(state: RunState[str], attribute: str, steps: int) -> list[int]:
    """The steps at which a property of the state holds."""
    hits = []
    for state.step in range(1, steps + 1):
        if getattr(state, attribute):
            hits.append(state.step)
    return hits


def test_snapshots_and_evaluations_are_due_every_so_many_steps_and_at_the_end() -> None:
    settings = {"steps": 7, "check_every": 3, "snapshots": 2, "snapshot_every": 2}
    state = run_state(job("a"), **settings)
    assert steps_where(state, "snapshot_is_due", 7) == [2, 4, 6]
    assert steps_where(state, "evaluation_is_due", 7) == [3, 6, 7]
    assert steps_where(state, "is_done", 9) == [7, 8, 9]
    without = run_state(replace(job("a"), tune=()), **settings | {"snapshots": 0})
    assert steps_where(without, "snapshot_is_due", 7) == []
    assert steps_where(without, "evaluation_is_due", 7) == []
    assert steps_where(
        run_state(job("a"), snapshots=1, snapshot_every=5), "snapshot_is_due", 6
    ) == [5]


def test_patience_zero_never_ends_a_run() -> None:
    patient, hasty = run_state(job("a"), patience=0), run_state(job("a"), patience=1)
    for state in (patient, hasty):
        state.record(Check(1, 0.5, 1.0))
        assert (state.is_best, state.evaluations_since_best, state.is_done) == (True, 0, False)
        state.record(Check(2, 0.5, 1.0))
        assert (state.is_best, state.evaluations_since_best) == (False, 1)
    assert (patient.is_done, hasty.is_done) == (False, True)


def test_a_restart_begins_anew_at_half_the_rate_until_it_fails() -> None:
    state = run_state(job("a"), restarts=2, snapshots=2)
    rate, first = state.learning_rate, state.draw()
    for restarts in (1, 2):
        state.record(Check(1, 0.5, 1.0))
        state.record(Check(2, 0.4, 1.0))
        state.snapshots.append("state")
        state.step, state.best = 3, "best"
        state.restart()
        assert (state.restarts, state.failed, state.is_done) == (restarts, False, False)
        assert (state.step, state.evaluations_since_best, state.is_best) == (0, 0, False)
        assert (state.checks, state.best, list(state.snapshots)) == ([], None, [])
        assert state.learning_rate == pytest.approx(rate / 2**restarts)
        assert state.draw() == first
    state.restart()
    assert (state.restarts, state.failed, state.is_done) == (2, True, True)


def test_a_result_is_the_state_s() -> None:
    state = run_state(job("a"), restarts=1)
    state.restart()
    check = Check(2, 0.5, 1.0)
    state.record(check)
    state.step = 4
    result = state.result(None, (), accuracy=0.25)
    assert result == Trained(state.job, None, 4, 1, [check], [], {"accuracy": 0.25})


def test_every_epoch_takes_all_rows_in_an_order_of_its_own() -> None:
    one = job("a", count=20)
    orders = list(islice(shuffled_rows(one), 60))
    epochs = [orders[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(map(repr, epoch)) == sorted(map(repr, one.train)) for epoch in epochs)
    others = [replace(one, name="b"), replace(one, seed=1)]
    firsts = [list(islice(shuffled_rows(other), 20)) for other in others]
    assert len({tuple(map(repr, order)) for order in (*epochs, *firsts)}) == 5
    assert list(islice(shuffled_rows(one), 60)) == orders


def test_the_best_evaluation_is_the_first_of_the_greatest_score() -> None:
    checks = [Check(1, 0.5, 1.0), Check(2, 0.6, 2.0), Check(3, 0.6, 1.5), Check(4, 0.6, 1.5)]
    assert best_check(checks) == checks[2]
    assert best_check([]) is None


def test_figures_count_the_tokens_of_every_step() -> None:
    base, layout = setup()
    row = TokenRow(0, [3, 4, 5, 6], [7, 8, 9, 10, 11])  # the last is not run: no padding
    same = TrainingJob("a", (row,) * 4)
    trainer = BatchedTrainer(base, layout, RECIPES["lora"], CONFIG, pad=0)
    assert (trainer.figures.tokens, trainer.figures.cells) == (0, 0)
    list(trainer.run([same]))
    assert trainer.figures.tokens == trainer.figures.cells == STEPS * CONFIG.rows * 9
