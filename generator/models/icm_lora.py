"""ICM-LoRA: a conditional VAE over flattened adapters (Shao et al. 2025, arXiv 2501.17635).

An adapter is a vector of z-scores; an encoder of 1-D convolutions and the task's vector give a
Gaussian, a decoder of 1-D convolutions turns a draw and the task's vector back into the adapter. To
generate, the draw is from N(0, I). What differs from the paper: the task vector comes from the base
alone, so that a new task has one (library.base.task_vectors); statistics are the training set's and
stored, with a mean of every entry; task vectors are standardised, as they share large entries in
which tasks hardly differ; and padding counts in no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from generator.layers.conv_vae import ConvDecoder, ConvEncoder
from generator.layers.flattened import ZScore, flatten, unflatten
from generator.layers.gaussian import kl_divergence, seeded_noise, standard_normal
from generator.models.base import Condition, Generator
from library.adapter import Adapter
from library.errors import UsageError
from library.layout import Layout

CHANNELS = (8, 16, 32, 64, 128, 256, 256, 128, 64, 32, 16, 8)


@dataclass(frozen=True)
class ICMLoRAConfig:
    """The architecture. Raises UsageError for what makes no sense.

    Attributes:
        task_dim: length of a task vector: the base's hidden size.
        latent: dimensions of z.
        channels: of the encoder's layers; the decoder takes them backwards. Vectors are padded to
            a multiple of 2 to their number, 4,096 with the paper's twelve.
    """

    task_dim: int = 576
    latent: int = 256
    channels: Sequence[int] = CHANNELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON and YAML have lists
        for value in (self.task_dim, self.latent, len(self.channels), *self.channels):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"sizes of icm-lora must be whole numbers from 1, not {value!r}")


class ICMLoRA(Generator):
    """The conditional VAE for one layout and one hidden size of the base.

    Before training ΔW is exactly zero: the statistics are then those of untrained adapters.
    Batch norm makes the rows of a batch depend on each other while training, and not in eval mode,
    in which checkpoints are loaded.
    """

    kind = "icm-lora"
    Config = ICMLoRAConfig
    needs = frozenset({"task"})  # which the base makes of the description
    optional = frozenset({"examples"})
    draws = True

    def __init__(self, config: ICMLoRAConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.scores = ZScore(layout)
        step = 2 ** len(config.channels)
        self.length = -(-self.scores.values // step) * step
        sizes = (config.channels, self.length, config.latent, config.task_dim)
        self.encoder, self.decoder = ConvEncoder(*sizes), ConvDecoder(*sizes)
        self.task_mean: Tensor
        self.task_deviation: Tensor
        self.register_buffer("task_mean", torch.zeros(config.task_dim))
        self.register_buffer("task_deviation", torch.ones(config.task_dim))

    def prepare(self, adapters: Adapter, tasks: Float[Tensor, "m d"] | None = None) -> None:
        """Take the statistics of the training adapters and of their task vectors.

        Raises UsageError without task vectors, for those of another width, or if nothing varies.
        """
        self.scores.fit(adapters)
        tasks = self._require_vectors(tasks).double()
        deviation = tasks.std(dim=0, correction=0)
        self.task_mean.copy_(tasks.mean(dim=0))
        self.task_deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, condition: Condition) -> Adapter:
        """n task vectors to n adapters, all by the one z that the condition's seed draws.

        So a row is what it would be alone.
        """
        task = self._task(condition)
        z = seeded_noise(condition.seed, self.config.latent, task)
        return self._decoded(z.expand(len(task), -1), task)

    def posterior(
        self, condition: Condition, target: Adapter
    ) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """The adapters through encoder and decoder, and "kl", the mean over them in nats.

        z is drawn while training, and the mean in eval mode.
        """
        task = self._task(condition)
        scores = self.scores(flatten(target))
        padded = pad(scores, (0, self.length - self.scores.values))
        q = self.encoder(padded, task)
        z = q.draw() if self.training else q.mean
        return self._decoded(z, task), {"kl": kl_divergence(q, standard_normal(q)).mean()}

    def _decoded(self, z: Float[Tensor, "n latent"], task: Float[Tensor, "n d"]) -> Adapter:
        """What is decoded beyond the last weight is padding, and is dropped."""
        scores = self.decoder(z, task)[:, : self.scores.values]
        return unflatten(self.layout, self.scores.inverse(scores))

    def _task(self, condition: Condition) -> Float[Tensor, "n d"]:
        """The task vectors, standardised."""
        return (self._require_vectors(condition.task) - self.task_mean) / self.task_deviation

    def _require_vectors(self, vectors: Float[Tensor, "n d"] | None) -> Float[Tensor, "n d"]:
        """The vectors. Raises UsageError if there are none, or if they are of another width."""
        if vectors is None:
            raise UsageError(
                f"{self.kind} needs task vectors: for training, give the data the tasks' folders"
            )
        if vectors.shape[1] != self.config.task_dim:
            raise UsageError(
                f"{self.kind} was made for task vectors of {self.config.task_dim} numbers, "
                f"and these have {vectors.shape[1]}: set architecture.task_dim"
            )
        return vectors
