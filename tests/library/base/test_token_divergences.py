"""KL at answer tokens: the formula and its gradient, token by token, at any shift of the logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from library.base.loss import POSITIONS, token_divergences

VOCABULARY = 7


def logits(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(count, VOCABULARY, generator=generator, dtype=torch.float64)).to(dtype)


@given(st.integers(1, 9), st.integers(0, 99))
def test_it_is_the_formula(count: int, seed: int) -> None:
    teacher, student = logits(count, seed), logits(count, seed + 100)
    p, q = teacher.softmax(-1), student.softmax(-1)
    divergences = token_divergences(teacher, student)
    torch.testing.assert_close(divergences, (p * (p / q).log()).sum(-1))
    assert (divergences > 0).all()
    # What is added to all logits of a position changes nothing; equal distributions have none.
    shifted = student + torch.arange(count)[:, None]
    torch.testing.assert_close(token_divergences(teacher, shifted), divergences)
    same = token_divergences(teacher, teacher + 2)
    torch.testing.assert_close(same, torch.zeros(count, dtype=torch.float64))


def test_the_gradient_is_that_of_the_formula_at_any_number_of_positions() -> None:
    for count in (1, POSITIONS, 2 * POSITIONS + 1):
        teacher, student = logits(count, 1), logits(count, 2).requires_grad_()
        weights = torch.arange(1.0, count + 1, dtype=torch.float64)
        (token_divergences(teacher, student) * weights).sum().backward()
        other = student.detach().clone().requires_grad_()
        reference = functional.kl_div(
            other.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
        )
        (reference.sum(-1) * weights).sum().backward()
        torch.testing.assert_close(student.grad, other.grad)
    few = logits(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: token_divergences(logits(3, 4), s), (few,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    teacher, student = logits(4, 7, dtype), logits(4, 8, dtype).requires_grad_()
    divergences = token_divergences(teacher, student)
    divergences.sum().backward()
    exact = token_divergences(teacher.double(), student.detach().double())
    assert divergences.dtype == torch.float32 and student.grad is not None
    assert student.grad.dtype == dtype
    torch.testing.assert_close(divergences.double(), exact, atol=1e-5, rtol=1e-5)


def test_a_teacher_gets_no_gradient() -> None:
    teacher, student = logits(2, 9).requires_grad_(), logits(2, 10).requires_grad_()
    token_divergences(teacher, student).sum().backward()
    assert teacher.grad is None and student.grad is not None
