"""Packed batches: many rows in one sequence, each blind to the others. For GPUs.

Rows of 20 to 300 tokens, padded to their batch's longest, waste more than half of it. Packed
first-fit into sequences of one length they waste a few per cent, and a step has one of a few
shapes, which is what CUDA graphs need.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from library.base.batches import TokenRow

LENGTH = 256  # of a sequence; where a row is longer, a multiple of
STEP = 64
CELLS = 16_384  # of a batch
EVEN = 2  # sequences of a batch are a multiple of this, and
ANSWERS = 1024  # answer tokens of this, so that few shapes occur


@dataclass(frozen=True)
class PackedBatch:
    """Rows in sequences. What pads has segment -1, owner -1, weight 0.

    `answers` are places in the flattened batch whose *next* token is wanted, padded with place 0.
    """

    ids: Int[Tensor, "sequences length"]
    positions: Int[Tensor, "sequences length"]  # within the row
    segments: Int[Tensor, "sequences length"]  # number of the row in its batch
    owners: Int[Tensor, "sequences length"]
    answers: Int[Tensor, " answers"]
    targets: Int[Tensor, " answers"]
    weights: Float[Tensor, " answers"]

    def to(self, device: torch.device) -> "PackedBatch":
        return PackedBatch(*(t.to(device, non_blocking=True) for t in self.tensors()))

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sequences, length, answers."""
        sequences, length = self.ids.shape
        return sequences, length, len(self.answers)


def packed(
    rows: Sequence[TokenRow], weights: Sequence[float], pad: int
) -> list[tuple[PackedBatch, list[int]]]:
    """Pack rows into batches.

    Args:
        rows: in any order.
        weights: of each answer token, by owner.
        pad: id of the padding token.
    Returns:
        The batches, each with the rows (by number) that its segments are.
    """
    length = -(-max(LENGTH, *map(len, rows)) // STEP) * STEP
    bins = _bins([len(row) for row in rows], length)
    count = -(-len(bins) * length // CELLS)
    size = -(-len(bins) // count)
    return [
        _batch(rows, bins[i : i + size], weights, length, pad) for i in range(0, len(bins), size)
    ]


def _bins(lengths: Sequence[int], room: int) -> list[list[int]]:
    """First-fit decreasing: which rows share a sequence."""
    bins: list[list[int]] = []
    left: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((i for i, free in enumerate(left) if free >= lengths[row]), None)
        if place is None:
            place = len(bins)
            bins.append([])
            left.append(room)
        bins[place].append(row)
        left[place] -= lengths[row]
    return bins


def _batch(
    rows: Sequence[TokenRow],
    bins: Sequence[Sequence[int]],
    weights: Sequence[float],
    length: int,
    pad: int,
) -> tuple[PackedBatch, list[int]]:
    sequences = -(-len(bins) // EVEN) * EVEN
    ids = numpy.full((sequences, length), pad)
    positions = numpy.zeros((sequences, length), dtype=int)
    segments = numpy.full((sequences, length), -1)
    owners = numpy.full((sequences, length), -1)
    order: list[int] = []
    answers: list[numpy.ndarray] = []
    for sequence, members in enumerate(bins):
        start = 0
        for number in members:
            row, end = rows[number], start + len(rows[number])
            ids[sequence, start:end] = row.prompt + row.answer
            positions[sequence, start:end] = numpy.arange(end - start)
            segments[sequence, start:end] = len(order)
            owners[sequence, start:end] = row.owner
            first = sequence * length + start + len(row.prompt) - 1
            answers.append(numpy.arange(first, first + len(row.answer)))
            order.append(number)
            start = end
    places = numpy.concatenate(answers)
    room = -(-len(places) // ANSWERS) * ANSWERS - len(places)
    where = numpy.pad(places, (0, room))
    by_owner = numpy.array(weights)[owners.reshape(-1)[where]]
    by_owner[len(places) :] = 0
    batch = PackedBatch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(segments),
        owners=torch.from_numpy(owners),
        answers=torch.from_numpy(where),
        targets=torch.from_numpy(ids.reshape(-1)[where + 1]),
        weights=torch.from_numpy(by_owner),
    )
    return batch, order


def mask_of(batch: PackedBatch, dtype: torch.dtype) -> Float[Tensor, "sequences 1 length length"]:
    """What is added to attention scores: each token sees its own row, up to itself.

    Padding sees padding, so that no softmax is empty.
    """
    same = batch.segments[:, :, None] == batch.segments[:, None, :]
    length = batch.ids.shape[1]
    place = torch.arange(length, device=batch.ids.device)
    seen = same & (place[:, None] >= place[None, :])
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=batch.ids.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]
