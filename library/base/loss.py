"""Losses on answers alone, through a frozen base with adapters in place: of text, or of a teacher.

The output layer is applied to answer positions only: with a vocabulary of 49,152 and answers of six
tokens, computing it for the prompts would cost a fifth of the forward pass.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from library.adapter import Adapter
from library.base.batches import TokenBatch
from library.base.multi_adapter import MultiAdapter

POSITIONS = 256  # whose distributions over the vocabulary are formed at once


def answer_logits(
    model: Any,
    ids: Int[Tensor, "batch length"],
    answer: Bool[Tensor, "batch length"],
    *,
    neftune_alpha: float = 0.0,
) -> Float[Tensor, "answers vocabulary"]:
    """Logits at the marked positions, rows one after another; see `answer_states`."""
    return output_logits(model, answer_states(model, ids, answer, neftune_alpha=neftune_alpha))


def answer_states(
    model: Any,
    ids: Int[Tensor, "batch length"],
    answer: Bool[Tensor, "batch length"],
    *,
    neftune_alpha: float = 0.0,
) -> Float[Tensor, "answers width"]:
    """What the output layer reads at the marked positions, rows one after another.

    Args:
        model: a causal LM of transformers; adapters act through its hooks.
        ids: padded on the right.
        answer: positions whose next token is to be predicted.
        neftune_alpha: uniform noise of ±alpha/sqrt(length·width) on the input embeddings
            (Jain et al. 2023, algorithm 1); 0 for none.
    """
    embedded = model.get_input_embeddings()(ids)  # (b, t, d)
    if neftune_alpha:
        bound = neftune_alpha / math.sqrt(embedded.shape[1] * embedded.shape[2])
        embedded = embedded + torch.empty_like(embedded).uniform_(-bound, bound)
    if torch.is_grad_enabled():
        # The first layer then looks like all others to torch.compile: one graph serves them all.
        embedded = embedded.detach().requires_grad_()
    hidden = model.get_decoder()(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return hidden[answer]


def output_logits(
    model: Any, hidden: Float[Tensor, "answers width"]
) -> Float[Tensor, "answers vocabulary"]:
    """The output layer with what some families do to its result (Gemma 2, Cohere, Granite)."""
    logits = model.get_output_embeddings()(hidden)
    config = model.config
    logits = logits * (getattr(config, "logit_scale", None) or 1.0)
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def token_losses(
    logits: Float[Tensor, "answers vocabulary"],
    ids: Int[Tensor, "batch length"],
    answer: Bool[Tensor, "batch length"],
    *,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, " answers"], Int[Tensor, " answers"]]:
    """Cross-entropy of each answer token, and which row of the batch it stands in."""
    targets = ids.roll(-1, dims=1)[answer]
    losses = functional.cross_entropy(
        full_precision(logits), targets, reduction="none", label_smoothing=label_smoothing
    )
    return losses, answer.nonzero()[:, 0]


def answer_loss(
    logits: Float[Tensor, "answers vocabulary"],
    ids: Int[Tensor, "batch length"],
    answer: Bool[Tensor, "batch length"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Cross-entropy of each row, averaged over the row's answer tokens."""
    losses, row = token_losses(logits, ids, answer, label_smoothing=label_smoothing)
    return row_means(losses, row, answer)


def row_means(
    values: Float[Tensor, " answers"],
    row: Int[Tensor, " answers"],
    answer: Bool[Tensor, "batch length"],
) -> Float[Tensor, " batch"]:
    """Mean of each row's answer tokens; `row` says in which row a token stands."""
    return values.new_zeros(len(answer)).index_add(0, row, values) / answer.sum(dim=1)


def token_divergences(
    teacher: Float[Tensor, "answers vocabulary"], student: Float[Tensor, "answers vocabulary"]
) -> Float[Tensor, " answers"]:
    """KL(teacher || student) in nats at each answer position: Σ p·(log p − log q) over tokens.

    p and q are the softmax of the logits (Hinton et al. 2015, at temperature 1). Differentiable in
    the student's logits alone; beside the gradient no other tensor of their size is formed.
    """
    return _Divergence.apply(teacher, student)


class _Divergence(torch.autograd.Function):
    """`token_divergences`, a few positions at a time in both directions."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor) -> Tensor:
        ctx.save_for_backward(teacher, student)
        pairs = zip(teacher.split(POSITIONS), student.split(POSITIONS), strict=True)
        return torch.cat([_divergences(full_precision(t), full_precision(s)) for t, s in pairs])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        teacher, student = ctx.saved_tensors
        gradient = torch.empty_like(student)
        tensors = (teacher, student, grad_outputs[0], gradient)
        parts = [tensor.split(POSITIONS) for tensor in tensors]
        for t, s, grad, target in zip(*parts, strict=True):
            # of a position: dKL/ds = softmax(s) − softmax(t)
            difference = full_precision(s).softmax(-1) - full_precision(t).softmax(-1)
            target.copy_(difference * grad[:, None])
        return None, gradient


def _divergences(teacher: Tensor, student: Tensor) -> Float[Tensor, " positions"]:
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def full_precision(logits: Float[Tensor, "*n vocabulary"]) -> Float[Tensor, "*n vocabulary"]:
    """Logits in float32, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def row_scores(
    model: Any, batch: TokenBatch
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """For each row: the share of answer tokens that are right, and the mean loss."""
    logits = answer_logits(model, batch.ids, batch.answer)
    hits = (logits.argmax(-1) == batch.ids.roll(-1, dims=1)[batch.answer]).float()
    right = row_means(hits, batch.answer.nonzero()[:, 0], batch.answer)
    return right, answer_loss(logits, batch.ids, batch.answer).float()


def row_losses(
    model: Any,
    hooks: MultiAdapter,
    batch: TokenBatch,
    adapters: Adapter,
    *,
    weights: Float[Tensor, "owners n"] | None = None,
    label_smoothing: float = 0.0,
    neftune_alpha: float = 0.0,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Mean loss of each row under the adapter that owns it, or under its owner's weighted sum.

    It is the loss of softmax(logits / temperature). Differentiable in the adapters. They stay on
    the model's hooks.
    """
    if weights is None:
        hooks.set(adapters, batch.rows)
    else:
        hooks.set_mixture(adapters, weights[batch.rows])  # (batch, n)
    logits = answer_logits(model, batch.ids, batch.answer, neftune_alpha=neftune_alpha)
    scaled = logits if temperature == 1 else logits / temperature
    return answer_loss(scaled, batch.ids, batch.answer, label_smoothing=label_smoothing)
