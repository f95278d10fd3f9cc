"""EVA (Paischer et al. 2024): LoRA whose A starts at the main directions of the modules' inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from library.base.batches import TokenRow
from library.errors import UsageError
from library.layout import Layout
from library.trainer.recipes.peft_recipe import TRAINED, FactorPair, PeftRecipe, lora_settings
from library.trainer.recipes.recipe import TrainingJob

BATCH_ROWS = 32  # of a batch for the incremental SVD


@dataclass(frozen=True)
class EVA(PeftRecipe):
    """Takes its directions from the job's train rows."""

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        from peft import EvaConfig

        # One rank everywhere (rho 1), so that the adapters of a library have one layout.
        return lora_settings(self, layout, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))

    def start(self, model: Any, layout: Layout, job: TrainingJob, pad: int) -> None:
        """Raises UsageError if no batch of rows has as many tokens as the rank."""
        from peft.tuners.lora.eva import initialize_lora_eva_weights

        rows = [job.train[i : i + BATCH_ROWS] for i in range(0, len(job.train), BATCH_ROWS)]
        batches = [_inputs(part, pad) for part in rows if sum(map(len, part)) >= layout.rank]
        if not batches:
            raise UsageError(
                f"the rows of {job.name} have fewer tokens than eva's rank {layout.rank}"
            )
        initialize_lora_eva_weights(model, batches, show_progress_bar=False)

    def factors(self, module: Any, delta: Tensor, rank: int) -> FactorPair:
        return (
            module.lora_A[TRAINED].weight,
            module.lora_B[TRAINED].weight * module.scaling[TRAINED],
        )


def _inputs(rows: Sequence[TokenRow], pad: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, both (rows, longest)."""
    longest = max(map(len, rows))
    ids = [[*row.prompt, *row.answer, *[pad] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
