"""Forward and backward of packed batches: eagerly, or as CUDA graphs where there is a GPU.

A step of small layers is bound by the launching of kernels. A CUDA graph launches them all at once:
the second time that a shape occurs it is captured, from then on replayed.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from library.adapter import Adapter
from library.base.loss import output_logits, token_divergences
from library.base.multi_adapter import MultiAdapter
from library.trainer.packing import PackedBatch, mask_of


def answer_losses(
    model: Any, batch: PackedBatch
) -> tuple[Float[Tensor, " answers"], Float[Tensor, "answers vocabulary"]]:
    """The loss of each answer token in nats, and the logits that it comes from.

    Cross-entropy, or where there is a teacher the divergence from its distribution.
    """
    # 1. The decoder, rows of one sequence blind to each other: (sequences, length, width).
    embedded = model.get_input_embeddings()(batch.ids)
    if torch.is_grad_enabled():
        # As in library.base.loss: one graph for all layers.
        embedded = embedded.detach().requires_grad_()
    hidden = model.get_decoder()(
        inputs_embeds=embedded,
        attention_mask=mask_of(batch, embedded.dtype),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    # 2. The output layer at answer positions alone, of (sequences·length, width):
    # (answers, vocabulary).
    logits = output_logits(model, hidden.flatten(0, 1)[batch.answers])
    exact = logits if logits.dtype == torch.float64 else logits.float()
    losses = functional.cross_entropy(exact, batch.targets, reduction="none")
    if batch.teacher is not None and batch.taught is not None:
        with torch.no_grad():
            teacher = output_logits(model, batch.teacher.to(hidden.dtype))
        losses = torch.where(batch.taught, token_divergences(teacher, logits), losses)
    return losses, logits


class PackedLoss:
    """Leaves the gradient of the weighted loss on an adapter's factors, batch by batch.

    Args:
        model: the frozen base.
        hooks: on it.
        like: adapters of the shapes to come.

    `leaves` are factors of the same shapes whose memory stays in place from step to step, as a
    CUDA graph requires; their gradients add up.
    """

    def __init__(self, model: Any, hooks: MultiAdapter, like: Adapter) -> None:
        self._model, self._hooks = model, hooks
        self.leaves = like.detached()
        for leaf in self.leaves.factors():
            leaf.grad = torch.zeros_like(leaf)
        self._graphs: dict[tuple[int, int, int, int], _Graph | None] = {}  # None: seen once
        self._stream = torch.cuda.Stream() if model.device.type == "cuda" else None
        self._pool: Any = None

    @torch.no_grad()
    def load(self, adapters: Adapter) -> None:
        """Copy the adapters' values to the leaves, and clear the gradients."""
        for leaf, value in zip(self.leaves.factors(), adapters.factors(), strict=True):
            leaf.copy_(value)
            if leaf.grad is not None:
                leaf.grad.zero_()

    def backward(self, batch: PackedBatch) -> None:
        """Add a batch's gradient."""
        if self._stream is None:
            self._run(batch)
            return
        # Everything on one stream: autograd remembers on which one a leaf was first used.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._on_gpu(batch, self._stream)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _on_gpu(self, batch: PackedBatch, stream: torch.cuda.Stream) -> None:
        # 1. The first batch of a shape runs eagerly, which also warms the kernels up.
        if batch.shape not in self._graphs:
            self._graphs[batch.shape] = None
            self._run(batch)
            return
        # 2. The second one is captured, 3. and from then on replayed.
        graph = self._graphs[batch.shape]
        if graph is None:
            graph = _Graph(batch, self._run, self._pool, stream)
            self._graphs[batch.shape], self._pool = graph, graph.graph.pool()
        graph.replay(batch)

    def _run(self, batch: PackedBatch) -> None:
        self._hooks.set_packed(self.leaves, batch.owners)
        losses, _ = answer_losses(self._model, batch)
        (losses * batch.weights.to(losses.dtype)).sum().backward()
        self._hooks.clear()


class _Graph:
    """One shape's forward and backward, on tensors that stay where they are."""

    def __init__(
        self,
        batch: PackedBatch,
        run: Callable[[PackedBatch], None],
        pool: Any,
        stream: torch.cuda.Stream,
    ) -> None:
        self._static = PackedBatch(*(tensor.clone() for tensor in batch.tensors()))
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph, pool=pool, stream=stream):
            run(self._static)

    def replay(self, batch: PackedBatch) -> None:
        for static, tensor in zip(self._static.tensors(), batch.tensors(), strict=True):
            static.copy_(tensor)
        self.graph.replay()
