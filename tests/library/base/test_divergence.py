"""Divergence of answers: exact, zero between equals, and with the gradient of the whole at once."""

import pytest
import tiny
import torch
from torch import Tensor

from library.base import divergence
from library.base.divergence import taught_losses
from library.base.loss import answer_logits, answer_states, output_logits, token_losses
from library.base.multi_adapter import adapted
from library.layout import layout_of

FAMILIES = ("llama", "gemma2", "granite", "cohere")  # what they do to logits differs


def states(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_value_and_gradient_are_those_of_the_formula(
    family: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "CHUNK", chunk)
    model = tiny.model(tiny.config(family), dtype=torch.float64)
    teacher, student = states(9, 0), states(9, 1).requires_grad_()
    targets = tiny.tokens(1, 9)[0]
    weights = torch.rand(2, 9, dtype=torch.float64)

    p, q = (output_logits(model, s).softmax(-1) for s in (teacher, student))
    expected = (p * (p / q).log()).sum(-1)
    cross = torch.nn.functional.cross_entropy(
        output_logits(model, student), targets, reduction="none", label_smoothing=0.1
    )
    (wanted,) = torch.autograd.grad((weights * torch.stack([expected, cross])).sum(), student)

    found = taught_losses(model, teacher, student, targets, label_smoothing=0.1)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], cross)
    (gradient,) = torch.autograd.grad((weights * torch.stack(found)).sum(), student)
    torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-9)
    assert wanted.abs().max() > 1e-3 and (expected > 0).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = tiny.model(tiny.config("llama"), dtype=torch.float64)
    teacher, targets = states(3, 0), tiny.tokens(1, 3)[0]

    def total(student: Tensor) -> Tensor:
        return taught_losses(model, teacher, student, targets)[0].sum()

    assert torch.autograd.gradcheck(total, states(3, 1).requires_grad_())


def test_between_equals_there_is_neither_divergence_nor_gradient() -> None:
    model = tiny.model(tiny.config("llama"), dtype=torch.float64)
    student = states(6, 0).requires_grad_()
    found, _ = taught_losses(model, student.detach(), student, tiny.tokens(1, 6)[0])
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert found.abs().max() < 1e-12 and gradient.abs().max() < 1e-12


def test_losses_are_those_of_training_and_reach_the_adapters() -> None:
    """Through the base: cross-entropy as in token_losses, and the teacher gets no gradient."""
    config = tiny.config("llama")
    model, layout = tiny.model(config), layout_of(config, rank=2)
    ids, answer = tiny.tokens(3, 9), torch.zeros(3, 9, dtype=torch.bool)
    answer[0, 2:5] = answer[1, 7:8] = answer[2, 0:8] = True
    adapter = tiny.adapter(layout, 2)
    factors = [factor.requires_grad_() for factor in adapter.factors()]
    rows = torch.tensor([1, 0, 1])
    with adapted(model, adapter, 1 - rows):
        teacher = answer_states(model, ids, answer)
    with adapted(model, adapter, rows):
        student = answer_states(model, ids, answer)
        logits = answer_logits(model, ids, answer)
        targets = ids.roll(-1, dims=1)[answer]
        found, losses = taught_losses(model, teacher, student, targets, label_smoothing=0.1)
    wanted, _ = token_losses(logits, ids, answer, label_smoothing=0.1)
    torch.testing.assert_close(losses, wanted)
    assert (found > 0).all()
    gradients = torch.autograd.grad(found.sum(), [*factors, teacher], allow_unused=True)
    assert gradients[-1] is None and all(g is not None and g.any() for g in gradients[:-1])
