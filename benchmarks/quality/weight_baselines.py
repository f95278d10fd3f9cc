"""Baselines of the weight encoder: ridge regressions from other views of an adapter.

Each view gives a matrix of inner products between all adapters; `mapped` regresses the vectors of
definitions on it. ΔW itself, the factors as they lie in the file (flattened), spectral statistics
(five numbers a module, as in arXiv 2602.15195) and Delta-Activations signatures (2509.04442).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from library.adapter import Adapter
from library.factored import canonical

RIDGES = (0.03, 0.1, 0.3, 1.0)


def mapped(
    kernel: Float[Tensor, "n n"], train: Sequence[int], targets: Float[Tensor, "t e"], ridge: float
) -> Float[Tensor, "n e"]:
    """Kernel ridge regression of the training rows' targets, for every row; centred, unit rows."""
    rows = torch.tensor(train)
    kernel = kernel.double()
    trained = kernel[rows][:, rows]
    mean = trained.mean(dim=0)
    centred = trained - mean - mean[:, None] + mean.mean()
    products = kernel[:, rows]
    products = products - products.mean(dim=1, keepdim=True) - mean + mean.mean()
    y = (targets - targets.mean(dim=0)).double()
    eye = torch.eye(len(rows), dtype=torch.float64)
    dual = torch.linalg.solve(centred + ridge * centred.diagonal().mean() * eye, y)
    return normalize(products @ dual, dim=-1).float()


def cosines(kernel: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    size = kernel.diagonal().clamp_min(1e-20).sqrt()
    return kernel / size / size[:, None]


def delta_w(adapters: Sequence[Adapter]) -> Float[Tensor, "n n"]:
    """Cosines of ΔW, modules joined."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        n, rank = a.shape[:2]
        of_a, of_b = (x.reshape(n * rank, -1) for x in (a, b.mT))
        both = (of_a @ of_a.mT) * (of_b @ of_b.mT)
        return both.view(n, rank, n, rank).sum(dim=(1, 3))

    return cosines(_summed(adapters, product))


def flattened(adapters: Sequence[Adapter]) -> Float[Tensor, "n n"]:
    """Cosines of all factors, one after the other; lower ranks are padded with zeros."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        both = torch.cat([a.flatten(1), b.flatten(1)], dim=1)
        return both @ both.mT

    return cosines(_summed(adapters, product))


def spectral(adapters: Sequence[Adapter]) -> Float[Tensor, "n n"]:
    """Products of standardised statistics: of each module the largest singular value, the norm,
    the share of energy in the first, the entropy of the spectrum and the entries' kurtosis."""
    columns = []
    for a, b in _modules(adapters):
        values = canonical(a, b)[0].norm(dim=-1).square()  # A = √S·Vᵀ
        energy = values.square()
        total = energy.sum(dim=-1).clamp_min(1e-20)
        share = energy / total[:, None]
        entropy = -(share * share.clamp_min(1e-20).log()).sum(dim=-1)
        numbers = [values[:, 0].log(), total.log() / 2, share[:, 0], entropy, _kurtosis(a, b)]
        columns += [number.double() for number in numbers]
    features = torch.stack(columns, dim=1)
    features = (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-9)
    return (features @ features.mT).float()


def _kurtosis(a: Float[Tensor, "n r i"], b: Float[Tensor, "n o r"]) -> Float[Tensor, " n"]:
    parts = []
    for start in range(0, len(a), 32):
        delta = (b[start : start + 32] @ a[start : start + 32]).flatten(1)
        square = (delta - delta.mean(dim=1, keepdim=True)).square()
        parts.append(square.square().mean(dim=1) / square.mean(dim=1).square().clamp_min(1e-30))
    return torch.cat(parts)


def _summed(
    adapters: Sequence[Adapter], product: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "n n"]:
    n = sum(len(adapter) for adapter in adapters)
    total = torch.zeros(n, n)
    for a, b in _modules(adapters):
        total += product(a, b)
    return total


def _modules(adapters: Sequence[Adapter]) -> Iterator[tuple[Tensor, Tensor]]:
    """The factors of each module in turn, of all adapters together at the largest rank."""
    rank = max(adapter.layout.rank for adapter in adapters)
    for site in adapters[0].layout.sites:
        by_name = [next(s for s in x.layout.sites if s.name == site.name) for x in adapters]
        pairs = [x.site(of_adapter) for x, of_adapter in zip(adapters, by_name, strict=True)]
        a = torch.cat([pad(a, (0, 0, 0, rank - a.shape[1])) for a, _ in pairs])
        yield a.float(), torch.cat([pad(b, (0, rank - b.shape[2])) for _, b in pairs]).float()
