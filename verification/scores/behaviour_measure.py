"""What an adapter and its rivals make of examples: losses, right answers, answers off the labels.

Every contender is asked with one prompt, that of the adapter's own usage: an instruction helps the
base alone too, and without the adapter a user would ask with it.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, zeros
from library.base.batches import TokenRow, example_row
from library.base.decode import MAX_NEW_TOKENS, greedy
from library.base.models import BaseModel
from library.base.prompts import prompt_ids
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.tasks.files import Example
from library.tasks.metrics import rouge_l
from verification.artifact import ShareProgress
from verification.scores.behaviour_contenders import (
    NONE,
    OWN,
    Contender,
    Lot,
    by_modules,
    scores_by_contender,
)
from verification.scores.behaviour_labels import answer_labels, outside_labels

MAX_EXAMPLE_TOKENS = 320  # with the answer, without an instruction; longer ones are left out
MAX_INSTRUCTION_TOKENS = 704  # with an example's, the 1,024 that refining takes


@dataclass(frozen=True)
class Bounds:
    """Limits of a check, which cut the number of examples.

    Attributes:
        examples: how many at most, from the first on.
        seconds: after which no further example is begun; one is always finished.
        scored: how many are also answered greedily by every contender, for ROUGE-L.
    """

    examples: int = 16
    seconds: float = 30.0
    scored: int = 0


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Losses and scores on the same examples for every contender.

    Attributes:
        losses: mean over examples of the answer's cross-entropy, in nats a token, by contender;
            this adapter first.
        right: how many examples are answered with exactly the first accepted answer, by contender.
        examples: how many the losses are means of.
        answer_tokens: median length of their answers, without the end.
        available: examples at hand; fewer were used if the bounds cut them.
        too_long: examples left out for their length.
        labels: how many different answers the examples have, if they are labels; else 0.
        outside: how many of this adapter's own answers are none of the labels.
        rouge_l: mean ROUGE-L F1 of greedy answers, by contender; empty if none were asked for.
        scored: how many the ROUGE-L are means of.
    """

    losses: dict[str, float]
    right: dict[str, int]
    examples: int
    answer_tokens: float
    available: int
    too_long: int = 0
    labels: int = 0
    outside: int = 0
    rouge_l: dict[str, float]
    scored: int = 0

    @property
    def best_rival(self) -> str:
        """The name of the rival with the lowest loss."""
        rivals = [name for name in self.losses if name != OWN]
        return min(rivals, key=self.losses.__getitem__)

    @property
    def margin(self) -> float:
        """The best rival's loss less this adapter's, in nats a token."""
        return self.losses[self.best_rival] - self.losses[OWN]


def measure(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Sequence[Example],
    bounds: Bounds | None = None,
    progress: ShareProgress = lambda share: None,
    usage: Usage = BARE,
) -> Behaviour:
    """Losses (and scores) of an adapter and its rivals on examples.

    Args:
        adapter: one adapter, for this base.
        rivals: compared with it, beside the base alone, which always is.
        examples: the first accepted answer counts, for ROUGE-L the best one.
        bounds: of examples and time.
        progress: called with the share that is done after each example. What it raises ends the
            check.
        usage: the prompt that all of them get.
    Raises:
        UsageError: there is no example of at most 320 tokens, or the usage is of more than 704.
    """
    bounds = bounds or Bounds()
    # 1. The examples that are short enough, and how many of them may be used.
    fitting = _fitting(base, examples, usage)
    used = fitting[: bounds.examples]
    scored, labels = used[: bounds.scored], answer_labels(examples)
    most = _longest_answer(base, labels)
    clock = _Clock(bounds.seconds, len(used) + len(scored), progress)
    # 2. Losses and labels, then ROUGE-L, example by example until time is up.
    contenders = [Contender(OWN, adapter), Contender(NONE, zeros(adapter.layout)), *rivals]
    names = [contender.name for contender in contenders]
    lots = by_modules([contender.adapter for contender in contenders], base.device)
    right, losses, answers = [], [], []
    for _, row in used:
        shares, loss = scores_by_contender(base, lots, row)
        right.append((shares == 1) & loss.isfinite())
        losses.append(loss)
        if labels:
            answers += greedy(base, [row.prompt], adapter.to(base.device), max_new_tokens=most)
        if clock.over():
            break
    scores = [] if clock.late else _scored(base, lots, scored, clock)
    # 3. Means and counts.
    return Behaviour(
        losses=_means(names, losses),
        right=dict(zip(names, torch.stack(right).sum(dim=0).tolist(), strict=True)),
        examples=len(losses),
        answer_tokens=_median_answer([row for _, row in used[: len(losses)]]),
        available=len(examples),
        too_long=len(examples) - len(fitting),
        labels=len(labels),
        outside=outside_labels(answers, labels),
        rouge_l=_means(names, scores),
        scored=len(scores),
    )


def _fitting(
    base: BaseModel, examples: Sequence[Example], usage: Usage
) -> list[tuple[Example, TokenRow]]:
    """Examples with the prompts of a usage; raises UsageError as `measure`."""
    empty = [prompt_ids(base.tokenizer, told.message("")) for told in (usage, BARE)]
    instruction = len(empty[0]) - len(empty[1])
    if instruction > MAX_INSTRUCTION_TOKENS:
        raise UsageError(
            f"the instruction of its prompt has {instruction} tokens, more than "
            f"{MAX_INSTRUCTION_TOKENS}"
        )
    turned = [replace(example, input=usage.message(example.input)) for example in examples]
    rows = [(e, example_row(base.tokenizer, t)) for e, t in zip(examples, turned, strict=True)]
    fitting = [pair for pair in rows if len(pair[1]) <= MAX_EXAMPLE_TOKENS + instruction]
    if not fitting:
        raise UsageError(
            f"there is no example of at most {MAX_EXAMPLE_TOKENS} tokens to check behaviour on"
        )
    return fitting


def _longest_answer(base: BaseModel, labels: frozenset[str]) -> int:
    """Tokens after which an answer is no label: twice the longest's, as case can take more."""
    lengths = [
        len(base.tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels
    ]
    return min(MAX_NEW_TOKENS, 2 * max(lengths, default=0) + 4)


def _scored(
    base: BaseModel,
    lots: Sequence[Lot],
    examples: Sequence[tuple[Example, TokenRow]],
    clock: "_Clock",
) -> list[Float[Tensor, " contenders"]]:
    """ROUGE-L of greedy answers, example by example."""
    by_example = []
    for example, row in examples:
        scores = torch.zeros(sum(len(lot.indices) for lot in lots))
        for lot in lots:
            prompts = [row.prompt] * len(lot.indices)
            answers = greedy(base, prompts, lot.adapters, range(len(prompts)))
            scores[lot.indices] = torch.tensor([rouge_l(text, example.outputs) for text in answers])
        by_example.append(scores)
        if clock.over():
            break
    return by_example


def _median_answer(rows: Sequence[TokenRow]) -> float:
    return float(statistics.median(len(row.answer) - 1 for row in rows))  # without the end


def _means(names: Sequence[str], rows: Sequence[Tensor]) -> dict[str, float]:
    if not rows:
        return {}
    return dict(zip(names, torch.stack(list(rows)).double().mean(dim=0).tolist(), strict=True))


class _Clock:
    """Counts steps, tells how far the work is, and says when time is up."""

    def __init__(self, seconds: float, steps: int, progress: ShareProgress) -> None:
        self._end = time.monotonic() + seconds
        self._steps, self._done, self._progress = steps, 0, progress
        self.late = False

    def over(self) -> bool:
        """One more step is done; whether no further one may begin."""
        self._done += 1
        self._progress(self._done / self._steps)
        self.late = time.monotonic() >= self._end
        return self.late
