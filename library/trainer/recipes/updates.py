"""Update rules: what becomes of the gradients of A and B before AdamW takes them.

A rule takes A, B, their gradients, and the scale s of ΔW = s·B·A, stacked over adapters and
modules, and gives the gradients that AdamW moves by.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from library.trainer.recipes.recipe import StackedPair

Rule = Callable[[Tensor, Tensor, Tensor, Tensor, float], StackedPair]

RIEMANNIAN_DAMPING = 1e-2  # as PEFT has it
LORA_PRO_DAMPING = 1e-8  # on Gram matrices in float64
ALLORA_DAMPING = 1e-2  # 1/η²: a row of zeros is scaled by η = 10


def riemannian(a: Tensor, b: Tensor, on_a: Tensor, on_b: Tensor, scale: float) -> StackedPair:
    """Riemannian preconditioning (Zhang & Pilanci 2024): (BᵀB)⁻¹·gA and gB·(AAᵀ)⁻¹."""
    inverse_b, inverse_a = (_inverse(gram, RIEMANNIAN_DAMPING) for gram in (b.mT @ b, a @ a.mT))
    return inverse_b @ on_a, on_b @ inverse_a


def lora_pro(a: Tensor, b: Tensor, on_a: Tensor, on_b: Tensor, scale: float) -> StackedPair:
    """LoRA-Pro (Wang et al. 2025, theorem 2.1), computed in float64.

    To first order ΔW moves by s·(B·gA + gB·A). Of all pairs for which that is nearest to the
    gradient on ΔW itself, this is the one that is nearest to the given gradients.
    """
    a, b, dtype = a.double(), b.double(), a.dtype
    on_a, on_b = on_a.double() / scale**2, on_b.double() / scale**2
    gram_a, gram_b = a @ a.mT, b.mT @ b
    inverse_b = _inverse(gram_b, LORA_PRO_DAMPING)
    new_a = inverse_b @ on_a
    new_b = (on_b - b @ (inverse_b @ (b.mT @ on_b))) @ _inverse(gram_a, LORA_PRO_DAMPING)
    # BᵀB·X + X·AAᵀ = −gA'·Aᵀ, by the eigenvectors of both
    (s_b, v_b), (s_a, v_a) = _spectrum(gram_b), _spectrum(gram_a)
    sums = s_b[..., :, None] + s_a[..., None, :] + LORA_PRO_DAMPING
    x = v_b @ ((v_b.mT @ -(new_a @ a.mT) @ v_a) / sums) @ v_a.mT
    return (new_a + x @ a).to(dtype), (new_b - b @ x).to(dtype)


def allora(a: Tensor, b: Tensor, on_a: Tensor, on_b: Tensor, scale: float) -> StackedPair:
    """ALLoRA (Huang & Balestriero 2024): rows over the root of the norm of what they move."""
    rows = [(x.norm(dim=-1, keepdim=True) + ALLORA_DAMPING).sqrt() for x in (a, b)]
    return on_a / rows[0], on_b / rows[1]


def _inverse(
    gram: Float[Tensor, "n sites rank rank"], damping: float
) -> Float[Tensor, "n sites rank rank"]:
    values, vectors = _spectrum(gram)
    return vectors / (values[..., None, :] + damping) @ vectors.mT


def _spectrum(
    gram: Float[Tensor, "n sites rank rank"],
) -> tuple[Float[Tensor, "n sites rank"], Float[Tensor, "n sites rank rank"]]:
    """Eigenvalues and vectors; zeros for an adapter that went non-finite, which does not move."""
    return torch.linalg.eigh(gram.nan_to_num(0, 0, 0))


UPDATES: dict[str, Rule | None] = {
    "adamw": None,
    "riemannian": riemannian,
    "lora-pro": lora_pro,
    "allora": allora,
}
