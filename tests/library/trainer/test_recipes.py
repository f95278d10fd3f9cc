"""Recipes that PEFT trains: what is stored is what PEFT trained, and the base is as it was."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from building import content
from peft import PeftModel, get_peft_model
from torch import Tensor
from training_jobs import job
from transformers import AutoModelForCausalLM

from api.cli.main import main
from library.adapter import Adapter
from library.base.batches import grouped
from library.base.loss import row_scores
from library.base.multi_adapter import adapted
from library.errors import UsageError
from library.layout import Layout, Site, layout_of
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.trainer.batched import BatchedTrainer
from library.trainer.optimiser import shared_start
from library.trainer.peft_trainer import PeftTrainer
from library.trainer.recipes.adalora import AdaLoRA
from library.trainer.recipes.eva import EVA
from library.trainer.recipes.peft_recipe import PeftRecipe
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import (
    RECIPES,
    REFUSED_RECIPES,
    recipe_from_dict,
    recipe_named,
)
from library.trainer.run_state import TrainConfig, Trained, best_check

RATES = {"dora": 0.02, "pissa": 0.01, "olora": 0.01, "eva": 0.02, "lora-ga": 0.01, "corda": 0.01,
         "adalora": 0.05, "randlora": 2e-3, "vera": 0.1}  # fmt: skip
CONFIG = TrainConfig(steps=20, rows=4, micro_batches=2, check_every=5, patience=0)
RANKS = dict.fromkeys(("pissa", "olora", "lora-ga", "corda"), 8)
TARGETS = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
CASES = [(n, f) for n in RATES for f in TARGETS if (n, f) != ("olora", "gpt2")]
IDS = tiny.tokens(3, 7)


def setup(family: str = "llama", dtype: torch.dtype = torch.float32) -> tuple[Any, Layout]:
    config = tiny.config(family)
    return tiny.model(config, dtype=dtype), layout_of(config, TARGETS[family], rank=4)


def recipe(name: str, **changes: Any) -> PeftRecipe:
    result = replace(RECIPES[name], **{"lr": RATES[name], **changes})
    assert isinstance(result, PeftRecipe)
    return result


def watched(original: PeftRecipe, base: Any, seen: dict[str, Any]) -> PeftRecipe:
    """A recipe that notes PEFT's logits, and ΔW by each module's forward, as it is read out."""

    class Watched(type(original)):
        def read_out(self, module: Any, site: Site) -> Any:
            probe = torch.eye(site.in_features)
            seen["logits"] = base(input_ids=IDS).logits
            seen[site.name] = (module(probe) - module.base_layer(probe)).T
            return super().read_out(module, site)

    return Watched(**asdict(original))


def read_back(adapter: Adapter, layout: Layout, folder: Path, **profile: Any) -> Adapter:
    files = to_peft(adapter, base_name="tiny", **profile)
    folder.mkdir()
    (folder / CONFIG_FILE).write_bytes(files.config_bytes)
    (folder / WEIGHTS_FILE).write_bytes(files.weights)
    return read_peft(folder, layout)


def logits(base: Any, adapter: Adapter) -> Tensor:
    with adapted(base, adapter, torch.zeros(len(IDS), dtype=torch.long)), torch.no_grad():
        return base(input_ids=IDS).logits


def lost(adapter: Adapter, deltas: dict[str, Tensor]) -> float:
    """The relative distance of an adapter from ΔW."""
    actual = tiny.deltas(adapter)
    return float(
        torch.cat([(actual[n] - deltas[n]).flatten() for n in actual]).norm()
        / torch.cat([deltas[n].flatten() for n in actual]).norm()
    )


def traits(model: Any) -> dict[str, Any]:
    """All by which one would know that somebody had been at a model."""
    return {
        "modules": [(n, type(m), m.training, len(m._forward_hooks)) for n, m in
                    model.named_modules()],
        "parameters": [(n, p.requires_grad, p.data_ptr()) for n, p in model.named_parameters()],
        "attributes": sorted(vars(model)),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "family"), CASES)
def test_what_is_stored_is_what_peft_trained(name: str, family: str, tmp_path: Path) -> None:
    base, layout = setup(family)
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    before = traits(base)
    seen: dict[str, Any] = {}
    watching = watched(recipe(name), base, seen)
    (result,) = PeftTrainer(base, layout, watching, CONFIG, pad=0, seed=3).run([job("one", 12)])
    assert traits(base) == before
    assert all(torch.equal(value, weights[key]) for key, value in base.state_dict().items())

    assert result.adapter is not None and result.steps == CONFIG.steps
    if name != "adalora":
        assert {s.rank for s in result.adapter.layout.sites} == {RANKS.get(name, layout.rank)}
    stored = read_back(result.adapter, layout, tmp_path / "exact", profile="lossless")
    error = result.scores["conversion_error"]
    assert lost(stored, seen) == pytest.approx(error, rel=1e-3, abs=1e-5)
    apart = (logits(base, stored) - seen["logits"]).abs()
    if name in ("dora", "randlora"):
        assert 0.01 < error < 0.6
        effect = seen["logits"] - base(input_ids=IDS).logits
        assert apart.norm() < 2 * error * effect.norm()
    else:
        assert error < 1e-5 and apart.max() < 1e-4
    portable = read_back(result.adapter, layout, tmp_path / "portable")
    rounded = tiny.deltas(result.adapter)
    assert lost(portable, rounded) < 0.01


@pytest.mark.parametrize("name", RATES)
def test_the_loss_on_its_rows_falls(name: str) -> None:
    base, layout = setup()
    learned = replace(job("one", 12), tune=job("one", 12).train)
    config = replace(CONFIG, steps=40)
    (result,) = PeftTrainer(base, layout, recipe(name), config, pad=0).run([learned])
    (rows,) = grouped(learned.tune, 0, 1)
    with torch.no_grad():
        bare = float(row_scores(base, rows)[1].mean())
    assert result.scores["tune_loss"] < bare - 0.1


def test_it_trains_as_the_batched_trainer_does() -> None:
    """Rows, order, loss, schedule, clipping, evaluations: from LoRA's own A, the same adapter."""
    base, layout = setup(dtype=torch.float64)
    start = shared_start(layout, 3, torch.float64)

    class FromLoRA(EVA):
        def start(self, model: Any, layout: Layout, job: TrainingJob, pad: int) -> None:
            for site in layout.sites:
                module = model.get_base_model().get_submodule(site.name)
                module.lora_A["default"].weight.data.copy_(start.site(site)[0][0])

    config = replace(CONFIG, check_every=2, patience=3, snapshots=2, snapshot_every=3)
    settings = {"lr": 0.05, "weight_decay": 0.1, "clip": 0.3}
    jobs = [job("one"), job("two")]
    from_lora = FromLoRA(**asdict(recipe("eva", **settings)))
    by_peft = PeftTrainer(base, layout, from_lora, config, pad=0, seed=3)
    batched = BatchedTrainer(
        base, layout, replace(RECIPES["lora"], **settings), config, pad=0, seed=3
    )
    calls: list[tuple[int, int]] = []
    expected = {result.job.name: result for result in batched.run(jobs)}
    for result in by_peft.run(jobs, lambda *call: calls.append(call)):
        other = expected[result.job.name]
        assert result.adapter is not None and other.adapter is not None
        assert result.steps == other.steps and len(result.snapshots) == len(other.snapshots) == 2
        assert [c.step for c in result.checks] == [c.step for c in other.checks]
        adapters = [result.adapter, *result.snapshots], [other.adapter, *other.snapshots]
        for one, two in zip(*adapters, strict=True):
            for actual, reference in zip(one.factors(), two.factors(), strict=True):
                torch.testing.assert_close(actual, reference, atol=1e-8, rtol=0)
        best = best_check(result.checks)
        assert best is not None
        assert result.scores["tune_loss"] == pytest.approx(best.loss, abs=1e-6)
    assert by_peft.figures.tokens == batched.figures.tokens
    assert any(result.steps < CONFIG.steps for result in expected.values())  # one stopped early
    done = [step for step, _ in calls]
    assert done == sorted(done) and done[-1] == 2 * CONFIG.steps
    assert {total for _, total in calls} == {2 * CONFIG.steps}


def test_what_goes_non_finite_starts_again_at_half_the_rate() -> None:
    def trained(adalora: PeftRecipe) -> Trained:
        base, layout = setup()
        (result,) = PeftTrainer(base, layout, adalora, CONFIG, pad=0, seed=3).run([job("one")])
        return result

    steps: list[int] = []

    class Poisoned(AdaLoRA):
        def after_step(self, model: Any, step: int) -> None:
            super().after_step(model, step)
            steps.append(step)
            if len(steps) == 14:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))

    result = trained(Poisoned(**asdict(recipe("adalora", lr=0.02))))
    halved = trained(recipe("adalora", lr=0.01))
    assert (result.restarts, result.steps) == (1, CONFIG.steps)
    assert steps == [*range(1, 15), *range(1, CONFIG.steps + 1)]
    assert result.adapter is not None and halved.adapter is not None
    assert all(map(torch.equal, result.adapter.factors(), halved.adapter.factors()))


def test_a_hopeless_adapter_is_given_up() -> None:
    base, layout = setup()
    before = traits(base)
    config = replace(CONFIG, restarts=1)
    trainer = PeftTrainer(base, layout, recipe("pissa", lr=1e30), config, pad=0)
    (result,) = trainer.run([job("one")])
    assert result.adapter is None and result.restarts == 1 and result.scores == {}
    assert traits(base) == before


def test_adalora_gives_out_its_ranks_and_peft_reads_them(tmp_path: Path) -> None:
    base, layout = setup()
    (result,) = PeftTrainer(base, layout, recipe("adalora"), CONFIG, pad=0).run([job("one", 12)])
    assert result.adapter is not None
    ranks = [site.rank for site in result.adapter.layout.sites]
    assert len(set(ranks)) > 1 and sum(ranks) == layout.rank * len(ranks)
    assert [check.step for check in result.checks] == [15, 20]  # the last ranks go at step 14
    expected = logits(base, result.adapter)
    assert (expected - base(input_ids=IDS).logits).abs().max() > 0.01
    for profile, tolerance in (("lossless", 1e-4), ("portable", 1e-2)):
        stored = read_back(result.adapter, layout, tmp_path / profile, profile=profile)
        model = PeftModel.from_pretrained(setup()[0], str(tmp_path / profile))
        by_peft = model(input_ids=IDS).logits
        torch.testing.assert_close(by_peft, expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(by_peft, logits(base, stored), atol=1e-5, rtol=0)


def test_adalora_adds_its_regulariser() -> None:
    """The gradient is that of what PEFT's own forward adds to the loss."""
    base, layout = setup()
    adalora = recipe("adalora")
    model: Any = get_peft_model(base, adalora.settings(layout, 10, 0))
    adalora.regularise(model)
    factors = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in factors]
    with_it = model.base_model(input_ids=IDS, labels=IDS).loss
    extra = with_it - base(input_ids=IDS, labels=IDS).loss
    expected = torch.autograd.grad(extra, factors)
    assert len(gradients) == 2 * len(layout.sites)
    for one, two in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_eva_starts_at_the_main_directions_of_its_rows() -> None:
    base, layout = setup()
    learned = job("one", 12)
    seen: list[Tensor] = []
    module = base.get_submodule(layout.sites[-1].name)
    handle = module.register_forward_hook(lambda _, args, __: seen.append(args[0][0]))
    for row in learned.train:
        base(input_ids=torch.tensor([row.prompt + row.answer]))
    handle.remove()
    inputs = torch.cat(seen) - torch.cat(seen).mean(0)
    most = torch.linalg.svdvals(inputs)[: layout.rank].square().sum()
    eva = recipe("eva")
    model: Any = get_peft_model(base, eva.settings(layout, 1, 0))
    eva.start(model, layout, learned, 0)
    a = base.get_submodule(layout.sites[-1].name).lora_A["default"].weight
    torch.testing.assert_close(a @ a.T, torch.eye(layout.rank), atol=1e-4, rtol=0)
    assert (inputs @ a.T).square().sum() > 0.98 * most


@pytest.mark.parametrize("name", ["lora-ga", "corda"])
def test_a_measured_start_is_peft_s_own_and_changes_nothing_yet(name: str) -> None:
    base, layout = setup()
    learned, watching = job("one", 12), recipe(name)
    before = base(input_ids=IDS).logits
    trainer = PeftTrainer(base, layout, watching, CONFIG, pad=0, seed=3)
    with trainer._attached(learned) as model:  # pyright: ignore[reportPrivateUsage]
        torch.testing.assert_close(base(input_ids=IDS).logits, before, atol=1e-5, rtol=0)
        modules = {site.name: base.get_submodule(site.name) for site in layout.sites}
        found = {n: m.get_delta_weight("default").clone() for n, m in modules.items()}
        assert all(float(delta.norm()) > 0 for delta in found.values())
    theirs, _ = setup()
    settings = watching.settings(layout, CONFIG.steps, 3)
    torch.manual_seed(3)
    watching.prepare(theirs, settings, learned, 0)
    weights = {name: theirs.get_submodule(name).weight.clone() for name in found}
    model = get_peft_model(theirs, settings)
    for name, delta in found.items():  # W' + B0·A0 = W, with the B0·A0 that was found above
        module: Any = model.get_base_model().get_submodule(name)
        torch.testing.assert_close(weights[name] - module.base_layer.weight, delta)
    assert not any("eigens" in vars(m) or "_peft_loraga_grad" in vars(m) for m in base.modules())


def test_lora_ga_starts_in_the_span_of_the_first_gradient() -> None:
    base, layout = setup()
    learned, ga = job("one", 12), recipe("lora-ga")
    trainer = PeftTrainer(base, layout, ga, CONFIG, pad=0, seed=3)
    site = layout.sites[0]
    weight = base.get_submodule(site.name).weight.requires_grad_(True)
    (rows,) = grouped(learned.train, 0, 1)
    labels = rows.ids.masked_fill(~rows.answer.roll(1, dims=1), -100)
    base(input_ids=rows.ids, labels=labels).loss.backward()  # the mean over the answers' tokens
    _, _, vh = torch.linalg.svd(weight.grad)
    weight.requires_grad_(False)
    with trainer._attached(learned):  # pyright: ignore[reportPrivateUsage]
        a = base.get_submodule(site.name).lora_A["default"].weight
        inside = a @ vh[: layout.rank].T  # (rank, rank)
        assert inside.norm() > 0.99 * a.norm()


def test_a_stored_recipe_is_the_registered_one() -> None:
    for name, registered in RECIPES.items():
        stored = json.loads(json.dumps(asdict(replace(registered, lr=0.5))))
        read = recipe_from_dict(stored)
        assert type(read) is type(registered) and read == recipe_named(name, lr=0.5)
    assert recipe_from_dict({**asdict(RECIPES["lora"]), "name": "of-tomorrow"}).scale(8) == 2


def test_what_cannot_be_trained_is_refused() -> None:
    for name in REFUSED_RECIPES:
        with pytest.raises(UsageError, match=f"'{name}' is refused: it "):
            recipe_named(name)
    base, layout = setup()
    for wrong in (layout.with_rank(33), tiny.with_ranks(layout, [4, 2])):
        with pytest.raises(UsageError, match="recipe 'pissa' takes"):
            PeftTrainer(base, wrong, recipe("pissa"), CONFIG, pad=0)
    with pytest.raises(UsageError, match="at most 16"):
        PeftTrainer(base, layout.with_rank(17), recipe("lora-ga"), CONFIG, pad=0)
    with pytest.raises(UsageError, match="transposed"):
        PeftTrainer(*setup("gpt2"), recipe("olora"), CONFIG, pad=0)
    short = replace(job("one"), train=job("one").train[:1])
    with pytest.raises(UsageError, match="fewer tokens than eva's rank 16"):
        list(PeftTrainer(base, layout.with_rank(16), recipe("eva"), CONFIG, pad=0).run([short]))
    assert "base_layer" not in str(base)


@pytest.mark.parametrize("name", ["pissa", "adalora", "peft:miss"])
def test_a_library_is_built(name: str, tiny_base: Path, tmp_path: Path) -> None:
    tasks, out, exported = tmp_path / "tasks", tmp_path / "library", tmp_path / "exported"
    tasks.mkdir()
    for task in ("one", "two"):
        rows = [{"input": f"{task} {i}", "output": f"{task} {i % 3}"} for i in range(70)]
        (tasks / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tasks / f"{task}.txt").write_text(f"Answer as {task} does.")
    command = ["library", "build", "--tasks", str(tasks), "--base", str(tiny_base), "--out",
               str(out), "--steps", "6", "--rows", "2", "--rank", "4", "--snapshots", "2",
               "--lr", "0.01"]  # fmt: skip
    command += ["--recipe", name]
    assert main([*command, "--recipe", "loftq"]) == 2 and not out.exists()
    assert main([*command, "--rank", "17"]) == 2 and not out.exists()
    assert main(command) == 0
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    layout = layout_of(base.config)
    for record in content(out):
        assert record["recipe"] == name
        assert record["rank"] in {"pissa": (8,), "adalora": (5, 6), "peft:miss": (4,)}[name]
        assert record["scores"]["conversion_error"] < 1e-4
        provenance = json.loads((out / "adapters" / record["id"] / "provenance.json").read_text())
        adapter = read_peft(out / "adapters" / record["id"], layout)
        digest = adapter.layout.digest
        assert record["layout_digest"] == provenance["layout_digest"] == digest
    assert main(["library", "check", "--library", str(out)]) == 0
    assert main(["library", "export", "one", "--library", str(out), "--out", str(exported)]) == 0
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), exported)
    expected = logits(base, read_peft(exported, layout))
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, atol=1e-4, rtol=0)
    files = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in out.rglob("*") if f.is_file()}
    assert main([*command, "--resume"]) == 0
    assert files == {
        f: (f.stat().st_mtime_ns, f.read_bytes()) for f in out.rglob("*") if f.is_file()
    }
