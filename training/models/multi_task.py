"""Multi-task LoRA: one adapter for all tasks, the baseline that knows no descriptions.

Trained bare it can only guess the task from the input; trained and asked with the instruction in
the prompt it is what fine-tuning a small model usually means.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.adapter import Adapter
from library.base.models import described, load_config, resolve_base
from library.errors import UsageError
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import Provenance, finish
from library.peft.write import to_peft
from library.trainer.optimiser import acting, column_scale, shared_start
from library.trainer.recipes.registry import recipe_named
from training.data.batches import TaskBatch
from training.objectives.frozen_base import QUIET, FrozenBase, passed_on
from training.objectives.trained import TrainedModule


class MultiTaskLoRA(TrainedModule):
    """Train one adapter through the frozen base, on the rows of all tasks.

    Args:
        base: Hub id or folder of the base model; the default base if None.
        targets: module types to adapt; the family's default if None.
        rank: of the adapter.
        recipe: scale and rates, as in `library build`: lora, rslora, lora-fa or lora-plus.
        lr: peak learning rate; the recipe's if None.
        seed: of A.
        compile_layers: compile the base's layers with torch.compile; for GPUs.
        out: folder for the adapter; none if None.
    """

    def __init__(
        self,
        base: str | None = None,
        targets: list[str] | None = None,
        rank: int = 8,
        recipe: str = "lora",
        lr: float | None = None,
        seed: int = 0,
        compile_layers: bool = False,
        out: str | None = None,
    ) -> None:
        super().__init__()
        self.reference, self.seed = resolve_base(base), seed
        self.recipe = recipe_named(recipe, lr=lr)
        if not self.recipe.is_plain:
            known = "lora, rslora, lora-fa or lora-plus"
            raise UsageError(f"multi-task training takes the recipe {known}, not '{recipe}'")
        self.layout = layout_of(load_config(self.reference), targets, rank=rank)
        start = shared_start(self.layout, seed)
        frozen = self.recipe.freeze_a
        self.A = nn.ParameterList([nn.Parameter(a, not frozen) for a in start.A.values()])
        self.B = nn.ParameterList([nn.Parameter(b) for b in start.B.values()])
        for i, group in enumerate(self.layout.groups):
            self.register_buffer(f"scale_{i}", column_scale(group, self.recipe), persistent=False)
        self.compile_layers, self.out = compile_layers, out

    def adapter(self) -> Adapter:
        """As it acts, scale in B (n = 1)."""
        scales = [getattr(self, f"scale_{i}") for i in range(len(self.B))]
        return acting(self.layout, self.A, self.B, scales)

    @cached_property
    def frozen(self) -> FrozenBase:
        """The base, on the device that is trained on."""
        device, compiled = self.trainer.strategy.root_device, self.compile_layers
        return FrozenBase(self.reference, self.layout, device, compiled=compiled)

    def setup(self, stage: str) -> None:
        self.require_tokens_of(self.reference)
        _ = self.frozen  # loaded before the first step

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": [p for p in self.A if p.requires_grad], "lr": self.recipe.lr},
            {"params": list(self.B), "lr": self.recipe.lr * self.recipe.b_rate},
        ]
        decay = self.recipe.weight_decay
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=decay)
        total = self.steps
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.recipe.rate(step, total)
        )
        return self.by_step(optimizer, rate)

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        adapter = self.adapter()
        cut = adapter.detached()
        loss = self.frozen.backward(_owned_by_one(batch), cut, QUIET)
        self.log("train_loss", loss, prog_bar=True)
        return passed_on(adapter, cut)

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        if not batch.rows:
            return
        losses = self.frozen.losses(_owned_by_one(batch), self.adapter())
        self.log("val_loss", losses.mean(), prog_bar=True, batch_size=len(losses))

    test_step = validation_step

    def export(self, folder: Path) -> None:
        """Write the adapter as an ordinary PEFT folder."""
        provenance = Provenance(
            generator=f"multi-task:{self.recipe.name}",
            checkpoint=None,
            description=None,
            seed=self.seed,
            numerics=self.frozen.numerics,
            layout_digest=self.layout.digest,
            base=described(self.reference),
            details={"steps": self.trainer.global_step, "data": getattr(self.data, "record", None),
                     "tasks": sorted(getattr(self.data, "task_names", []))},
        )  # fmt: skip
        with torch.no_grad():
            weights = to_peft(self.adapter().to("cpu"), base_name=self.reference.name)
        write_folder(folder, finish(weights, provenance).files, overwrite=True)


def _owned_by_one(batch: TaskBatch) -> list[Any]:
    """The rows' groups, all owned by the one adapter."""
    for group in batch.rows:
        group.rows = torch.zeros_like(group.rows)
    return batch.rows
