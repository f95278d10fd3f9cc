"""Linear algebra on ΔW = B·A that never forms ΔW, and factors of one that others have formed.

Everything works on stacks: A `[..., rank, in]`, B `[..., out, rank]`. Results that people compare
are computed in float64 through QR; only the training loss and inner products use Gram matrices.

QR of both factors and an SVD of the small core cost the cube of the rank. A sum of hundreds of
adapters has a rank of thousands, and a dense ΔW the rank of its side; there a randomised range
finder (Halko, Martinsson and Tropp 2011, algorithm 4.4) comes as near by reading the matrix a few
times.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NOISE = 1e-12  # of the largest entry or value: what rounding in float64 leaves of a zero
NOTHING = 1e-7  # of the largest singular value: the zeros of a deficient rank, stored in float32
LARGE = 512  # rank from which on projection is used, if
SHARE = 8  # it is at least this many times the rank to come
OVERSAMPLING, POWERS = 16, 4


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
    return ((b.mT @ b) * (a @ a.mT)).sum(dim=(-2, -1)).clamp_min(0.0)  # both (*n, r+s, r+s)


def inner_products(
    a1: Float[Tensor, "n sites r i"],
    b1: Float[Tensor, "n sites o r"],
    a2: Float[Tensor, "m sites s i"],
    b2: Float[Tensor, "m sites o s"],
) -> Float[Tensor, "n m sites"]:
    """⟨B1·A1, B2·A2⟩ = Σ (A1·A2ᵀ)∘(B1ᵀ·B2) of every pair, site by site, in float64.

    All pairs of a site share one matrix product for A and one for B. A distance below about 1e-8
    of the norms that is taken from these cannot be told from zero.
    """
    n, sites, r, _ = a1.shape
    m, s = len(a2), a2.shape[-2]
    rows = a1.double().transpose(0, 1).reshape(sites, n * r, -1)  # (sites, n·r, i)
    others = a2.double().transpose(0, 1).reshape(sites, m * s, -1)  # (sites, m·s, i)
    of_a = (rows @ others.mT).view(sites, n, r, m, s)  # from (sites, n·r, m·s)
    rows = b1.double().permute(1, 0, 3, 2).reshape(sites, n * r, -1)  # (sites, n·r, o)
    others = b2.double().permute(1, 0, 3, 2).reshape(sites, m * s, -1)  # (sites, m·s, o)
    of_b = (rows @ others.mT).view(sites, n, r, m, s)  # likewise
    return (of_a * of_b).sum(dim=(2, 4)).permute(1, 2, 0)  # (sites, n, m) to (n, m, sites)


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
    """The first `rank` of the canonical form; those beyond the matrix's own size are zero."""
    # 1. The singular values of B·A are those of the product of the two triangles.
    q_b, r_b = torch.linalg.qr(b.double())  # (*n, o, k), (*n, k, r)
    q_a, r_a = torch.linalg.qr(a.double().mT)  # (*n, i, m), (*n, m, r)
    u, s, vh = torch.linalg.svd(r_b @ r_a.mT, full_matrices=False)  # of (*n, k, m)
    s = s[..., :rank]
    # 2. Back to the outputs and inputs; the largest entry of each left vector decides its sign.
    vectors_u, vectors_v = q_b @ u[..., :rank], vh[..., :rank, :] @ q_a.mT  # (*n, o, s), (*n, s, i)
    peak = vectors_u.abs().argmax(dim=-2, keepdim=True)
    sign = torch.where(vectors_u.gather(-2, peak) < 0, -1.0, 1.0)
    # 3. The root of S goes to both factors.
    root = _root(s)
    # (*n, s, 1) · (*n, s, 1) · (*n, s, i), and (*n, o, s) · (*n, 1, s) · (*n, 1, s)
    top_a, top_b = root[..., :, None] * sign.mT * vectors_v, vectors_u * sign * root[..., None, :]
    return _padded(_without_noise(top_a), _without_noise(top_b), rank)


def _padded(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    """Zeros for the ranks that are missing."""
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


def reaches_projection(present: int, rank: int) -> bool:
    """True if a matrix of rank `present` is brought to `rank` by random projection."""
    return present >= max(LARGE, SHARE * rank)


def projected(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    """B·A near its best approximation of `rank`, as Q·Qᵀ·B·A with Q from random directions.

    Computed in float64; returns the inputs' dtypes.
    """
    a64, b64 = a.double(), b.double()
    width = min(rank + OVERSAMPLING, a.shape[-1], b.shape[-2])
    basis = _range(lambda x: b64 @ (a64 @ x), lambda y: a64.mT @ (b64.mT @ y), a64, width)
    top_a, top_b = canonical((basis.mT @ b64) @ a64, basis)  # (*n, width, i), (*n, o, width)
    top_a, top_b = _padded(top_a[..., :rank, :], top_b[..., :rank], rank)
    return top_a.to(a.dtype), top_b.to(b.dtype)


def dense_to_rank(
    delta: Float[Tensor, "o i"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]:
    """Float32 factors of the matrix of at most `rank` that is nearest to a dense ΔW."""
    if not reaches_projection(min(delta.shape), rank):
        return best_of_rank(delta, rank)
    delta = delta.double()
    basis = _range(lambda x: delta @ x, lambda y: delta.mT @ y, delta, rank + OVERSAMPLING)
    a, b = canonical(basis.mT @ delta, basis)
    return a[:rank].float().contiguous(), b[:, :rank].float().contiguous()


def _range(
    times: Callable[[Tensor], Tensor],
    transposed: Callable[[Tensor], Tensor],
    like: Float[Tensor, "*n r i"],
    width: int,
) -> Float[Tensor, "*n o width"]:
    """An orthonormal basis of nearly the range of a matrix, which is given by its products.

    The directions are the same in every call, so equal factors give equal bytes.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(like.shape[-1], width, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(times(start.to(like.device))).Q
    for _ in range(POWERS):
        other = torch.linalg.qr(transposed(basis)).Q  # (*n, i, width)
        basis = torch.linalg.qr(times(other)).Q  # (*n, o, width)
    return basis


def best_of_rank(
    delta: Float[Tensor, "o i"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]:
    """Float32 factors of the matrix of `rank` that is nearest to a dense ΔW; √S goes to both."""
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    root = _root(s)[:rank]  # (rank,)
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
    """The number of singular values of B·A above rounding, whatever rank it is stored at."""
    top_a, _ = canonical(a, b)
    values = top_a.square().sum(dim=1)  # the root of each singular value is in either factor
    return int((values > NOTHING * values.amax()).sum()) if len(values) else 0


@dataclass
class Residual:
    """The part of ΔW that factors miss, over modules: sums of squares of the rest and of ΔW."""

    rest: float = 0.0
    total: float = 0.0

    def add(
        self, delta: Float[Tensor, "o i"], a: Float[Tensor, "r i"], b: Float[Tensor, "o r"]
    ) -> None:
        """Count one module, in float64."""
        self.rest += float((delta - b.double() @ a.double()).square().sum())
        self.total += float(delta.square().sum())

    @property
    def relative(self) -> float:
        """‖ΔW − B·A‖ / ‖ΔW‖ over all modules; 0 where ΔW is zero."""
        return (self.rest / self.total) ** 0.5 if self.total else 0.0
