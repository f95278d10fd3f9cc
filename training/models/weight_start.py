"""Closed-form start of a weight encoder's training.

The directions in which adapters differ most, and a ridge regression from their features to the
vectors of their tasks' definitions. With a few hundred adapters this is most of what can be
learnt; contrastive training then sharpens it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from index.encoders.weight_features import readings
from index.encoders.weights import WeightEncoder
from library.adapter import Adapter


@torch.no_grad()
def set_bases(encoder: WeightEncoder, adapters: Sequence[Adapter]) -> None:
    """For each input, the leading eigenvectors of Σᵢ (Gᵢ − Ḡ)², where G is ΔWᵀΔW at unit norm.

    They are the directions in which adapters differ, which the A that they share is not.
    """
    by_stock = [readings(adapter, encoder.inputs) for adapter in adapters]
    for position, basis in enumerate(encoder.bases):
        mean, square, n = torch.zeros(()), torch.zeros(()), 0
        for reading in (stock[position] for stock in by_stock):
            rows = reading.rows()  # C, (n, r, in): Gᵢ = CᵀC, so Gᵢ² = Cᵀ(CCᵀ)C
            weighted = (rows @ rows.mT) @ rows  # (n, r, in)
            square = square + rows.flatten(0, 1).mT @ weighted.flatten(0, 1)  # (in, in)
            mean = mean + rows.flatten(0, 1).mT @ rows.flatten(0, 1)  # (in, in)
            n += int(reading.present.sum())
        spread = square - mean @ mean / max(1, n)
        vectors = torch.linalg.eigh(spread).eigenvectors[:, -len(basis) :].flip(1)
        basis.copy_(vectors.mT)


@torch.no_grad()
def set_projections(
    encoder: WeightEncoder,
    values: Float[Tensor, "n inputs f"],
    present: Bool[Tensor, "n inputs"],
    targets: Float[Tensor, "n e"],
    style: Float[Tensor, " e"],
    ridge: float,
) -> None:
    """Ridge regression of `targets` on features, cut to the encoder's leading dimensions.

    Args:
        encoder: gets its mean, centre and both projections.
        values: features of the training adapters.
        present: for which inputs there are any.
        targets: the vector of each adapter's own description.
        style: a direction that says how descriptions are worded and not what they ask for; texts
            are mapped without it.
        ridge: in units of the mean squared length of centred features.
    """
    encoder.get_buffer("mean").copy_(values.mean(dim=0))
    encoder.get_buffer("centre").copy_(targets.mean(dim=0))
    x = ((values - values.mean(dim=0)) * present[..., None]).flatten(1).double()  # (n, inputs · f)
    y = (targets - targets.mean(dim=0)).double()
    kernel = x @ x.mT  # (n, n)
    eye = torch.eye(len(x), dtype=torch.float64, device=x.device)
    dual = torch.linalg.solve(kernel + ridge * kernel.diagonal().mean() * eye, y)  # (n, e)
    directions = torch.linalg.svd(kernel @ dual, full_matrices=False).Vh  # (rank, e)
    weight = torch.zeros_like(encoder.text.weight, dtype=torch.float64)  # (d, e)
    leading = directions[: len(weight)]
    weight[: len(leading)] = leading
    encoder.project.weight.copy_(weight @ dual.mT @ x)
    along = torch.nn.functional.normalize(style.double(), dim=0)
    encoder.text.weight.copy_(weight - (weight @ along)[:, None] * along)  # (d, e)
