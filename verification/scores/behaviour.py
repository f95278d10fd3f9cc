"""Behaviour: does an adapter do what its description says, or would another serve as well?

The loss on examples of the described task under this adapter is held against rivals: no adapter,
other tasks' adapters and their mean. An adapter that belongs to the examples beats the best of
them by a clear margin; another task's adapter does not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack, zeros
from library.base.batches import TokenRow, grouped
from library.base.decode import greedy
from library.base.loss import row_scores
from library.base.models import BaseModel
from library.base.multi_adapter import adapted
from library.base.prompts import answer_ids, prompt_ids
from library.errors import UsageError
from library.tasks.files import Example
from library.tasks.metrics import rouge_l

EXAMPLES = 16
SECONDS = 30.0
MAX_LENGTH = 320  # tokens of an example with its answer, as in training; longer ones are left out
OWN, NONE = "this adapter", "no adapter"


@dataclass(frozen=True)
class Contender:
    """An adapter with the name that evidence gives it."""

    name: str
    adapter: Adapter


@dataclass(frozen=True)
class Bounds:
    """What a check may take; it cuts the number of examples.

    Attributes:
        examples: how many at most, from the first on.
        seconds: after which no further example is begun; one is always finished.
        scored: how many are also answered greedily, for ROUGE-L.
    """

    examples: int = EXAMPLES
    seconds: float = SECONDS
    scored: int = 0


@dataclass(frozen=True)
class Behaviour:
    """What was measured, on the same examples for every contender.

    Attributes:
        losses: mean over examples of the answer's cross-entropy, in nats a token, by contender;
            this adapter first.
        rouge_l: mean ROUGE-L F1 of greedy answers, by contender; empty if none were asked for.
        examples: how many the losses are means of.
        scored: how many the ROUGE-L are means of.
        too_long: examples left out for their length.
        given: examples at hand; fewer were used if the bounds cut them.
    """

    losses: dict[str, float]
    rouge_l: dict[str, float]
    examples: int
    scored: int
    too_long: int
    given: int

    @property
    def best_rival(self) -> str:
        """The name of the rival with the lowest loss."""
        rivals = [name for name in self.losses if name != OWN]
        return min(rivals, key=self.losses.__getitem__)

    @property
    def margin(self) -> float:
        """How much lower this adapter's loss is than the best rival's, in nats a token."""
        return self.losses[self.best_rival] - self.losses[OWN]


def measure(
    base: BaseModel,
    adapter: Adapter,
    rivals: Sequence[Contender],
    examples: Sequence[Example],
    bounds: Bounds | None = None,
    progress: Callable[[float], None] | None = None,
) -> Behaviour:
    """Losses (and scores) of an adapter and its rivals on examples, in bare mode.

    Args:
        adapter: one adapter, for this base.
        rivals: compared with it, beside the base alone, which always is.
        examples: the first accepted answer counts for the loss, the best one for ROUGE-L.
        bounds: of examples and time.
        progress: called with the share that is done after each example. What it raises ends the
            check.
    Raises:
        UsageError: there is no example of at most 320 tokens.
    """
    bounds = bounds or Bounds()
    contenders = [Contender(OWN, adapter), Contender(NONE, zeros(adapter.layout)), *rivals]
    rows = [(example, token_row(base, example)) for example in examples]
    fitting = [pair for pair in rows if len(pair[1]) <= MAX_LENGTH]
    if not fitting:
        raise UsageError(
            f"there is no example of at most {MAX_LENGTH} tokens to check behaviour on"
        )
    wanted = fitting[: bounds.examples]
    steps = len(wanted) + min(bounds.scored, len(wanted))
    clock = _Clock(bounds.seconds, steps, progress or (lambda share: None))
    lots = by_modules([contender.adapter for contender in contenders], base.device)
    losses = []
    for _, row in wanted:
        losses.append(losses_under(base, lots, row))
        if clock.over():
            break
    scores = [] if clock.late else _scored(base, lots, wanted[: bounds.scored], clock)
    names = [contender.name for contender in contenders]
    return Behaviour(
        losses=_means(names, losses),
        rouge_l=_means(names, scores),
        examples=len(losses),
        scored=len(scores),
        too_long=len(rows) - len(fitting),
        given=len(rows),
    )


def token_row(base: BaseModel, example: Example) -> TokenRow:
    """An example as the bare prompt and the first accepted answer."""
    prompt = prompt_ids(base.tokenizer, example.input)
    return TokenRow(0, prompt, answer_ids(base.tokenizer, example.outputs[0]))


@dataclass(frozen=True)
class Lot:
    """Adapters of the same modules, stacked, and their places in the order of all."""

    places: list[int]
    adapters: Adapter


def by_modules(adapters: Sequence[Adapter], device: torch.device) -> list[Lot]:
    """Adapters stacked at the largest rank, in one lot for each set of modules."""
    places: dict[str, list[int]] = {}
    for place, adapter in enumerate(adapters):
        places.setdefault(adapter.layout.with_rank(1).digest, []).append(place)
    lots = []
    for same in places.values():
        rank = max(adapters[place].layout.rank for place in same)
        stacked = stack([_padded(adapters[place], rank) for place in same])
        lots.append(Lot(same, stacked.to(device)))
    return lots


@torch.inference_mode()
def losses_under(
    base: BaseModel, lots: Sequence[Lot], row: TokenRow
) -> Float[Tensor, " contenders"]:
    """The answer's mean loss (nats a token) under each adapter, in one forward for each lot."""
    found = torch.zeros(sum(len(lot.places) for lot in lots))
    for lot in lots:
        rows = [replace(row, owner=i) for i in range(len(lot.places))]
        (batch,) = grouped(rows, base.tokenizer.pad_token_id, 1)
        moved = batch.to(base.device)
        with adapted(base.model, lot.adapters, moved.rows):
            found[lot.places] = row_scores(base.model, moved)[1].cpu()
    return found


def _padded(adapter: Adapter, rank: int) -> Adapter:
    same = all(site.rank == rank for site in adapter.layout.sites)
    return (adapter if same else adapter.with_rank(rank)).to(dtype=torch.float32)


def _scored(
    base: BaseModel,
    lots: Sequence[Lot],
    examples: Sequence[tuple[Example, TokenRow]],
    clock: "_Clock",
) -> list[Float[Tensor, " contenders"]]:
    """ROUGE-L of greedy answers, example by example."""
    found = []
    for example, row in examples:
        scores = torch.zeros(sum(len(lot.places) for lot in lots))
        for lot in lots:
            prompts = [row.prompt] * len(lot.places)
            answers = greedy(base, prompts, lot.adapters, range(len(prompts)))
            scores[lot.places] = torch.tensor([rouge_l(text, example.outputs) for text in answers])
        found.append(scores)
        if clock.over():
            break
    return found


def _means(names: Sequence[str], rows: Sequence[Tensor]) -> dict[str, float]:
    if not rows:
        return {}
    return dict(zip(names, torch.stack(list(rows)).double().mean(dim=0).tolist(), strict=True))


class _Clock:
    """Counts steps, tells how far the work is, and says when time is up."""

    def __init__(self, seconds: float, steps: int, progress: Callable[[float], None]) -> None:
        self._end = time.monotonic() + seconds
        self._steps, self._done, self._progress = steps, 0, progress
        self.late = False

    def over(self) -> bool:
        """One more step is done; whether no further one may begin."""
        self._done += 1
        self._progress(self._done / self._steps)
        self.late = time.monotonic() >= self._end
        return self.late
