"""Packed batches: many rows in one sequence, each blind to the others. For GPUs.

Rows of 20 to 300 tokens, padded to their batch's longest, waste more than half of it. Packed
first-fit into sequences of one length they waste a few per cent, and a step has one of a few
shapes, which is what CUDA graphs need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from library.base.batches import TokenRow

LENGTH = 256  # of a sequence; where a row is longer, a multiple of
STEP = 64
CELLS = 16_384  # of a batch
# A batch is padded to multiples of these, so that few shapes occur.
SEQUENCE_MULTIPLE = 2
ANSWER_MULTIPLE = 1024
SHARED = -2  # segment of tokens that every row of their sequence begins with


@dataclass(frozen=True)
class PackedBatch:
    """Rows in sequences. Padding has segment -1, owner -1, weight 0.

    `answers` are positions in the flattened batch whose *next* token is to be predicted, padded
    with position 0; `targets` are those tokens. Of `taught` ones a teacher's distribution is to be
    learned, the one that `output_logits` makes of `teacher`; of `labelled` ones the token as well.
    Owners count among `members`, where a batch has rows of some of the adapters alone.
    """

    ids: Int[Tensor, "sequences length"]
    positions: Int[Tensor, "sequences length"]  # within the row
    segments: Int[Tensor, "sequences length"]  # number of the row, or SHARED
    owners: Int[Tensor, "sequences length"]
    answers: Int[Tensor, " answers"]
    targets: Int[Tensor, " answers"]
    weights: Float[Tensor, " answers"]
    teacher: Float[Tensor, "answers width"] | None = None
    taught: Bool[Tensor, " answers"] | None = None
    labelled: Bool[Tensor, " answers"] | None = None
    members: Int[Tensor, " members"] | None = None  # numbers of adapters; None for all

    def to(self, device: torch.device) -> "PackedBatch":
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "PackedBatch":
        """With every tensor that it has changed."""
        return replace(self, **{k: change(t) for k, t in vars(self).items() if t is not None})

    def tensors(self) -> list[Tensor]:
        """Those that it has, in the order of its fields."""
        return [value for value in vars(self).values() if value is not None]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Sequences, length, answers, width of the teacher's states, members (0 without)."""
        sequences, length = self.ids.shape
        width = 0 if self.teacher is None else self.teacher.shape[1]
        members = 0 if self.members is None else len(self.members)
        return sequences, length, len(self.answers), width, members


def packed(
    rows: Sequence[TokenRow],
    weights: Sequence[float],
    pad: int,
    *,
    least: int = LENGTH,
    multiple: int = SEQUENCE_MULTIPLE,
) -> list[tuple[PackedBatch, list[int]]]:
    """Pack rows into batches.

    Args:
        rows: in any order.
        weights: of an answer token, for each row.
        pad: id of the padding token.
        least: length of a sequence, at least; with the longest row's no other length occurs.
        multiple: of sequences in a batch.
    Returns:
        The batches, each with the rows (by number) that its segments are.
    """
    length = _round_up(max(least, *map(len, rows)), STEP)
    bins = first_fit([len(row) for row in rows], length)
    batches = -(-len(bins) * length // CELLS)
    size = _round_up(-(-len(bins) // batches), multiple)  # sequences of a batch
    return [
        _batch(rows, bins[i : i + size], weights, length, pad, multiple)
        for i in range(0, len(bins), size)
    ]


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: for each sequence the rows (by number) that share it."""
    bins: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (i for i, room in enumerate(free) if room >= lengths[row])
        index = next(fits, len(bins))
        if index == len(bins):
            bins.append([])
            free.append(capacity)
        bins[index].append(row)
        free[index] -= lengths[row]
    return bins


def _batch(
    rows: Sequence[TokenRow],
    bins: Sequence[Sequence[int]],
    weights: Sequence[float],
    length: int,
    pad: int,
    multiple: int,
) -> tuple[PackedBatch, list[int]]:
    # 1. Rows side by side in their sequences, all (sequences, length).
    sequences = _round_up(len(bins), multiple)
    ids = numpy.full((sequences, length), pad)
    positions = numpy.zeros((sequences, length), dtype=int)
    segments = numpy.full((sequences, length), -1)
    owners = numpy.full((sequences, length), -1)
    order: list[int] = []
    answers: list[numpy.ndarray] = []
    own: list[numpy.ndarray] = []
    for sequence, members in enumerate(bins):
        start = 0
        for number in members:
            row, end = rows[number], start + len(rows[number])
            ids[sequence, start:end] = row.prompt + row.answer
            positions[sequence, start:end] = numpy.arange(end - start)
            segments[sequence, start:end] = len(order)
            owners[sequence, start:end] = row.owner
            # The token before the answer predicts its first one.
            first = sequence * length + start + len(row.prompt) - 1
            answers.append(numpy.arange(first, first + len(row.answer)))
            own.append(numpy.full(len(row.answer), weights[number], dtype=float))
            order.append(number)
            start = end
    # 2. Answer positions in the flattened batch, padded: (answers,).
    count = sum(map(len, answers))
    padding = _round_up(count, ANSWER_MULTIPLE) - count
    answer = numpy.pad(numpy.concatenate(answers), (0, padding))
    weight = numpy.pad(numpy.concatenate(own), (0, padding))  # (answers,)
    targets = ids.reshape(-1)[answer + 1]  # (answers,)
    arrays = (ids, positions, segments, owners, answer, targets, weight)
    teacher, taught = teacher_states([rows[number] for number in order], len(answer))
    batch = PackedBatch(*map(torch.from_numpy, arrays), teacher=teacher, taught=taught)
    return batch, order


def teacher_states(
    rows: Sequence[TokenRow], count: int
) -> tuple[Float[Tensor, "answers width"], Bool[Tensor, " answers"]] | tuple[None, None]:
    """Teachers' states at the answer tokens of rows one after another, and which tokens have some.

    Args:
        count: of answer tokens, padding at the end included.
    Returns (None, None) where no row has a teacher.
    """
    like = next((row.teacher for row in rows if row.teacher is not None), None)
    if like is None:
        return None, None
    states, taught, start = like.new_zeros(count, like.shape[1]), torch.zeros(count).bool(), 0
    for row in rows:
        end = start + len(row.answer)
        if row.teacher is not None:
            states[start:end], taught[start:end] = row.teacher, True
        start = end
    return states, taught


def mask_of(batch: PackedBatch, dtype: torch.dtype) -> Float[Tensor, "sequences 1 length length"]:
    """The mask added to attention scores: each token sees its own row, up to itself.

    What is shared belongs to every row. Padding sees padding, so that no softmax is empty.
    """
    same = batch.segments[:, :, None] == batch.segments[:, None, :]  # (sequences, length, length)
    shared = (batch.segments == SHARED)[:, None, :]  # (sequences, 1, length)
    index = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    visible = (same | shared) & (index[:, None] >= index[None, :])  # of (length, length)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=batch.ids.device)
    # (sequences, length, length) to (sequences, 1, length, length)
    return torch.where(visible, torch.zeros_like(hidden), hidden)[:, None]
