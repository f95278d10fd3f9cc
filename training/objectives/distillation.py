"""Distillation: a generator's adapters answer bare as a teacher does that reads the description.

The teacher is one adapter on the same frozen base. What it makes of a description by attention in
its prompt, the generator learns to put into weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from generator.strategies.multi_task import MultiTask
from generator.strategies.stored import StoredAdapter
from library.adapter import Adapter, zeros
from library.base.decode import MAX_NEW_TOKENS
from library.base.sampling import Sampling
from library.checkpoint import CheckpointInfo
from library.errors import MissingPath, TaskFileError, UsageError
from training.data.batches import TaskBatch, TaughtRow
from training.data.taught import TaughtDataModule
from training.objectives.frozen_base import passed_on
from training.objectives.lessons import LessonLoss, Lessons
from training.objectives.sft import SFT

Labels = Literal["given", "teacher"]


class Distillation(SFT):
    """Train a generator on a teacher's answers, on batches of TaughtDataModule.

    Loss of a row: KL(teacher || student), the mean over the answer's tokens (Hinton et al. 2015; in
    place of a prompt's context as in Snell et al. 2022), plus `label_weight` times the loss of SFT.
    Both read the same answer. The teacher reads the description and the input; the student reads
    the input, bare or prompted as sampling.prompted_share says, under the adapter that its
    generator made of the description. Rows whose condition asks for nothing (data.nothing_share)
    have the base itself, bare, for a teacher, and no loss of SFT. The penalties are those of SFT.
    Rows are packed (training.objectives.lessons), so sampling.micro_batches is of validation alone.

    Args:
        teacher: folder of an adapter that was trained with the instruction in its prompt.
        labels: which answer both read: the row's own, or the teacher's ("teacher"), for which no
            row needs an answer of its own.
        onto_teacher: whether what is generated is added to the teacher's adapter, which then acts
            in the student as well, and where a condition asks for nothing; the checkpoint names it.
        label_weight: of the cross-entropy of that answer.
        temperature: of the teacher's sampling, where it answers; 0 for its greedy answers.
        max_new_tokens: the most tokens in an answer of the teacher.
        answer_batch: answers that it decodes together.
        seed: of its sampling; a step's answers depend on (seed, step).
        **kwargs: see SFT.
    Raises:
        MissingPath, AdapterFileError: the teacher cannot be read.
        LayoutMismatch: it is for another base.
        UsageError: a setting makes no sense.
    """

    def __init__(
        self,
        teacher: str,
        labels: Labels = "given",
        onto_teacher: bool = False,
        label_weight: float = 0.0,
        temperature: float = 0.0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        answer_batch: int = 256,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(label_weight, temperature) < 0 or min(max_new_tokens, answer_batch) < 1:
            raise UsageError(
                "label_weight and temperature must not be negative, and max_new_tokens and "
                "answer_batch must be at least 1"
            )
        if not Path(teacher).is_dir():
            raise MissingPath(f"there is no teacher's folder at {teacher}")
        if self.noise.neftune_alpha:
            raise UsageError("distillation adds no noise to the base's inputs: neftune_alpha is 0")
        stored = StoredAdapter(Path(teacher), MultiTask.name)
        self._taught_by = stored.adapter_for(self.reference)
        self.onto_teacher = onto_teacher
        if onto_teacher:
            self.merged = self._taught_by
            self._taught_by = zeros(self._taught_by.layout.with_rank(1))
        self.beside = (self._taught_by.layout,)
        self.teacher_digest = stored.weights_digest
        self.seen = sorted({*self.seen, *(stored.trained_on or [])})
        self.labels: Labels = labels
        self.label_weight, self.temperature, self.seed = label_weight, temperature, seed
        self.max_new_tokens, self.answer_batch = max_new_tokens, answer_batch

    def settings(self) -> dict[str, Any]:
        names = (
            "teacher_digest", "onto_teacher", "labels", "label_weight", "temperature",
            "max_new_tokens", "seed",
        )  # fmt: skip
        return {**super().settings(), **{name: getattr(self, name) for name in names}}

    def info(self) -> CheckpointInfo:
        """What the checkpoint says; with onto_teacher, what its adapters are added to."""
        onto = self.teacher_digest if self.onto_teacher else ""
        return replace(super().info(), onto=onto)

    def setup(self, stage: str) -> None:
        if not isinstance(self.data, TaughtDataModule):
            raise UsageError(
                "distillation needs rows with the teacher's prompts: data.class_path "
                "training.data.taught.TaughtDataModule"
            )
        super().setup(stage)

    @cached_property
    def loss(self) -> LessonLoss:
        """The loss of a batch, on the device that is trained on."""
        return LessonLoss(self.label_weight, self.noise.label_smoothing, self.frozen.base.device)

    @property
    def teacher(self) -> Adapter:
        """The teacher's adapter where the base is (n = 1); nothing if its weights hold it."""
        self._taught_by = self._taught_by.to(self.frozen.base.device)
        return self._taught_by

    def training_step(self, batch: TaskBatch, batch_idx: int) -> Tensor:
        rows = batch.taught
        if not rows:
            raise TaskFileError("no row of this step is short enough; raise sampling.max_length")
        adapter, penalty = self.generated(batch)
        pad, on_gpu = self.frozen.base.tokenizer.pad_token_id, self.device.type == "cuda"
        longest = self.data.sampling.max_length if on_gpu else None  # for CUDA graphs
        lessons = Lessons.of(rows, self.answers(rows), pad, longest, self.device)
        cut = self.frozen.distil(lessons, self.teacher, adapter, self.loss)
        figures = self.loss.figures(lessons)
        self.log("train_loss", figures.pop("loss"), prog_bar=True)
        self.log_dict({f"train_{name}": value for name, value in figures.items()})
        self.log_costs(batch.tokens)
        return passed_on(adapter, cut) + penalty

    def answers(self, rows: Sequence[TaughtRow]) -> list[list[int]]:
        """The answer's tokens of each row: its own, or the teacher's at the present step."""
        if self.labels == "given":
            return [row.answer for row in rows]
        return self.frozen.answers(
            [row.read for row in rows],
            self.teacher,
            [[float(not row.nothing)] for row in rows],
            sampling=self._sampling(),
            max_new_tokens=self.max_new_tokens,
            batch_size=self.answer_batch,
        )

    def _sampling(self) -> Sampling | None:
        """That of the present step; None for greedy answers."""
        if not self.temperature:
            return None
        return Sampling.seeded(self.temperature, f"{self.seed}/{self.trainer.global_step}/answers")
