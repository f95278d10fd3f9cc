"""An adapter at a lower rank: the best approximation of ΔW, by random projection where that is big.

QR of both factors and an SVD of the small core (library.factored) cost the cube of the rank. A sum
of hundreds of adapters has a rank of thousands; there a randomised range finder (Halko, Martinsson
and Tropp 2011, algorithm 4.4) reads the factors a few times and comes as near.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.factored import canonical

LARGE = 512  # present rank from which on projection is used, if
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
    """ΔW near its best approximation of `rank`, through Q·Qᵀ·ΔW with Q from random directions.

    The directions are the same in every call, so equal factors give equal bytes.
    """
    a, b = a.double(), b.double()
    generator = torch.Generator().manual_seed(0)
    width = min(rank + OVERSAMPLING, a.shape[-1], b.shape[-2])
    start = torch.randn(a.shape[-1], width, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(b @ (a @ start.to(a.device))).Q  # (*n, o, width)
    for _ in range(POWERS):
        other = torch.linalg.qr(a.mT @ (b.mT @ basis)).Q  # (*n, i, width)
        basis = torch.linalg.qr(b @ (a @ other)).Q
    top_a, top_b = canonical((basis.mT @ b) @ a, basis)
    extra = max(0, rank - width)
    pad = torch.nn.functional.pad
    return pad(top_a[..., :rank, :], (0, 0, 0, extra)), pad(top_b[..., :rank], (0, extra))
