"""Training on a few rows: many adapters side by side, each from a start of its own."""

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
from library.trainer.run_state import TrainConfig, Trained, best_check

LONGEST = 1024  # tokens of an example
CHECK_EVERY, PATIENCE = 10, 4  # where there are tune rows: steps, and checks without a better one


@dataclass(frozen=True)
class RefineSettings:
    """Settings of a refinement.

    Attributes:
        steps: steps of AdamW; fewer where tune rows stop it.
        lr: peak rate.
        rows: examples of a step, and answers of a teacher; of fewer, each comes several times.
        weight_decay: AdamW's.
    """

    steps: int
    lr: float
    rows: int = 8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Refinement:
    """An adapter to refine.

    Attributes:
        start: n = 1.
        rows: examples, and answers of a teacher.
        tune: rows that choose the step whose weights are kept; without any, the last.
    """

    start: Adapter
    rows: tuple[TokenRow, ...]
    tune: tuple[TokenRow, ...] = ()


@dataclass(frozen=True)
class Trainee:
    """A refinement's adapter, on the CPU, and the step after which its weights were taken."""

    adapter: Adapter
    step: int


def refine_adapters(
    base: BaseModel,
    layout: Layout,
    refinements: Sequence[Refinement],
    settings: RefineSettings,
    *,
    seed: int = 0,
    slots: int = 16,
    progress: Progress = no_progress,
) -> list[Trainee]:
    """Each start after training on its rows, in their order.

    What a row of this list becomes depends on its own start and rows alone.

    Args:
        base: the loaded base model.
        layout: of every start and result.
        slots: adapters trained at once; more take memory and no less time each.
    Raises:
        UsageError: an adapter did not stay finite.
        LayoutMismatch: a start is of another layout.
    """
    recipe = replace(RECIPES["lora"], lr=settings.lr, weight_decay=settings.weight_decay)
    jobs = [
        TrainingJob("refine", one.rows, one.tune, seed=seed, start=one.start) for one in refinements
    ]
    config = TrainConfig(
        steps=settings.steps,
        rows=settings.rows,
        slots=min(slots, len(jobs)),
        micro_batches=1,
        check_every=CHECK_EVERY,
        patience=PATIENCE,
    )
    trainer = BatchedTrainer(
        base.model, layout, recipe, config, pad=base.tokenizer.pad_token_id, seed=seed
    )
    # All have one name, which the order of rows depends on; each job is an object of its own.
    trained = {id(result.job): result for result in trainer.run(jobs, progress)}
    return [_trainee(trained[id(job)]) for job in jobs]


def _trainee(result: Trained) -> Trainee:
    if result.adapter is None:
        raise UsageError("the examples do not train: losses were not finite at any rate")
    best = best_check(result.checks)
    return Trainee(result.adapter, result.steps if best is None else best.step)


def example_rows(
    base: BaseModel, examples: Sequence[Example], usage: Usage = BARE
) -> tuple[TokenRow, ...]:
    """Examples as token rows with the prompts of a usage; over 1,024 tokens they are left out.

    Raises UsageError if none is short enough.
    """
    turned = [replace(example, input=usage.message(example.input)) for example in examples]
    return require_fitting_rows(turned, base.tokenizer, LONGEST)
