"""LoFA's stages: the threshold, a planted map that is learnt, and runs from one to the other."""

import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch
from embedded import WIDTH, WORDS, descriptions
from torch import Tensor
from weights import LAYOUT, base_of

from benchmarks.quality.thresholds import area_under_curve
from generator.engine import read_generator
from generator.layers.lofa_config import ResponseMapsConfig
from generator.layers.response_maps import ResponseMaps, relative_change, responses
from generator.models.lofa import LoFA
from index.encoders.descriptions import Embeddings
from library.adapter import Adapter, zeros
from library.base.models import load_config, resolve_base
from library.base.weights import group_weights
from library.checkpoint import load_checkpoint
from library.errors import LayoutMismatch, UsageError
from training.data.adapters import LibraryDataModule
from training.data.adapters_and_tasks import LibraryTaskDataModule
from training.data.sampling import SamplingConfig
from training.objectives.lofa import LoFAStage2
from training.objectives.module import OptimiserConfig
from training.objectives.response_maps import LoFAStage1, map_loss, response_threshold

TRUNK = {"width": 16, "blocks": 2, "heads": 2}
BASE = base_of(LAYOUT)
GROUP = LAYOUT.groups[0]


def planted(tasks: int) -> tuple[Embeddings, Adapter]:
    """Tasks whose words say which rows and columns of each matrix their adapters change most."""
    text = descriptions([1] * tasks).to(dtype=torch.float32)
    adapter, generator = zeros(LAYOUT, tasks), torch.Generator().manual_seed(1)
    for group in LAYOUT.groups:
        sizes = []
        for side in (group.in_features, group.out_features):
            to_side = torch.randn(len(group.sites), side, WORDS, generator=generator)
            sizes.append(torch.einsum("nw,sfw->nsf", text.words[:, 0], to_side).exp())
        adapter.A[group.key][:, :, 0] = sizes[0]
        adapter.B[group.key][..., 0] = 0.01 * sizes[1]
    return text, adapter


def test_the_threshold_makes_the_share_that_was_asked_for() -> None:
    _, adapters = planted(6)
    for active in (0.1, 0.3, 0.9):
        threshold, shares = response_threshold(adapters, BASE, active), []
        for group in LAYOUT.groups:
            w = group_weights(BASE, group)
            for place in range(len(group.sites)):
                a, b = adapters.A[group.key][:, place], adapters.B[group.key][:, place]
                shares.append(responses(a, b, w[place], threshold).float().mean())
        # At so many entries drawn from each module the share itself is known to a few per cent.
        assert torch.stack(shares).mean() == pytest.approx(active, abs=0.03)
    assert response_threshold(adapters, BASE, 0.3) == response_threshold(adapters, BASE, 0.3)


def test_the_loss_is_cross_entropy_and_a_penalty() -> None:
    logits, wanted = torch.randn(2, 1, 3, 4), torch.rand(2, 1, 3, 4) > 0.5
    a, b = torch.randn(2, 1, 2, 4), torch.randn(2, 1, 2, 3)
    p = logits.sigmoid()
    by_hand = -torch.where(wanted, p, 1 - p).log().mean()
    by_hand = by_hand + 0.5 * (a.square().mean() + b.square().mean())
    torch.testing.assert_close(map_loss(logits, wanted, (a, b), 0.5), by_hand)


def trained(text: Embeddings, adapters: Adapter, threshold: float, steps: int) -> ResponseMaps:
    torch.manual_seed(0)
    config = ResponseMapsConfig(WIDTH, WORDS, **TRUNK, map_rank=6)
    network = ResponseMaps(config, LAYOUT)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    w = group_weights(BASE, GROUP)
    wanted = responses(adapters.A[GROUP.key], adapters.B[GROUP.key], w, threshold)
    for _ in range(steps):
        a, b = network.factors(text, BASE, GROUP, None)
        loss = map_loss(network.logits(a, b, w, GROUP), wanted, (a, b), 1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def area(scores: Tensor, wanted: Tensor) -> float:
    """Area under the curve at every seventh entry."""
    scores, wanted = scores.flatten()[::7], wanted.flatten()[::7]
    return area_under_curve(scores[wanted], scores[~wanted])


def test_stage_1_learns_a_planted_map_and_beats_the_mean_map_on_tasks_it_never_saw() -> None:
    text, adapters = planted(48)
    seen, unseen = range(40), range(40, 48)
    threshold = response_threshold(adapters, BASE, 0.3)
    embedded = Embeddings(*(x[:40] for x in vars(text).values()))
    network = trained(embedded, adapters[list(seen)], threshold, 150)
    w = group_weights(BASE, GROUP)
    maps = relative_change(adapters.A[GROUP.key], adapters.B[GROUP.key], w) > threshold
    mean = maps[list(seen)].float().mean(dim=0)
    with torch.no_grad():
        logits = network(Embeddings(*(x[40:] for x in vars(text).values())), BASE, GROUP)
    areas = []
    for place, task in enumerate(unseen):
        other = logits[(place + 1) % len(unseen)]  # of another description
        for site in range(len(GROUP.sites)):
            one = maps[task, site]
            scores = (logits[place, site], mean[site], -w[site].abs(), other[site])
            areas.append([area(score, one) for score in scores])
    own, mean_map, size, shuffled = torch.tensor(areas).mean(dim=0).tolist()
    assert own > max(mean_map, size, shuffled) + 0.05


def fit(module: lightning.LightningModule, data: Any, steps: int) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    lightning.seed_everything(0, verbose=False)
    trainer.fit(module, data)
    return trainer


@pytest.fixture(scope="module")
def stage1(small_library: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage after a few steps on the small library."""
    out = tmp_path_factory.mktemp("stage1") / "checkpoint"
    module = LoFAStage1(ResponseMapsConfig(**TRUNK), base=str(tiny_base), sites=3, out=str(out))
    fit(module, LibraryDataModule(str(small_library / "lib"), steps=3, experts=0), 3)
    return out


def two_kinds(small_library: Path, tiny_base: Path) -> LibraryTaskDataModule:
    return LibraryTaskDataModule(
        str(small_library / "lib"),
        adapters_per_step=2,
        tasks=[str(small_library / "tasks")],
        base=str(tiny_base),
        sampling=SamplingConfig(2, 2, micro_batches=2),
        steps=3,
        set_aside_share=0.34,
    )


def second(tiny_base: Path, stage1: Path | None, **more: Any) -> LoFAStage2:
    more = {"optimiser": OptimiserConfig(lr=1e-2), **more}
    return LoFAStage2(
        stage1=None if stage1 is None else str(stage1),
        architecture={**TRUNK, "features": stage1 is not None},
        base=str(tiny_base),
        rank=4,
        neftune_alpha=0.0,
        **more,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_first_stage_is_exported_with_its_threshold(stage1: Path) -> None:
    checkpoint = load_checkpoint(stage1, ResponseMaps)
    settings = checkpoint.info.training["settings"]
    assert settings["active"] == 0.3 and settings["threshold"] > 0
    assert checkpoint.info.tasks == ["poem", "sub", "sum"]
    with pytest.raises(UsageError, match="active"):
        LoFAStage1(active=1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("features", [True, False])
def test_the_second_stage_trains_by_either_loss_with_and_without_the_first(
    weights: tuple[float, float],
    features: bool,
    stage1: Path,
    small_library: Path,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    reconstruction, answers = weights
    module = second(
        tiny_base,
        stage1 if features else None,
        reconstruction_weight=reconstruction,
        answer_weight=answers,
        out=str(tmp_path / "lofa"),
        storage="float32",
    )
    trainer = fit(module, two_kinds(small_library, tiny_base), 3)
    metrics = trainer.callback_metrics
    assert ("train_reconstruction" in metrics, "train_loss" in metrics) == (
        reconstruction > 0,
        answers > 0,
    )
    exported = read_generator(tmp_path / "lofa")
    assert isinstance(exported.module, LoFA) and len(exported.info.tasks) == 3
    digest = load_checkpoint(stage1, ResponseMaps).digest
    settings = exported.info.training["settings"]
    assert settings["stage1_digest"] == (digest if features else None)
    if not features:
        return
    # Stage I is as it was; the trunk that began as it did is not.
    first, state = load_checkpoint(stage1, ResponseMaps).module, exported.module.state_dict()
    for key, value in first.trunk.state_dict().items():
        assert torch.equal(state[f"stage1.{key}"], value), key
    assert not torch.equal(state["trunk.cls"], first.trunk.cls)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_second_stage_begins_at_the_mean_adapter(
    stage1: Path, small_library: Path, tiny_base: Path
) -> None:
    data = two_kinds(small_library, tiny_base)
    still = second(tiny_base, stage1, answer_weight=0.0, optimiser=OptimiserConfig(lr=0.0))
    fit(still, data, 1)
    for key, head in still.lofa.heads.items():
        mean = data.library.adapters.B[key].mean(dim=0).mT
        torch.testing.assert_close(head.get_parameter("start_b"), mean)
        assert mean.any()


def test_the_stages_have_to_fit(tiny_base: Path) -> None:
    with pytest.raises(UsageError, match="stage1 is missing"):
        LoFAStage2(base=str(tiny_base), architecture={**TRUNK})
    with pytest.raises(UsageError, match="cannot both be 0"):
        second(tiny_base, None, reconstruction_weight=0.0, answer_weight=0.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_library_of_other_weights_is_refused(
    stage1: Path, small_library: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """Weights are an input, so a base that is merely of the same shape teaches nonsense."""
    other = shutil.copytree(tiny_base, tmp_path / "other")
    tiny.model(load_config(resolve_base(str(tiny_base))), seed=5).save_pretrained(other)
    data = LibraryDataModule(str(small_library / "lib"), steps=1, experts=0)
    with pytest.raises(LayoutMismatch, match="other' has other weights"):
        fit(LoFAStage1(ResponseMapsConfig(**TRUNK), base=str(other)), data, 1)
    with pytest.raises(LayoutMismatch, match="other' has other weights"):
        fit(second(other, stage1, answer_weight=0.0), two_kinds(small_library, other), 1)


@pytest.mark.slow
def test_a_step_of_adapters_and_tasks_is_a_function_of_its_number(
    small_library: Path, tiny_base: Path
) -> None:
    drawn = []
    for _ in range(2):
        data = two_kinds(small_library, tiny_base)
        data.setup("fit")
        drawn.append([(b.rows, b.tasks.descriptions.tolist()) for b in data.train_dataloader()])
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3
    assert data.task_names == ["poem", "sub", "sum"]
    assert data.record["library"]["adapters"] == 3
