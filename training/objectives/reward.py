"""Reward: a trained generator goes on by how good the answers are that its adapters make.

Every step samples answers under the generated adapters, scores them against the references, and
makes those likelier that score above the mean of their prompt (REINFORCE, Williams 1992).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from generator.engine import read_generator
from generator.models.base import Generator
from library.adapter import Adapter
from library.base.decode import MAX_NEW_TOKENS, answer_text
from library.base.models import base_layout
from library.base.sampling import Sampling
from library.checkpoint import Storage
from library.errors import TaskFileError, UsageError
from library.tasks.metrics import exact_match, rouge_l
from training.data.batches import PromptRow, TaskBatch
from training.objectives.frozen_base import QUIET, passed_on
from training.objectives.module import OptimiserConfig
from training.objectives.policy_gradient import Answered, PolicyTerms
from training.objectives.through_base import ThroughBase

Metric = Literal["rouge_l", "exact_match"]
METRICS = {"rouge_l": rouge_l, "exact_match": exact_match}


@dataclass(frozen=True)
class AnswerConfig:
    """Settings of how answers are sampled and scored.

    Attributes:
        k: answers to each prompt, 2 at least.
        temperature: of the sampling, and of the policy whose gradient is taken; above 0.
        max_new_tokens: the most tokens in an answer; longer ones are scored as far as they go.
        metric: of an answer against the references of its row, from 0 to 1.
        batch_size: answers decoded together.
    Raises:
        UsageError: k is below 2, the temperature not above 0, or another number below 1.
    """

    k: int = 4
    temperature: float = 1.0
    max_new_tokens: int = MAX_NEW_TOKENS
    metric: Metric = "rouge_l"
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.k < 2:
            raise UsageError("k must be at least 2: an answer is compared with its prompt's others")
        if not self.temperature > 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature}")
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise UsageError("max_new_tokens and batch_size must be at least 1")


class Reward(ThroughBase):
    """Train a generator on the reward of sampled answers.

    The gradient is that of -mean(A·log p(answer)) with A = reward - mean reward of the prompt's k
    answers; log p is the sum over the answer's tokens, the end of sequence among them. That is
    (k-1)/k times RLOO (Kool et al. 2019; Ahmadian et al. 2024), whose baseline leaves the answer
    itself out, so it is unbiased but for this factor. It is GRPO (Shao et al. 2024) with one update
    for each sample, and without dividing by the standard deviation, which favours prompts whose
    answers hardly differ, or by the length, which favours long wrong answers (Liu et al. 2025).

    Dropout is off throughout: what is trained is what is served.

    Args:
        start: folder of the checkpoint to go on from.
        answers: how answers are sampled and scored.
        kl_weight: weight of KL(policy | policy of `start`) in nats an answer, whose gradient is
            that of (log p - log p of start)²/2 on the sampled answers (Schulman 2020); 0 for none.
        micro_batches: groups of similar length that a step's answers are split into for the
            gradient; each is run forward and backward on its own.
        seed: of the sampling; a step's answers depend on (seed, step).
        base: Hub id or folder of the base model; the default base if None.
        optimiser: learning rate and its course.
        compile_layers: compile the base's layers for the gradient; for GPUs.
        out: folder for the exported checkpoint; none if None.
        storage: how its matrices are stored.
    Raises:
        MissingPath, CheckpointError: `start` cannot be used.
        LayoutMismatch: it is for another base.
        UsageError: the generator needs what tasks do not give, or once the data is there, it reads
            another encoder's descriptions.
    """

    def __init__(
        self,
        start: str,
        answers: AnswerConfig = AnswerConfig(),
        kl_weight: float = 0.0,
        micro_batches: int = 6,
        seed: int = 0,
        base: str | None = None,
        optimiser: OptimiserConfig = OptimiserConfig(),
        compile_layers: bool = False,
        out: str | None = None,
        storage: Storage = "int8",
    ) -> None:
        checkpoint = read_generator(Path(start))
        module = checkpoint.module
        super().__init__(
            compile_layers=compile_layers,
            generator=type(module),
            architecture=asdict(module.config),
            base=base,
            targets=module.layout.module_types,
            rank=module.layout.rank,
            optimiser=optimiser,
            encoder=checkpoint.info.encoder,
            out=out,
            storage=storage,
        )
        base_layout(self.reference, module.layout).require_same(
            module.layout, f"base model '{self.reference.name}'", f"the checkpoint {start}"
        )
        self.generator = module
        self.start, self.start_digest = Path(start), checkpoint.digest
        self.seen = checkpoint.info.tasks
        self.answers, self.kl_weight = answers, kl_weight
        self.micro_batches, self.seed = micro_batches, seed
        self.val_reward: dict[int, float] = {}  # by step
        self._scored: list[float] = []

    def settings(self) -> dict[str, Any]:
        names = ("kl_weight", "micro_batches", "seed", "compile_layers", "start_digest")
        values = {name: getattr(self, name) for name in names}
        return {**asdict(self.answers), **values, "val_reward": list(self.val_reward.items())}

    @cached_property
    def starting(self) -> Generator:
        """The generator as it was before this training."""
        return read_generator(self.start).module.to(self.device)

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        if not batch.asked:
            raise TaskFileError("no row of this step is short enough; raise sampling.max_length")
        condition, temperature = self.condition(batch), self.answers.temperature
        adapter = self.generator(condition)
        cut = adapter.detached()
        answered = self._sampled(batch.asked, cut)
        terms = PolicyTerms(answered, self.kl_weight)
        if self.kl_weight:
            with torch.no_grad():
                before = self.starting(condition)
                terms.start = self.frozen.losses(answered.groups, before, temperature=temperature)
        loss = self.frozen.backward(
            answered.groups, cut, QUIET, terms=terms, temperature=temperature
        )
        self.log("train_loss", loss)
        self.log_dict({**answered.figures(), **terms.figures()}, prog_bar=True)
        self.log_costs(batch.tokens)
        return passed_on(adapter, cut)

    def _sampled(self, asked: Sequence[PromptRow], adapters: Adapter) -> Answered:
        """k answers to each prompt, and their rewards."""
        k = self.answers.k
        rows = [row for row in asked for _ in range(k)]
        tokens = self._answers(rows, adapters, self._sampling())
        rewards = torch.tensor(self._rewards(rows, tokens)).view(len(asked), k)
        pad = self.frozen.base.tokenizer.pad_token_id
        return Answered.of(rows, tokens, rewards, pad, self.micro_batches, self.device)

    def _sampling(self) -> Sampling:
        """That of the present step."""
        key = f"{self.seed}/{self.trainer.global_step}/answers"
        return Sampling.seeded(self.answers.temperature, key)

    def _answers(
        self, rows: Sequence[PromptRow], adapters: Adapter, sampling: Sampling | None
    ) -> list[list[int]]:
        return self.frozen.answers(
            [row.prompt for row in rows],
            adapters,
            [row.owner for row in rows],
            sampling=sampling,
            max_new_tokens=self.answers.max_new_tokens,
            batch_size=self.answers.batch_size,
        )

    def _rewards(self, rows: Sequence[PromptRow], tokens: Sequence[list[int]]) -> list[float]:
        score, base = METRICS[self.answers.metric], self.frozen.base
        return [
            score(answer_text(base, answer), row.references)
            for row, answer in zip(rows, tokens, strict=True)
        ]

    def on_validation_epoch_start(self) -> None:
        self._scored = []

    def validation_step(self, batch: TaskBatch, batch_idx: int) -> None:
        """Reward of greedy answers on tasks set aside."""
        if batch.asked:
            adapters = self.generator(self.condition(batch))
            tokens = self._answers(batch.asked, adapters, None)
            self._scored += self._rewards(batch.asked, tokens)

    def on_validation_epoch_end(self) -> None:
        """Log the mean over rows, and keep it for the record by step; step 0 is the start."""
        if self._scored:
            mean = sum(self._scored) / len(self._scored)
            self.val_reward[self.trainer.global_step] = mean
            self.log("val_reward", mean, prog_bar=True)
