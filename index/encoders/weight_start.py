"""Closed-form start of a weight encoder's training, and a whole encoder where nobody trained one.

The directions in which adapters differ most, and a ridge regression from their features to the
vectors of their tasks' definitions. With a few hundred adapters this is most of what can be
learnt; contrastive training then sharpens it.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from index.encoders.weight_features import inputs_of, readings
from index.encoders.weights import WeightEncoder, WeightEncoderConfig
from library.adapter import Adapter
from library.layout import Layout

RIDGE = 0.3  # of configs/weight_encoder.yaml


def fitted_encoder(adapters: Sequence[Adapter], texts: Float[Tensor, "n e"]) -> WeightEncoder:
    """An encoder from its closed-form start alone, in float64.

    Args:
        adapters: one of each task, of one base; they may differ in modules and ranks.
        texts: the vector of each one's description.
    """
    layout = reduce(Layout.joined, (adapter.layout for adapter in adapters)).with_rank(1)
    width = min(item.width for item in inputs_of(layout))
    directions = min(WeightEncoderConfig.directions, width)
    sizes = WeightEncoderConfig(texts.shape[1], directions)
    encoder = WeightEncoder(sizes, layout).double().requires_grad_(False)
    set_bases(encoder, adapters)
    values, present = zip(*map(encoder.features, adapters), strict=True)
    style = torch.zeros_like(texts[0])  # which takes paraphrases to measure
    set_projections(encoder, torch.cat(values), torch.cat(present), texts, style, RIDGE)
    return encoder


@torch.no_grad()
def set_bases(encoder: WeightEncoder, adapters: Sequence[Adapter]) -> None:
    """For each input, the leading eigenvectors of Σᵢ (Gᵢ − Ḡ)², where G is ΔWᵀΔW at unit norm.

    They are the directions in which adapters differ, which the A that they share is not.
    """
    by_stock = [readings(adapter, encoder.inputs) for adapter in adapters]
    for position, basis in enumerate(encoder.bases):
        mean, square = torch.zeros(()), torch.zeros(())
        n = sum(int(stock[position].present.sum()) for stock in by_stock)
        # C, (n, r, in), of each stock: Gᵢ = CᵀC, so Gᵢ² = Cᵀ(CCᵀ)C
        stacks, span = _in_their_span([stock[position].rows() for stock in by_stock])
        for rows in stacks:
            weighted = (rows @ rows.mT) @ rows  # (n, r, in)
            square = square + rows.flatten(0, 1).mT @ weighted.flatten(0, 1)  # (in, in)
            mean = mean + rows.flatten(0, 1).mT @ rows.flatten(0, 1)  # (in, in)
        spread = square - mean @ mean / max(1, n)
        vectors = torch.linalg.eigh(spread).eigenvectors[:, -len(basis) :].flip(1)
        basis.zero_()[: vectors.shape[1]] = (vectors if span is None else span @ vectors).mT


def _in_their_span(
    stacks: list[Float[Tensor, "_ _ i"]],
) -> tuple[list[Float[Tensor, "_ _ k"]], Float[Tensor, "i k"] | None]:
    """Rows in an orthonormal basis of all of them, and that basis, if they are fewer than long.

    A few adapters of a wide input then cost no more than those of a narrow one.
    """
    flat = torch.cat([rows.flatten(0, 1) for rows in stacks])  # (k, in)
    if len(flat) >= flat.shape[1]:
        return stacks, None
    span = torch.linalg.qr(flat.mT).Q
    return [rows @ span for rows in stacks], span


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
