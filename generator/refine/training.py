"""Training on a few examples: many adapters side by side, each from a start of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from library.adapter import Adapter
from library.base.batches import TokenRow, require_fitting_rows
from library.base.models import BaseModel
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.layout import Layout
from library.progress import Progress, no_progress
from library.tasks.files import Example
from library.trainer.batched import BatchedTrainer
from library.trainer.recipes.recipe import TrainingJob
from library.trainer.recipes.registry import RECIPES
from library.trainer.run_state import TrainConfig

LONGEST = 1024  # tokens of an example


@dataclass(frozen=True)
class RefineSettings:
    """Settings of a refinement.

    Attributes:
        steps: steps of AdamW.
        lr: peak rate.
        rows: examples of a step; of fewer, each comes several times.
        weight_decay: AdamW's.
    """

    steps: int
    lr: float = 1e-3
    rows: int = 8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Refinement:
    """An adapter to refine: its start (n = 1) and its examples."""

    start: Adapter
    rows: tuple[TokenRow, ...]


def refine_adapters(
    base: BaseModel,
    layout: Layout,
    refinements: Sequence[Refinement],
    settings: RefineSettings,
    *,
    seed: int = 0,
    slots: int = 64,
    progress: Progress = no_progress,
) -> list[Adapter]:
    """Each start after `settings.steps` steps on its rows, in their order, on the CPU.

    What a row of this list becomes depends on its own start and rows alone.

    Args:
        base: the loaded base model.
        layout: of every start and result.
        slots: adapters trained at once.
    Raises:
        UsageError: an adapter did not stay finite.
        LayoutMismatch: a start is of another layout.
    """
    recipe = replace(RECIPES["lora"], lr=settings.lr, weight_decay=settings.weight_decay)
    jobs = [
        TrainingJob("refine", refinement.rows, seed=seed, start=refinement.start)
        for refinement in refinements
    ]
    config = TrainConfig(
        steps=settings.steps,
        rows=settings.rows,
        slots=min(slots, len(jobs)),
        micro_batches=1,
        patience=0,
    )
    trainer = BatchedTrainer(
        base.model, layout, recipe, config, pad=base.tokenizer.pad_token_id, seed=seed
    )
    # All have one name, which the order of rows depends on; each job is an object of its own.
    trained = {id(result.job): result.adapter for result in trainer.run(jobs, progress)}
    adapters = []
    for job in jobs:
        adapter = trained[id(job)]
        if adapter is None:
            raise UsageError("the examples do not train: losses were not finite at any rate")
        adapters.append(adapter)
    return adapters


def example_rows(
    base: BaseModel, examples: Sequence[Example], usage: Usage = BARE
) -> tuple[TokenRow, ...]:
    """Examples as token rows with the prompts of a usage; over 1,024 tokens they are left out.

    Raises UsageError if none is short enough.
    """
    turned = [replace(example, input=usage.message(example.input)) for example in examples]
    return require_fitting_rows(turned, base.tokenizer, LONGEST)
