"""Batches for training a generator through the base: descriptions and tokenised rows of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs
from library.base.batches import TokenBatch, TokenRow, grouped
from library.base.prompts import Mode, answer_ids, prompt_ids, user_turn
from library.tasks.files import Example, Task
from training.data.relabel import Relabelling
from training.data.sampling import SamplingConfig

UNDESCRIBED = -1  # in place of a description's index
FRESH = -2  # in place of that of a text that no bank holds


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row to be answered: its task's position in the step, prompt, every accepted answer."""

    owner: int
    prompt: list[int]
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaughtRow:
    """A row that a teacher answers: how the student reads it, how the teacher does, the answer.

    Attributes:
        owner: position of its condition in the step.
        prompt: tokens of the student's prompt.
        read: tokens of the teacher's.
        answer: tokens of the first accepted answer, with the end of sequence.
        nothing: whether its condition describes no task of this row: the teacher is then the base
            alone, with the student's prompt.
    """

    owner: int
    prompt: list[int]
    read: list[int]
    answer: list[int]
    nothing: bool = False


@dataclass
class TaskBatch:
    """One step: n tasks and their rows.

    Attributes:
        descriptions: index of the description of each; UNDESCRIBED for none, FRESH for one that
            the bank lacks.
        fresh: those, by position.
        rows: tokenised, in groups of similar length.
        tokens: of all rows, without padding.
        asked: the rows once more, in the order in which they were drawn.
        examples: pairs of each, which are none of its rows; None where nothing reads them.
        taught: the rows, in place of `rows` and `asked`, where there is a teacher.
        embeddings: of the descriptions, once it is on its device, and
        pairs: of the examples; None where there are none.
    """

    descriptions: Int[Tensor, " n"]
    rows: list[TokenBatch]
    tokens: int
    asked: list[PromptRow]
    examples: list[list[Example]] | None = None
    embeddings: Embeddings | None = None
    pairs: EmbeddedPairs | None = None
    fresh: dict[int, str] = field(default_factory=dict)
    taught: list[TaughtRow] = field(default_factory=list)


@dataclass(frozen=True)
class Wording:
    """One way to put a task: description, definition for prompts, and what answers become."""

    text: str
    definition: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def sample(self, position: int, instance: Example, mode: Mode) -> "Sample":
        turn = user_turn(mode, self.definition, instance.input)
        described = user_turn("prompted", self.text, instance.input)
        answers = tuple(self.labels.get(answer, answer) for answer in instance.outputs)
        return Sample(position, turn, described, answers)

    def pair(self, instance: Example) -> Example:
        """A row as an example of the task so worded."""
        answer = instance.outputs[0]
        return Example.pair(instance.input, self.labels.get(answer, answer))


@dataclass(frozen=True)
class Sample:
    """A row before it is tokenised: which task of the step, what is asked, what is to be said.

    `described` is what a teacher is asked: the task's description, whatever the mode. The first of
    the accepted answers is the one to train on.
    """

    position: int
    turn: str
    described: str
    answers: tuple[str, ...]


class Rows:
    """Tasks, their wordings and where these lie in the bank of embeddings, and a tokenizer.

    Args:
        tasks: the tasks.
        tokenizer: the base's.
        relabelled: relabellings of each task, if there are any.
        first: index of the first wording in the bank.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        tokenizer: Any,
        relabelled: Sequence[Sequence[Relabelling]] | None = None,
        first: int = 0,
    ) -> None:
        self.tasks, self.tokenizer = list(tasks), tokenizer
        self.wordings: list[list[Wording]] = []
        self.first: list[int] = []
        for task, variants in zip(tasks, relabelled or [[]] * len(tasks), strict=True):
            plain = [Wording(text, task.definition) for text in task.descriptions]
            swapped = [Wording(v.definition, v.definition, v.labels) for v in variants]
            self.first.append(first)
            self.wordings.append([*plain, *swapped])
            first += len(self.wordings[-1])

    @property
    def texts(self) -> list[str]:
        """The texts to embed, in the order of the bank."""
        return [wording.text for wordings in self.wordings for wording in wordings]

    def batch(
        self,
        descriptions: Sequence[int],
        samples: Sequence[Sample],
        config: SamplingConfig,
        examples: list[list[Example]] | None = None,
    ) -> TaskBatch:
        """Tokenise samples and group them by length; too long ones are left out."""
        rows, asked = [], []
        for sample in samples:
            prompt = prompt_ids(self.tokenizer, sample.turn)
            row = TokenRow(sample.position, prompt, answer_ids(self.tokenizer, sample.answers[0]))
            if len(row) <= config.max_length:
                rows.append(row)
                asked.append(PromptRow(sample.position, prompt, sample.answers))
        groups = grouped(rows, self.tokenizer.pad_token_id, config.micro_batches)
        tokens = sum(map(len, rows))
        return TaskBatch(torch.tensor(descriptions), groups, tokens, asked, examples)
