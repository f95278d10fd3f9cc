"""Trainings by distillation on the words' base, as callbacks that keep what they logged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
from words import write_tasks

from generator.models.text_to_lora import TextToLoRA
from training.data.sampling import SamplingConfig
from training.data.taught import TaughtDataModule
from training.objectives.distillation import Distillation
from training.objectives.module import OptimiserConfig

ARCHITECTURE = {"latent": 16, "head_in": 24, "queries": 2, "words_dim": 384, "dropout": 0.0}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks", {"a": "red", "b": "blue sky"})


class Run(lightning.Callback):
    """A training by distillation; keeps what each step logged, and the run's state half-way."""

    def __init__(
        self, base: Path, teacher: Path, tasks: Path, steps: int, *, lr: float = 1e-2,
        nothing: float = 0.0, aside: float = 0.0, sampling: SamplingConfig | None = None,
        callbacks: Sequence[lightning.Callback] = (), half: Path | None = None,
        architecture: dict[str, Any] | None = None, clip: float | None = None,
        val_every: int | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        lightning.seed_everything(0)
        self.module = Distillation(
            **{
                "teacher": str(teacher), "generator": TextToLoRA, "base": str(base),
                "targets": ["q_proj", "v_proj", "o_proj"], "rank": 4, "storage": "float32",
                "architecture": {**ARCHITECTURE, **(architecture or {})},
                "optimiser": OptimiserConfig(lr, weight_decay=0.0), "neftune_alpha": 0.0,
                "weight_penalty": 0.0, **settings,
            }
        )  # fmt: skip
        self.data = TaughtDataModule(
            tasks=[str(tasks)], base=str(base), steps=steps, set_aside_share=aside,
            nothing_share=nothing,
            sampling=sampling or SamplingConfig(2, 3, prompted_share=0.3, micro_batches=2),
        )  # fmt: skip
        self.logged: list[dict[str, float]] = []
        self.half, self.steps = half, steps
        self.trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[self, *callbacks], logger=False,
            enable_checkpointing=any("Checkpoint" in type(c).__name__ for c in callbacks),
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            gradient_clip_val=clip, val_check_interval=val_every,
        )  # fmt: skip

    def fit(self, checkpoint: Path | None = None) -> "Run":
        self.trainer.fit(self.module, self.data, ckpt_path=checkpoint, weights_only=True)
        return self

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        if self.half is not None and trainer.global_step == self.steps // 2:
            trainer.save_checkpoint(self.half)

    def figures(self, name: str) -> list[float]:
        return [step[f"train_{name}"] for step in self.logged]
