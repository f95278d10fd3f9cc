"""The LightningModule of every objective: a generator, its optimiser and its export."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generator.models.base import Generator
from index.encoders.descriptions import DEFAULT_ENCODER
from index.encoders.texts import encoder_files, recorded_encoder
from library.base.models import (
    BaseReference,
    described,
    load_config,
    load_model,
    named_base,
    resolve_base,
)
from library.checkpoint import CheckpointInfo, Storage, save_checkpoint
from library.errors import UsageError
from library.layout import layout_of
from library.store.open import open_library
from library.store.own import own_adapters
from training.objectives.trained import TrainedModule


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a linear rise and a cosine fall.

    Attributes:
        lr: peak learning rate.
        weight_decay: on matrices; none on biases, norms and scales.
        warmup: share of the steps over which the rate rises.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1


class GeneratorModule(TrainedModule):
    """Base of the objectives; trains any generator.

    Args:
        generator: class of the generator; by class path in YAML.
        architecture: arguments of its `Config`.
        base: Hub id or folder of the base model; the default base if None.
        targets: module types to adapt; the family's default if None.
        rank: of the generated adapters.
        library: folder or URL of a library whose base and layout the generator is for, in place of
            `base`, `targets` and `rank`: the way to bases that are no decoder language models.
        optimiser: learning rate and its course.
        encoder: name of the description encoder, recorded in the checkpoint; or a folder of base
            states (index.encoders.base_states), stored with it.
        out: folder for the exported checkpoint; none if None.
        storage: how its matrices are stored.
    Raises:
        UsageError: the architecture is none of this generator, or it needs what the objective
            does not give.
    """

    gives = frozenset({"description", "base"})  # parts of a condition that this objective has

    def __init__(
        self,
        generator: type[Generator],
        architecture: dict[str, Any] | None = None,
        base: str | None = None,
        targets: list[str] | None = None,
        rank: int = 8,
        library: str | None = None,
        optimiser: OptimiserConfig = OptimiserConfig(),
        encoder: str = DEFAULT_ENCODER,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        super().__init__()
        missing = generator.needs - self.gives
        if missing:
            raise UsageError(
                f"{generator.kind} needs {', '.join(sorted(missing))}, "
                f"which {type(self).__name__} does not give"
            )
        try:
            config = generator.Config(**architecture or {})
        except TypeError as error:
            raise UsageError(f"architecture of {generator.kind}: {error}") from error
        if library is None:
            self.reference = resolve_base(base)
            layout = layout_of(load_config(self.reference), targets, rank=rank)
        else:
            own = own_adapters(open_library(library))
            self.reference, layout = named_base(own.base["id"]), own.layout
        self.generator = generator(config, layout)
        if self.generator.max_examples and "examples" not in self.gives:
            raise UsageError(
                f"{type(self).__name__} gives no examples: set architecture.examples to 0"
            )
        self.optimiser, self.encoder_name = optimiser, encoder
        self.out = out
        self.storage: Storage = storage

    @cached_property
    def base_model(self) -> nn.Module | None:
        """The base in float32, if the generator reads its weights."""
        if "base" not in self.generator.needs:
            return None
        return load_model(self.reference).to(self.device)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.optimiser)

    def export(self, folder: Path) -> None:
        save_checkpoint(
            folder,
            self.generator,
            self.info(),
            storage=self.storage,
            overwrite=True,
            beside=encoder_files(self.encoder_name),
        )

    def info(self) -> CheckpointInfo:
        """What the checkpoint says of this training."""
        return checkpoint_info(
            self, self.reference, self.encoder_name, self.optimiser, self.settings()
        )

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The objective's own settings, for the record."""


def checkpoint_info(
    objective: TrainedModule,
    base: BaseReference,
    encoder: str,
    optimiser: OptimiserConfig,
    settings: dict[str, Any],
) -> CheckpointInfo:
    """What a checkpoint records of the training that made it."""
    return CheckpointInfo(
        base=described(base),
        encoder=recorded_encoder(encoder),
        tasks=sorted(getattr(objective.data, "task_names", [])),
        training={
            "objective": type(objective).__name__,
            "steps": objective.trainer.global_step,
            "chosen": objective.chosen,
            "optimiser": asdict(optimiser),
            "settings": settings,
            "data": getattr(objective.data, "record", None),
        },
    )


def adamw(module: TrainedModule, config: OptimiserConfig) -> Any:
    """The optimiser and its schedule over a module's parameters."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    fused = module.device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    rate = _rate(module.steps, config.warmup)
    return module.by_step(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate))


def _rate(total: int, warmup: float) -> Callable[[int], float]:
    """Factor on the peak rate by step.

    Ours, as transformers' schedule starts at zero: its first step is lost, and short runs with it.
    """
    rise = max(1, round(total * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

    return factor
