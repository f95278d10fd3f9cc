"""An orthogonalised sum: what k adapters have in common counts √k times, not k times.

In every module the ΔW, each of length one, are replaced by the orthonormal matrices that are
nearest to all of them together (Löwdin's symmetric orthogonalisation, 1950: the inverse square root
of their Gram matrix), get their lengths back and are summed. No adapter comes first, and the result
is a weighted sum with weights of its own in each module, so it is exact in factored form.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from index.merge.weighted_sum import sum_by_module
from library.adapter import Adapter, stack_padded

DEPENDENT = 1e-4  # eigenvalues of the Gram matrix below this share of the largest are rounding


def orthogonal(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Σ w·‖ΔW‖·O with O the orthogonalised ΔW, at the sum of the ranks (n = 1 each)."""
    norms, cosines = _gram(adapters)
    values, vectors = torch.linalg.eigh(cosines)  # (sites, k), (sites, k, k)
    root = torch.where(values > DEPENDENT * values.amax(-1, keepdim=True), values, torch.inf)
    inverse = vectors @ torch.diag_embed(root.rsqrt()) @ vectors.mT
    lengths = torch.tensor(list(weights), dtype=torch.float64) * norms  # (sites, k)
    # (sites, k, k) · (sites, k, 1) to (sites, k)
    mixed = (inverse @ lengths[..., None])[..., 0] / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return sum_by_module(adapters, mixed.T[:, None, :])  # (k, 1, sites)


def _gram(
    adapters: Sequence[Adapter],
) -> tuple[Float[Tensor, "sites k"], Float[Tensor, "sites k k"]]:
    """Norms of the ΔW of each module, and the cosines between them (0 where one is zero)."""
    stacked = stack_padded(adapters)
    products = stacked.inner_products(stacked).permute(2, 0, 1)  # (k, k, sites) to (sites, k, k)
    norms = products.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scale = norms[:, :, None] * norms[:, None, :]  # (sites, k, k)
    cosines = torch.where(scale > 0, products / scale.clamp_min(1e-300), 0.0)
    return norms, cosines
