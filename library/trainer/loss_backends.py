"""Rows through the frozen base under their adapters: gradients, and scores.

Two ways with one interface. Sharing: sequences of one adapter (library.trainer.shared_prefix), for
CPUs. Packed: of any (library.trainer.packing), on GPUs as CUDA graphs. Tests hold both to PEFT.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenBatch, TokenRow, grouped
from library.base.loss import row_scores
from library.base.multi_adapter import MultiAdapter
from library.trainer.cuda_graphs import PackedLoss, answer_losses
from library.trainer.packing import packed
from library.trainer.shared_prefix import shared_prefix_batches

EVALUATION_ROWS = 256  # rows that are scored together, padded

Scores = tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]


def evaluation_batches(
    rows: Sequence[TokenRow], pad: int
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Padded batches of rows of similar length, each with the numbers of its rows."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(rows), EVALUATION_ROWS):
        numbers = order[start : start + EVALUATION_ROWS]
        (batch,) = grouped([rows[i] for i in numbers], pad, 1)
        yield numbers, batch


class SharingBackend:
    """Sequences of one adapter each, which run once what its rows share.

    Attributes:
        cells: trained tokens so far, padding included.

    Args:
        model: the frozen base.
        hooks: on it.
        pad: id of the padding token.
        parts: batches that a step is cut into.
    """

    def __init__(self, model: Any, hooks: MultiAdapter, pad: int, parts: int) -> None:
        self._model, self._hooks, self._pad, self._parts = model, hooks, pad, parts
        self.cells = 0

    def gradients(
        self, rows: Sequence[TokenRow], weights: Sequence[float], adapters: Adapter
    ) -> list[Tensor]:
        """Gradient on each of the adapters' factors of the sum of answer losses.

        Args:
            rows: owned by the adapters' positions.
            weights: of an answer token, for each row; the same for equal rows of an owner.
        """
        leaves = adapters.detached()
        for batch in shared_prefix_batches(rows, weights, self._pad, self._parts):
            moved = batch.to(self._model.device)
            self._hooks.set(leaves, moved.owners[:, 0])
            losses, _ = answer_losses(self._model, moved)  # (answers,)
            (losses * moved.weights.to(losses.dtype)).sum().backward()
            self.cells += int((batch.segments == -1).sum())
        self.cells += sum(map(len, rows))
        self._hooks.clear()
        return [_gradient(leaf) for leaf in leaves.factors()]

    @torch.no_grad()
    def scores(self, rows: Sequence[TokenRow], adapters: Adapter) -> Scores:
        """For each row: the share of answer tokens that are right, and the mean loss."""
        right, loss = torch.zeros(len(rows)), torch.zeros(len(rows))
        for numbers, batch in evaluation_batches(rows, self._pad):
            moved = batch.to(self._model.device)
            self._hooks.set(adapters, moved.rows)
            row_right, row_loss = row_scores(self._model, moved)
            right[numbers], loss[numbers] = row_right.cpu(), row_loss.cpu()
        self._hooks.clear()
        return right, loss


class PackedBackend:
    """The same of packed batches, on a GPU as CUDA graphs.

    Tokens of all adapters meet in one product, where the non-finite ones of one adapter would reach
    the gradients of all. A step in which that happens is run again, one adapter a sequence.

    Args:
        like: adapters of the number and shapes to come.
    """

    def __init__(self, model: Any, hooks: MultiAdapter, pad: int, like: Adapter) -> None:
        self._model, self._hooks, self._pad = model, hooks, pad
        self._apart = SharingBackend(model, hooks, pad, parts=8)
        self._loss = PackedLoss(model, hooks, like)
        self.cells = 0

    def gradients(
        self, rows: Sequence[TokenRow], weights: Sequence[float], adapters: Adapter
    ) -> list[Tensor]:
        self._loss.load(adapters)
        for batch, _ in packed(rows, weights, self._pad):
            self._loss.backward(batch.to(self._model.device))
            self.cells += batch.ids.numel()
        gradients = [_gradient(leaf) for leaf in self._loss.leaves.factors()]
        if not torch.stack([gradient.norm() for gradient in gradients]).isfinite().all():
            return self._apart.gradients(rows, weights, adapters)
        return gradients

    @torch.no_grad()
    def scores(self, rows: Sequence[TokenRow], adapters: Adapter) -> Scores:
        right, loss = torch.zeros(len(rows)), torch.zeros(len(rows))
        for batch, order in packed(rows, [1.0] * len(rows), self._pad):
            moved = batch.to(self._model.device)
            self._hooks.set_packed(adapters, moved.owners)
            losses, logits = answer_losses(self._model, moved)  # (answers,), (answers, vocabulary)
            real = moved.weights > 0  # (answers,): the others are padding
            # (sequences, length) to (sequences·length,) to the row of each answer: (answers,)
            row = moved.segments.flatten()[moved.answers][real]
            hits = (logits.argmax(-1) == moved.targets)[real]
            row_right, row_loss = _by_row(hits, losses[real], row, len(order))
            right[order], loss[order] = row_right.cpu(), row_loss.cpu()
        self._hooks.clear()
        return right, loss


def _by_row(hits: Tensor, losses: Float[Tensor, " answers"], row: Tensor, rows: int) -> Scores:
    """Means over each row's answer tokens, in float32."""
    zero = torch.zeros(rows, device=losses.device)
    count = zero.index_add(0, row, torch.ones_like(hits, dtype=torch.float32))
    right = zero.index_add(0, row, hits.float()) / count
    return right, (zero.to(losses.dtype).index_add(0, row, losses) / count).float()


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
