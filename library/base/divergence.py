"""How far a student's next tokens are from a teacher's, where both say the same answers.

Both are given by what the output layer reads, and their logits are made a few hundred tokens at a
time, in the backward pass again: with a vocabulary of 49,152 those of a step would take gigabytes.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from library.base.loss import full_precision, output_logits, token_divergences

CHUNK = 512  # answer tokens whose logits are held at a time


def taught_losses(
    model: Any,
    teacher: Float[Tensor, "answers width"],
    student: Float[Tensor, "answers width"],
    targets: Int[Tensor, " answers"],
    *,
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, " answers"], Float[Tensor, " answers"]]:
    """KL(teacher || student) in nats of each answer token, and the student's cross-entropy there.

    KL is that of Hinton et al. 2015 at temperature 1. Differentiable in the student's states; the
    teacher's are constants.

    Args:
        model: the causal LM of both.
        teacher: states at the answers' positions (library.base.loss.answer_states).
        student: the same of the student, token by token.
        targets: the answers' tokens, for the cross-entropy.
        label_smoothing: of the cross-entropy.
    """
    parts = [
        checkpoint(
            _divergences, model, *part, label_smoothing,
            use_reentrant=False, preserve_rng_state=False,
        )
        for part in zip(
            teacher.detach().split(CHUNK), student.split(CHUNK), targets.split(CHUNK), strict=True
        )
    ]  # fmt: skip
    divergences, losses = zip(*parts, strict=True)
    return torch.cat(divergences), torch.cat(losses)


def _divergences(
    model: Any,
    teacher: Float[Tensor, "answers width"],
    student: Float[Tensor, "answers width"],
    targets: Int[Tensor, " answers"],
    label_smoothing: float,
) -> tuple[Float[Tensor, " answers"], Float[Tensor, " answers"]]:
    logits = output_logits(model, student)  # (answers, vocabulary)
    divergences = token_divergences(output_logits(model, teacher), logits)
    losses = functional.cross_entropy(
        full_precision(logits), targets, reduction="none", label_smoothing=label_smoothing
    )
    return divergences, losses
