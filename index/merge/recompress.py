"""ΔW at a lower rank: the best approximation, by random projection where things are big.

QR of both factors and an SVD of the small core (library.factored) cost the cube of the rank. A sum
of hundreds of adapters has a rank of thousands, and a dense ΔW the rank of its side; there a
randomised range finder (Halko, Martinsson and Tropp 2011, algorithm 4.4) comes as near by reading
the matrix a few times.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.factored import best_of_rank, canonical

LARGE = 512  # rank from which on projection is used, if
SHARE = 8  # it is at least this many times the wanted one
OVERSAMPLING, POWERS = 16, 4


def recompressed(adapter: Adapter, rank: int) -> Adapter:
    """Every module at `rank`: truncated to the best approximation of ΔW, or zero-padded.

    Computed in float64, whatever the factors are stored in. Raises UsageError for a rank below 1.
    """
    present = max(group.rank for group in adapter.layout.groups)
    if present < max(LARGE, SHARE * rank):
        return adapter.with_rank(rank)
    pairs = {key: projected(adapter.A[key], adapter.B[key], rank) for key in adapter.A}
    return Adapter(
        adapter.layout.with_rank(rank),
        {key: pair[0].to(adapter.A[key].dtype) for key, pair in pairs.items()},
        {key: pair[1].to(adapter.B[key].dtype) for key, pair in pairs.items()},
    )


def projected(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], rank: int
) -> tuple[Float[Tensor, "*n s i"], Float[Tensor, "*n o s"]]:
    """B·A near its best approximation of `rank`, as Q·Qᵀ·B·A with Q from random directions."""
    a, b = a.double(), b.double()
    width = min(rank + OVERSAMPLING, a.shape[-1], b.shape[-2])
    basis = _range(lambda x: b @ (a @ x), lambda y: a.mT @ (b.mT @ y), a, width)
    top_a, top_b = canonical((basis.mT @ b) @ a, basis)
    extra = max(0, rank - width)
    pad = torch.nn.functional.pad
    return pad(top_a[..., :rank, :], (0, 0, 0, extra)), pad(top_b[..., :rank], (0, extra))


def dense_to_rank(
    delta: Float[Tensor, "o i"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]:
    """Float32 factors of the matrix of at most `rank` that is nearest to a dense ΔW."""
    size = min(delta.shape)
    if size < max(LARGE, SHARE * rank):
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
        other = torch.linalg.qr(transposed(basis)).Q
        basis = torch.linalg.qr(times(other)).Q
    return basis
