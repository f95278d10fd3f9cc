"""Reconstruction: losses against dense ones, and a run that gets closer to its adapters."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny
import torch

from generator.layers.flattened import per_value
from generator.models.text_to_lora import TextToLoRA
from library.layout import layout_of
from training.data.adapters import LibraryDataModule
from training.objectives.module import OptimiserConfig
from training.objectives.reconstruction import (
    Reconstruction,
    Target,
    delta_w_loss,
    factor_loss,
    mean_squared_error,
    squared_error,
)


def test_losses_are_what_they_are_by_hand() -> None:
    layout = layout_of(tiny.config("llama"), rank=3)
    made, wanted = tiny.adapter(layout, 4, seed=0), tiny.adapter(layout, 4, seed=1)
    dense = [(made.B[k] @ made.A[k] - wanted.B[k] @ wanted.A[k]).square().sum() for k in made.A]
    size = [(wanted.B[k] @ wanted.A[k]).square().sum() for k in made.A]
    torch.testing.assert_close(delta_w_loss(made, wanted), sum(dense) / sum(size))
    plain = [
        ((made.A[k] - wanted.A[k]).abs().mean() + (made.B[k] - wanted.B[k]).abs().mean()) / 2
        for k in made.A
    ]
    torch.testing.assert_close(factor_loss(made, wanted), torch.stack(plain).mean())
    half = tuple({k: torch.full_like(v[0], 0.5) for k, v in f.items()} for f in (made.A, made.B))
    torch.testing.assert_close(
        factor_loss(made, wanted, (half[0], half[1])), 2 * torch.stack(plain).mean(), rtol=1e-5,
        atol=0,
    )  # fmt: skip


def test_the_mean_squared_error_is_a_mean_over_weights_in_their_own_units() -> None:
    layout = tiny.with_ranks(layout_of(tiny.config("llama")), [4, 2, 1, 3])
    made, wanted = tiny.adapter(layout, 4, seed=0), tiny.adapter(layout, 4, seed=1)
    parts = [
        (factor - other).flatten()
        for site in layout.sites
        for factor, other in zip(made.site(site), wanted.site(site), strict=True)
    ]
    torch.testing.assert_close(mean_squared_error(made, wanted), torch.cat(parts).square().mean())
    # Padding has no share: nothing stands in it, and it would only dilute the mean.
    assert sum(map(len, parts)) < sum(factor.numel() for factor in made.factors())
    units = torch.rand(len(parts)) + 0.5
    units[3] = 0  # a tensor that all targets share
    scaled = [part / unit for part, unit in zip(parts, units, strict=True) if unit > 0]
    loss = mean_squared_error(made, wanted, per_value(layout, units))
    torch.testing.assert_close(loss, torch.cat(scaled).square().mean())


def test_the_squared_error_is_a_sum_over_entries_and_a_mean_over_adapters() -> None:
    layout = layout_of(tiny.config("llama"), rank=3)
    made, wanted = tiny.adapter(layout, 4, seed=0), tiny.adapter(layout, 4, seed=1)
    by_hand = sum(
        (x - y).square().sum() for x, y in zip(made.factors(), wanted.factors(), strict=True)
    )
    torch.testing.assert_close(squared_error(made, wanted), by_hand / 4)
    twice = squared_error(made[[0, 0, 1, 1]], wanted[[0, 0, 1, 1]])
    torch.testing.assert_close(twice, squared_error(made[[0, 1]], wanted[[0, 1]]))
    half = tuple({k: torch.full_like(v[0], 0.5) for k, v in f.items()} for f in (made.A, made.B))
    in_halves = squared_error(made, wanted, (half[0], half[1]))
    torch.testing.assert_close(in_halves, 4 * squared_error(made, wanted), rtol=1e-5, atol=0)


def test_the_delta_w_loss_does_not_see_the_gauge() -> None:
    layout = layout_of(tiny.config("llama"), rank=3)
    made, wanted = tiny.adapter(layout, 2, seed=0), tiny.adapter(layout, 2, seed=1)
    g = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3)
    turned = type(made)(
        layout,
        {k: torch.linalg.solve(g, a) for k, a in made.A.items()},
        {k: b @ g for k, b in made.B.items()},
    )
    torch.testing.assert_close(delta_w_loss(turned, wanted), delta_w_loss(made, wanted))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("target", ["factors", "delta_w", "mean_squared_error"])
def test_a_run_gets_closer(target: Target, small_library: Path, tiny_base: Path) -> None:
    lightning.seed_everything(0)
    module = Reconstruction(
        generator=TextToLoRA,
        target=target,
        base=str(tiny_base),
        rank=4,
        architecture={"latent": 32, "head_in": 64, "dropout": 0.0},
        optimiser=OptimiserConfig(lr=1e-2),
    )
    data = LibraryDataModule(str(small_library / "lib"), steps=80)
    losses: list[float] = []

    class Keep(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_loss"]))

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Keep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    assert len(losses) == 80
    assert losses[-1] < 0.5 * losses[0]
