"""Linear algebra on ΔW = B·A that never forms ΔW, and factors of one that others have formed.

Everything works on stacks: A `[..., rank, in]`, B `[..., out, rank]`. Results that people compare
are computed in float64 through QR; only the training loss uses Gram matrices (see below).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NOISE = 1e-12  # of the largest entry or value: what rounding in float64 leaves of a zero
NOTHING = 1e-7  # of the largest singular value: the zeros of a deficient rank, stored in float32


def delta_norm(a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"]) -> Float[Tensor, "*n"]:
    """Frobenius norm of ΔW = B·A, in float64, from the triangles of two QR factorisations."""
    r_b = torch.linalg.qr(b.double(), mode="r").R  # (*n, min(o,r), r)
    r_a = torch.linalg.qr(a.double().mT, mode="r").R  # (*n, min(i,r), r)
    return torch.linalg.matrix_norm(r_b @ r_a.mT)


def delta_distance(
    a1: Float[Tensor, "*n r i"],
    b1: Float[Tensor, "*n o r"],
    a2: Float[Tensor, "*n s i"],
    b2: Float[Tensor, "*n o s"],
) -> Float[Tensor, "*n"]:
    """‖B1·A1 − B2·A2‖, in float64: QR of [B1, −B2] and of [A1; A2], then the small product.

    The trace formula would cancel badly where the two are close.
    """
    return delta_norm(torch.cat([a1, a2], dim=-2), torch.cat([b1, -b2], dim=-1))


def squared_delta_distance(
    a1: Float[Tensor, "*n r i"],
    b1: Float[Tensor, "*n o r"],
    a2: Float[Tensor, "*n s i"],
    b2: Float[Tensor, "*n o s"],
) -> Float[Tensor, "*n"]:
    """‖B1·A1 − B2·A2‖², for training: Gram matrices in float64, smooth where B1 = 0.

    QR has no gradient at the rank-deficient start (B = 0), so the loss cannot go through it.
    """
    a = torch.cat([a1, a2], dim=-2).double()  # (*n, r+s, i)
    b = torch.cat([b1, -b2], dim=-1).double()  # (*n, o, r+s)
    return ((b.mT @ b) * (a @ a.mT)).sum(dim=(-2, -1)).clamp_min(0.0)


def canonical(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"]
) -> tuple[Float[Tensor, "*n r i"], Float[Tensor, "*n o r"]]:
    """The balanced SVD factorisation of ΔW in float64: B = U·√S, A = √S·Vᵀ, S descending.

    Signs are fixed (the entry of largest magnitude in each column of U is positive). For zero or
    repeated singular values the basis inside such a block is not unique.
    """
    return _top(a, b, a.shape[-2])


def _top(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    """Its first ranks; those beyond the matrix's own size are zero."""
    q_b, r_b = torch.linalg.qr(b.double())  # (*n, o, k), (*n, k, r)
    q_a, r_a = torch.linalg.qr(a.double().mT)  # (*n, i, m), (*n, m, r)
    u, s, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)
    s = s[..., :rank]
    left, right = q_b @ u[..., :rank], vh[..., :rank, :] @ q_a.mT  # (*n, o, s), (*n, s, i)
    peak = left.abs().argmax(dim=-2, keepdim=True)
    sign = torch.where(left.gather(-2, peak) < 0, -1.0, 1.0)
    root = _root(s)
    top_a, top_b = root[..., :, None] * sign.mT * right, left * sign * root[..., None, :]
    return _padded(_without_noise(top_a), _without_noise(top_b), rank)


def _padded(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    extra, pad = rank - a.shape[-2], torch.nn.functional.pad
    return pad(a, (0, 0, 0, extra)), pad(b, (0, extra))


def with_rank(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    """ΔW at another rank: the best approximation below the present one (Eckart–Young), else padded.

    Returns A `[..., rank, in]` and B `[..., out, rank]` in the inputs' dtype.
    """
    if rank >= a.shape[-2]:
        return _padded(a, b, rank)
    top_a, top_b = _top(a, b, rank)
    return top_a.to(a.dtype), top_b.to(b.dtype)


def best_of_rank(
    delta: Float[Tensor, "o i"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]:
    """Float32 factors of the matrix of `rank` that is nearest to a dense ΔW; √S goes to both."""
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    root = _root(s)[:rank]
    a, b = _without_noise(root[:, None] * vh[:rank]), _without_noise(u[:, :rank] * root)
    return a.float().contiguous(), b.float().contiguous()


def _root(s: Float[Tensor, "*n r"]) -> Float[Tensor, "*n r"]:
    """√S, with zeros where there is nothing but rounding, whose root would be no small number."""
    return torch.where(s < NOISE * s[..., :1], 0.0, s).sqrt()


def _without_noise(factor: Float[Tensor, "*n i j"]) -> Float[Tensor, "*n i j"]:
    """Zero again where rounding left something, which differs by the number of threads."""
    sizes = factor.abs()
    return torch.where(sizes < NOISE * sizes.amax(dim=(-2, -1), keepdim=True), 0.0, factor)


def present_rank(a: Float[Tensor, "r i"], b: Float[Tensor, "o r"]) -> int:
    """How many singular values of B·A are above rounding, whatever the rank it is stored at."""
    top_a, _ = canonical(a, b)
    values = top_a.square().sum(dim=1)  # the root of each singular value is in either factor
    return int((values > NOTHING * values.amax()).sum()) if len(values) else 0


@dataclass
class Residual:
    """What factors leave of a ΔW, module by module: sums of squares of the rest and of ΔW."""

    left: float = 0.0
    whole: float = 0.0

    def add(
        self, delta: Float[Tensor, "o i"], a: Float[Tensor, "r i"], b: Float[Tensor, "o r"]
    ) -> None:
        """Count one module, in float64."""
        self.left += float((delta - b.double() @ a.double()).square().sum())
        self.whole += float(delta.square().sum())

    @property
    def relative(self) -> float:
        """‖ΔW − B·A‖ / ‖ΔW‖ over all modules; 0 where ΔW is zero."""
        return (self.left / self.whole) ** 0.5 if self.whole else 0.0
