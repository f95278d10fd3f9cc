"""Contenders: an adapter and its rivals, side by side in one forward for each example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack_padded
from library.base.batches import TokenRow
from library.base.example_loss import scores_under
from library.base.models import BaseModel

OWN, NONE = "this adapter", "no adapter"


@dataclass(frozen=True)
class Contender:
    """An adapter with the name that evidence gives it."""

    name: str
    adapter: Adapter


@dataclass(frozen=True)
class Lot:
    """Adapters of the same modules, stacked, and their indices among all contenders."""

    indices: list[int]
    adapters: Adapter


def by_modules(adapters: Sequence[Adapter], device: torch.device) -> list[Lot]:
    """Adapters stacked at the largest rank, in one lot for each set of modules."""
    indices: dict[str, list[int]] = {}
    for index, adapter in enumerate(adapters):
        indices.setdefault(adapter.layout.with_rank(1).digest, []).append(index)
    return [
        Lot(same, stack_padded([adapters[index] for index in same]).to(device))
        for same in indices.values()
    ]


def scores_by_contender(
    base: BaseModel, lots: Sequence[Lot], row: TokenRow
) -> tuple[Float[Tensor, " contenders"], Float[Tensor, " contenders"]]:
    """The share of the answer's tokens that each adapter gets right, and the answer's mean loss.

    One forward for each lot.
    """
    count = sum(len(lot.indices) for lot in lots)
    shares, losses = torch.zeros(count), torch.zeros(count)
    for lot in lots:
        rows = [replace(row, owner=owner) for owner in range(len(lot.indices))]
        shares[lot.indices], losses[lot.indices] = scores_under(base, lot.adapters, rows)
    return shares, losses
