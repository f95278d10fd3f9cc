"""LoRA-GA (Wang et al. 2024) and CorDA (Yang et al. 2024): as PiSSA, from a part measured on rows.

LoRA-GA's B0·A0 are singular vectors of the first gradient, CorDA's those of the weight times the
covariance of its inputs. PEFT measures both before it adapts the base.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from library.base.batches import grouped
from library.base.loss import answer_logits, token_losses
from library.errors import UsageError
from library.layout import Layout
from library.trainer.recipes.pissa import PiSSA
from library.trainer.recipes.recipe import TrainingJob

ROWS = 32  # of the job's, from the first on


@dataclass(frozen=True)
class LoRAGA(PiSSA):
    """Takes the gradient of the mean loss over the rows' answers; A and B get r directions each."""

    initialisation: ClassVar[str] = "lora_ga"

    def require_fit(self, layout: Layout, steps: int) -> None:
        super().require_fit(layout, steps)
        most = min(site.full_rank for site in layout.sites) // 2
        if layout.rank > most:
            raise UsageError(f"recipe 'lora-ga' takes a rank of at most {most} on these modules")

    def settings(self, layout: Layout, steps: int, seed: int) -> Any:
        from peft import LoraGAConfig

        return replace(super().settings(layout, steps, seed), lora_ga_config=LoraGAConfig())

    def prepare(self, model: Any, settings: Any, job: TrainingJob, pad: int) -> None:
        from peft.tuners.lora.loraga import preprocess_loraga

        def backward() -> None:
            batch = grouped(job.train[:ROWS], pad, 1)[0].to(model.device)
            logits = answer_logits(model, batch.ids, batch.answer)  # (answers, vocabulary)
            token_losses(logits, batch.ids, batch.answer)[0].mean().backward()

        preprocess_loraga(model, settings, backward)


@dataclass(frozen=True)
class CorDA(PiSSA):
    """Takes the largest components: CorDA's mode for learning a task (instruction-previewed)."""

    initialisation: ClassVar[str] = "corda"

    def prepare(self, model: Any, settings: Any, job: TrainingJob, pad: int) -> None:
        from peft.tuners.lora.corda import preprocess_corda

        def run() -> None:
            for row in job.train[:ROWS]:  # one by one: PEFT would count padding
                model(input_ids=torch.tensor([[*row.prompt, *row.answer]], device=model.device))

        preprocess_corda(model, settings, run)
