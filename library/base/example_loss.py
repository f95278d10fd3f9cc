"""Losses of a task's examples under many adapters, or weighted sums of them, in few passes.

Rows are examples, each under the adapter or the weights that it names, so that one forward pass
serves all of them. Where rows are made here, prompts are bare: the adapter carries the task.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack_padded
from library.base.batches import TokenRow, fitting_rows, grouped, require_fitting_rows
from library.base.loss import row_losses, row_scores
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.errors import TaskFileError
from library.tasks.files import Example

TOKENS = 32_768  # of one pass of mean_losses; more rows take several
TRIAL_ROWS = 256  # of one pass of a MixtureLoss
LONGEST = 320  # tokens of an example of a MixtureLoss; longer ones are left out


@torch.inference_mode()
def losses_under(
    base: BaseModel,
    adapters: Adapter,
    rows: Sequence[TokenRow],
    *,
    weights: Float[Tensor, "owners n"] | None = None,
    passes: int = 1,
) -> Float[Tensor, " rows"]:
    """Each row's mean loss in nats an answer token, in the order of the rows, on the CPU.

    Args:
        base: the loaded base model.
        adapters: n of one layout.
        rows: `owner` is the index of the adapter that answers, or of a row of `weights`.
        weights: n for each owner, whose weighted sum of the adapters answers.
        passes: the most forward passes that rows of similar length are spread over.
    """
    adapters = adapters.to(base.device)
    weights = None if weights is None else weights.to(base.device)
    with closing(MultiAdapter(base.model, adapters.layout)) as hooks:
        by_length = [
            row_losses(base.model, hooks, batch.to(base.device), adapters, weights=weights).cpu()
            for batch in grouped(rows, base.tokenizer.pad_token_id, passes)
        ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # as `grouped` sorts
    losses = torch.cat(by_length)
    return torch.empty_like(losses).index_copy(0, torch.tensor(order), losses)


@torch.inference_mode()
def scores_under(
    base: BaseModel, adapters: Adapter, rows: Sequence[TokenRow]
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Of each row: the share of answer tokens that are right, and the mean loss in nats a token.

    A share of 1 means that the greedy answer is exactly the row's, as every token of it is the
    likeliest after the ones before.

    Args:
        base: the loaded base model.
        adapters: n of one layout.
        rows: `owner` is the index of the adapter that answers.
    """
    adapters = adapters.to(base.device)
    right, losses = torch.zeros(len(rows)), torch.zeros(len(rows))
    with closing(MultiAdapter(base.model, adapters.layout)) as hooks:
        for start in range(0, len(rows), TRIAL_ROWS):
            part = rows[start : start + TRIAL_ROWS]
            order = sorted(range(len(part)), key=lambda i: len(part[i]))  # as `grouped` sorts
            (batch,) = grouped(part, base.tokenizer.pad_token_id, 1)
            moved = batch.to(base.device)
            hooks.set(adapters, moved.rows)
            numbers = torch.tensor(order) + start
            scored = row_scores(base.model, moved)
            right[numbers], losses[numbers] = scored[0].cpu(), scored[1].cpu()
    return right, losses


def mean_losses(
    base: BaseModel, adapters: Sequence[Adapter], examples: Sequence[Example], longest: int
) -> tuple[list[float], int]:
    """Mean loss per answer token of the examples under each adapter, and how many were used.

    Args:
        base: the loaded base model.
        adapters: of the same modules; ranks may differ.
        examples: those of more than `longest` tokens are left out.
        longest: in tokens, the answer's included.
    Raises:
        UsageError: no example is short enough.
        LayoutMismatch: the adapters have different modules.
    """
    examples_rows = require_fitting_rows(examples, base.tokenizer, longest)
    count = len(adapters)
    rows = [replace(row, owner=owner) for row in examples_rows for owner in range(count)]
    passes = 1 + sum(map(len, rows)) // TOKENS
    losses = losses_under(base, stack_padded(adapters), rows, passes=passes)
    by_adapter = losses.double().reshape(-1, count).mean(0)  # (examples, n) to (n,)
    return by_adapter.tolist(), len(examples_rows)


class MixtureLoss:
    """Weights of the adapters, one row a trial, to the mean loss over the examples of each.

    Args:
        base: the loaded base.
        adapters: of one layout up to rank.
        examples: those of at most LONGEST tokens are used.
    Raises:
        TaskFileError: no example is short enough.
    """

    def __init__(
        self, base: BaseModel, adapters: Sequence[Adapter], examples: Sequence[Example]
    ) -> None:
        self._base = base
        self._adapters = stack_padded(adapters).to(base.device, base.model.dtype)
        self._rows = sorted(fitting_rows(examples, base.tokenizer, LONGEST), key=len)
        if not self._rows:
            raise TaskFileError(f"no example has at most {LONGEST} tokens")

    def __call__(self, weights: Float[Tensor, "trials adapters"]) -> Float[Tensor, " trials"]:
        trials = max(1, TRIAL_ROWS // len(self._rows))
        return torch.cat([self._losses(part) for part in weights.split(trials)])

    def _losses(self, weights: Float[Tensor, "trials adapters"]) -> Float[Tensor, " trials"]:
        rows = [replace(row, owner=trial) for trial in range(len(weights)) for row in self._rows]
        losses = losses_under(self._base, self._adapters, rows, weights=weights)
        return losses.reshape(len(weights), -1).mean(1)  # (trials, examples)
