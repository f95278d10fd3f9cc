"""The base's loss on a few examples under many weighted sums of one set of adapters."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack
from library.base.batches import TokenBatch, grouped
from library.base.loss import answer_logits, answer_loss
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.build.plan import tokenised
from library.errors import TaskFileError
from library.tasks.files import Example

ROWS = 256  # rows of a forward pass
LONGEST = 320  # tokens of an example; longer ones are left out


class MixtureLoss:
    """Weights of the adapters, one row a trial, to the mean loss over the examples of each.

    Trials share a forward pass: a row of the batch is one example under one trial's weights, and
    the adapters lie side by side in the product
    (library.base.multi_adapter.MultiAdapter.set_mixture).

    Args:
        base: the loaded base.
        adapters: of one layout up to rank.
        examples: asked bare, as libraries are trained.
    Raises:
        TaskFileError: no example is short enough.
    """

    def __init__(
        self, base: BaseModel, adapters: Sequence[Adapter], examples: Sequence[Example]
    ) -> None:
        rank = max(adapter.layout.rank for adapter in adapters)
        self._base = base
        self._pool = stack([a.with_rank(rank) for a in adapters]).to(base.device, base.model.dtype)
        rows = [
            replace(row, owner=i)
            for i, row in enumerate(tokenised(examples, base.tokenizer, LONGEST))
        ]
        if not rows:
            raise TaskFileError(f"no example has at most {LONGEST} tokens")
        (self._examples,) = grouped(rows, base.tokenizer.pad_token_id, 1)

    @torch.no_grad()
    def __call__(self, weights: Float[Tensor, "trials adapters"]) -> Float[Tensor, " trials"]:
        examples = self._examples.to(self._base.device)
        count = len(examples.ids)
        at_once = max(1, ROWS // count)
        hooks = MultiAdapter(self._base.model, self._pool.layout)
        try:
            return torch.cat(
                [self._losses(hooks, examples, part) for part in weights.split(at_once)]
            )
        finally:
            hooks.close()

    def _losses(
        self, hooks: MultiAdapter, examples: TokenBatch, weights: Float[Tensor, "trials adapters"]
    ) -> Float[Tensor, " trials"]:
        trials, count = len(weights), len(examples.ids)
        ids, answer = examples.ids.repeat(trials, 1), examples.answer.repeat(trials, 1)
        hooks.set_mixture(self._pool, weights.to(ids.device).repeat_interleave(count, dim=0))
        losses = answer_loss(answer_logits(self._base.model, ids, answer), ids, answer)
        return losses.reshape(trials, count).mean(1)
