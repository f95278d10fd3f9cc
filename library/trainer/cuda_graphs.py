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

from library.adapter import Adapter, zeros
from library.base.loss import output_logits, token_divergences
from library.base.multi_adapter import MultiAdapter
from library.trainer.packing import PackedBatch, mask_of

Loss = Callable[[Any, PackedBatch], Float[Tensor, ""]]
Run = Callable[[PackedBatch], Tensor | None]


def packed_states(model: Any, batch: PackedBatch) -> Float[Tensor, "answers width"]:
    """What the output layer reads at the answer positions; adapters act through hooks."""
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
    # 2. Of (sequences·length, width) the answers alone.
    return hidden.flatten(0, 1)[batch.answers]


def answer_losses(
    model: Any, batch: PackedBatch
) -> tuple[Float[Tensor, " answers"], Float[Tensor, "answers vocabulary"]]:
    """The loss of each answer token in nats, and the logits that it comes from.

    Cross-entropy, or where there is a teacher the divergence from its distribution.
    """
    states = packed_states(model, batch)
    logits = output_logits(model, states)  # (answers, vocabulary)
    exact = logits if logits.dtype == torch.float64 else logits.float()
    losses = functional.cross_entropy(exact, batch.targets, reduction="none")
    if batch.teacher is not None and batch.taught is not None:
        with torch.no_grad():
            teacher = output_logits(model, batch.teacher.to(states.dtype))
        losses = torch.where(batch.taught, token_divergences(teacher, logits), losses)
    return losses, logits


def weighted_loss(model: Any, batch: PackedBatch) -> Float[Tensor, ""]:
    """The sum of a batch's losses by their weights."""
    losses, _ = answer_losses(model, batch)
    return (losses * batch.weights.to(losses.dtype)).sum()


class PackedLoss:
    """Leaves the gradient of a loss on adapters' factors, batch by batch.

    `leaves` are factors of the same shapes whose memory stays in place from step to step, as a
    CUDA graph requires; their gradients add up.

    Args:
        model: the frozen base.
        hooks: on it.
        like: adapters of the shapes to come.
        loss: of the model and a batch, under the hooks' adapters.
    """

    def __init__(
        self, model: Any, hooks: MultiAdapter, like: Adapter, loss: Loss = weighted_loss
    ) -> None:
        self._model, self._hooks, self._loss = model, hooks, loss
        first = like.factors()[0]
        self.leaves = zeros(
            like.layout, len(like), dtype=first.dtype, device=first.device
        ).detached()
        for leaf in self.leaves.factors():
            leaf.grad = torch.zeros_like(leaf)
        self._replayed = Replayed(model.device)

    @torch.no_grad()
    def load(self, adapters: Adapter) -> None:
        """Copy the adapters' values to the leaves, and clear the gradients."""
        for leaf, value in zip(self.leaves.factors(), adapters.factors(), strict=True):
            leaf.copy_(value)
            if leaf.grad is not None:
                leaf.grad.zero_()

    def backward(self, batch: PackedBatch) -> None:
        """Add a batch's gradient."""
        self._replayed(self._run, batch)

    def _run(self, batch: PackedBatch) -> None:
        self._hooks.set_packed(_members(self.leaves, batch), batch.owners)
        self._loss(self._model, batch).backward()
        self._hooks.clear()


def _members(adapters: Adapter, batch: PackedBatch) -> Adapter:
    """Those of the adapters that a batch has rows of; gradients go back to all.

    Not `adapters[numbers]`: going backward, an index by a tensor sorts, a selection only adds.
    """
    numbers = batch.members
    if numbers is None:
        return adapters
    a, b = (
        {key: factor.index_select(0, numbers) for key, factor in side.items()}
        for side in (adapters.A, adapters.B)
    )
    return Adapter(adapters.layout, a, b)


class PackedStates:
    """What the output layer reads at the answers under one or several constant adapters.

    Args:
        model: the frozen base.
        hooks: on it.
        adapters: a token whose owner is -1 gets none.
    """

    def __init__(self, model: Any, hooks: MultiAdapter, adapters: Adapter) -> None:
        self._model, self._hooks, self._adapters = model, hooks, adapters
        self._replayed = Replayed(model.device)

    def __call__(self, batch: PackedBatch) -> Float[Tensor, "answers width"]:
        states = self._replayed(self._run, batch)
        assert states is not None
        return states.clone()  # the next batch of this shape overwrites it

    @torch.no_grad()
    def _run(self, batch: PackedBatch) -> Tensor:
        self._hooks.set_packed(self._adapters, batch.owners)
        states = packed_states(self._model, batch)
        self._hooks.clear()
        return states


class Replayed:
    """A function of packed batches: on a GPU captured as a CUDA graph for each of their shapes.

    It is not kept, as a method's object that holds this one would then wait for garbage collection,
    and with it all memory of the graphs.

    Args:
        device: of the function's tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}  # None: seen once
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None
        self._pool: Any = None

    def __call__(self, run: Run, batch: PackedBatch) -> Tensor | None:
        """What the function gives; the memory is used again for the next batch of this shape.

        Args:
            run: always the same. It reads no tensors but its batch's and such as stay in place, and
                gives one or none.
        """
        if self._stream is None:
            return run(batch)
        # Everything on one stream: autograd remembers on which one a leaf was first used.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            output = self._on_gpu(run, batch, self._stream)
        torch.cuda.current_stream().wait_stream(self._stream)
        return output

    def _on_gpu(self, run: Run, batch: PackedBatch, stream: torch.cuda.Stream) -> Tensor | None:
        # 1. The first batch of a shape runs eagerly, which also warms the kernels up.
        if batch.shape not in self._graphs:
            self._graphs[batch.shape] = None
            return run(batch)
        # 2. The second one is captured, 3. and from then on replayed.
        graph = self._graphs[batch.shape]
        if graph is None:
            graph = _Graph(batch, run, self._pool, stream)
            self._graphs[batch.shape], self._pool = graph, graph.graph.pool()
        return graph.replay(batch)


class _Graph:
    """One shape's run, on tensors that stay where they are."""

    def __init__(self, batch: PackedBatch, run: Run, pool: Any, stream: torch.cuda.Stream) -> None:
        self._static = batch.mapped(torch.clone)
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph, pool=pool, stream=stream):
            self._output = run(self._static)

    def replay(self, batch: PackedBatch) -> Tensor | None:
        for static, tensor in zip(self._static.tensors(), batch.tensors(), strict=True):
            static.copy_(tensor)
        self.graph.replay()
        return self._output
