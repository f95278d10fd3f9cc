"""Inputs without answers: a teacher that reads the task's description answers them.

What it makes of the inputs is learned by an adapter that gets the input alone (context
distillation: Askell et al. 2021, section 2.2.1): at each token of the teacher's answer, the
teacher's whole distribution.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from generator.refine.training import LONGEST
from library.adapter import Adapter, stack_padded
from library.base.batches import TokenRow
from library.base.decode import MAX_NEW_TOKENS, answer_text
from library.base.decoded_states import DecodedAnswer, decode_states
from library.base.example_loss import scores_under
from library.base.models import BaseModel
from library.base.prompts import prompt_ids
from library.base.usage import Usage
from library.errors import UsageError
from library.progress import Progress, no_progress
from library.tasks.identity import inputs_digest

TOGETHER = {"cpu": 16, "cuda": 256}  # inputs that are answered in one batch
HELD_BACK = 5  # one answer in so many is not trained on,
MOST_HELD_BACK = 32  # and no more than these


@dataclass(frozen=True)
class Teacher:
    """An adapter that does a task when it reads the description in its prompt.

    Attributes:
        adapter: n = 1.
        digest: SHA-256 of the file of its weights.
        usage: its prompt, with the description.
    """

    adapter: Adapter
    digest: str
    usage: Usage


@dataclass(frozen=True)
class Lesson:
    """A teacher's answers to inputs.

    Attributes:
        rows: to train on: bare prompts, the answers, the teacher's states.
        held_back: others, without states.
        about: what became of the inputs, for provenance.
    """

    rows: tuple[TokenRow, ...]
    held_back: tuple[TokenRow, ...]
    about: "AnsweredInputs"


@dataclass(frozen=True)
class AnsweredInputs:
    """What became of a request's inputs.

    Attributes:
        given: how many there were, and
        digest: theirs.
        teacher: digest of the teacher's weights.
        repeated: came again, and
        labelled: are among the examples, and
        too_long: exceed a prompt, and
        empty: the teacher answered with nothing; all these are left out.
        cut: answers of 64 tokens, the most there are; they are used.
        different: answers that differ from one another.
        writer: digest of the weights that wrote the inputs; None if they were given.
    """

    given: int
    digest: str
    teacher: str
    repeated: int
    labelled: int
    too_long: int
    empty: int
    cut: int
    different: int
    writer: str | None = None


@dataclass(frozen=True)
class Agreement:
    """Answers to inputs that were held back from training.

    Attributes:
        same: how many are the teacher's, token for token,
        of: out of so many,
        start_same: and before any training. Whether the teacher is right, nobody knows.
    """

    same: int
    of: int
    start_same: int


@dataclass(frozen=True)
class Taught:
    """What training on a teacher's answers came to.

    Attributes:
        answered: what became of the inputs.
        used: answers that were trained on.
        kept_step: the step whose weights were kept.
        agreement: None if no input was held back.
    """

    answered: AnsweredInputs
    used: int
    kept_step: int
    agreement: Agreement | None

    def to_dict(self) -> dict[str, Any]:
        """As provenance and `--json` show it."""
        return {
            **vars(self.answered),
            "used": self.used,
            "kept_step": self.kept_step,
            "agreement": None if self.agreement is None else {**vars(self.agreement)},
        }


def lesson(
    base: BaseModel,
    teacher: Teacher,
    inputs: Sequence[str],
    usage: Usage,
    *,
    labelled: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = no_progress,
) -> Lesson:
    """A teacher's greedy answers to inputs, as rows for the prompts of a usage.

    Args:
        base: the loaded base model.
        inputs: one or more, in their order.
        labelled: inputs whose answers are known, which the teacher is not asked.
        seed: of which are held back.
        progress: called with inputs done, and of how many.
    Raises:
        UsageError: no input is left, or none is answered.
    """
    # 1. The inputs that it is asked.
    distinct = [*dict.fromkeys(inputs)]
    unknown = [text for text in distinct if text not in {*labelled}]
    if not unknown:
        raise UsageError("every input is among the examples: there is nothing to ask the teacher")
    fitting = _fitting(base, unknown, (teacher.usage, usage))
    # 2. Its answers; an empty one would teach to say nothing.
    answers = _answers(base, teacher, [asked for asked, _ in fitting], progress)
    told = [
        TokenRow(0, own, answer.tokens, answer.states)
        for (_, own), answer in zip(fitting, answers, strict=True)
        if answer_text(base, answer.tokens)
    ]
    if not told:
        raise UsageError("the teacher's answers to all inputs are empty")
    # 3. Some are held back, whose tokens alone are compared.
    held = _held_back(len(told), seed)
    learned = [row for i, row in enumerate(told) if i not in held]
    compared = [replace(told[i], teacher=None) for i in sorted(held)]
    about = AnsweredInputs(
        given=len(inputs),
        digest=inputs_digest(inputs),
        teacher=teacher.digest,
        repeated=len(inputs) - len(distinct),
        labelled=len(distinct) - len(unknown),
        too_long=len(unknown) - len(fitting),
        empty=len(fitting) - len(told),
        cut=sum(len(row.answer) == MAX_NEW_TOKENS for row in told),
        different=len({tuple(row.answer) for row in told}),
    )
    return Lesson(tuple(learned), tuple(compared), about)


def agreement(
    base: BaseModel, start: Adapter, trained: Adapter, held_back: Sequence[TokenRow]
) -> Agreement | None:
    """How often an adapter, and its start, answer as the teacher did; None without such rows."""
    if not held_back:
        return None
    rows = [replace(row, owner=owner) for owner in (0, 1) for row in held_back]
    both = stack_padded([trained, start.to("cpu", next(iter(trained.A.values())).dtype)])
    right, _ = scores_under(base, both, rows)
    same, before = (int((part == 1).sum()) for part in right.split(len(held_back)))
    return Agreement(same, len(held_back), before)


def _fitting(
    base: BaseModel, inputs: Sequence[str], usages: tuple[Usage, Usage]
) -> list[tuple[list[int], list[int]]]:
    """Each input's token ids in the prompts of both usages; too long ones are left out.

    Raises UsageError if none is short enough.
    """
    first, second = (
        [prompt_ids(base.tokenizer, usage.message(text)) for text in inputs] for usage in usages
    )
    pairs = zip(first, second, strict=True)
    fitting = [pair for pair in pairs if max(map(len, pair)) <= LONGEST]
    if not fitting:
        raise UsageError(f"no input has, with the description before it, {LONGEST} tokens or fewer")
    return fitting


def _answers(
    base: BaseModel, teacher: Teacher, prompts: Sequence[list[int]], progress: Progress
) -> list[DecodedAnswer]:
    """Greedy answers, a batch at a time."""
    adapter, answers = teacher.adapter.to(base.device), list[DecodedAnswer]()
    size = TOGETHER.get(base.device.type, TOGETHER["cpu"])
    for start in range(0, len(prompts), size):
        answers += decode_states(base, prompts[start : start + size], adapter)
        progress(len(answers), len(prompts))
    return answers


def _held_back(count: int, seed: int) -> set[int]:
    """Which of `count` answers are held back: one in five, 32 at most."""
    number = min(count // HELD_BACK, MOST_HELD_BACK)
    return {*random.Random(f"{seed}/held-back").sample(range(count), number)}
