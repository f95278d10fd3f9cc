"""Lessons: rows of a step as student and teacher read them, and what the student's loss sums.

Rows are packed, as shapes of a few kinds let a GPU replay what it launched before; student and
teacher read prompts of different lengths, so each packs them in its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from library.base.batches import TokenRow
from library.base.divergence import taught_losses
from library.trainer.cuda_graphs import packed_states
from library.trainer.packing import PackedBatch, packed
from training.data.batches import TaughtRow

SEQUENCES = 4  # of a batch, or a multiple, where shapes are to be few
MEMBERS = 32  # adapters of a batch, at most: each costs every token of it
NOBODY = -1  # owner of rows that no adapter acts on


@dataclass(frozen=True)
class Lessons:
    """Rows of a step on a device, packed into batches.

    Attributes:
        student: owners are conditions of the step, counted among a batch's members; an answer
            token's weight is 1 over the tokens of its answer and the rows of the step; those of
            rows that have a task are labelled.
        teacher: owners are 0, or -1 where the base alone teaches.
        places: of each batch of the student: where its answers' tokens lie among the teacher's.
        described: number of rows that have a task.
        rows: of all.
    """

    student: list[PackedBatch]
    teacher: list[PackedBatch]
    places: list[Int[Tensor, " answers"]]
    described: int
    rows: int

    @classmethod
    def of(
        cls,
        rows: Sequence[TaughtRow],
        answers: Sequence[Sequence[int]],
        pad: int,
        longest: int | None,
        device: torch.device,
    ) -> "Lessons":
        """Lessons on a device.

        Args:
            rows: with their prompts.
            answers: tokens of an answer to each.
            pad: the padding token.
            longest: tokens of a row with the teacher's prompt, at most: then all steps have
                batches of a few shapes, and more padding. None for as little padding as can be.
            device: of all tensors.
        """
        pairs = [*zip(rows, answers, strict=True)]
        weights = [1 / (len(rows) * len(answer)) for answer in answers]
        shapes = {} if longest is None else {"least": longest, "multiple": SEQUENCES}
        asked = [TokenRow(row.owner, row.prompt, [*a]) for row, a in pairs]
        read = [TokenRow(NOBODY if row.nothing else 0, row.read, [*a]) for row, a in pairs]
        student = packed_by_owner(asked, weights, pad, **shapes)
        teacher = packed(read, weights, pad, **shapes)
        lengths = [len(answer) for answer in answers]
        places = answer_places(
            [(order, len(batch.answers)) for batch, order in student],
            [(order, len(batch.answers)) for batch, order in teacher],
            lengths,
        )
        return cls(
            [_labelled(batch, order, rows).to(device) for batch, order in student],
            [batch.to(device) for batch, _ in teacher],
            [place.to(device, non_blocking=True) for place in places],
            sum(not row.nothing for row in rows),
            len(rows),
        )

    def taught(self, states: Float[Tensor, "answers width"]) -> list[PackedBatch]:
        """The student's batches with the teacher's states at their answers.

        Args:
            states: of the teacher's batches, one after another.
        """
        return [
            replace(batch, teacher=states[places])
            for batch, places in zip(self.student, self.places, strict=True)
        ]


def packed_by_owner(
    rows: Sequence[TokenRow], weights: Sequence[float], pad: int, **shapes: int
) -> list[tuple[PackedBatch, list[int]]]:
    """Pack rows into batches of so few adapters that they do not cost more than the base.

    All adapters of a batch lie side by side, and each token meets all of them.

    Args:
        rows: with an owner each.
        weights: of an answer token, for each row.
        pad: id of the padding token.
        shapes: `least` and `multiple`, see `packed`.
    Returns:
        As `packed` does. Owners count among a batch's members, if there are more than MEMBERS.
    """
    count = 1 + max(row.owner for row in rows)
    if count <= MEMBERS:
        return packed(rows, weights, pad, **shapes)
    batches = []
    for first in range(0, count, MEMBERS):
        own = [i for i, row in enumerate(rows) if first <= row.owner < first + MEMBERS]
        if not own:
            continue
        # The last batch names its last adapter more than once: one number of members for all.
        members = torch.arange(first, first + MEMBERS).clamp(max=count - 1)
        moved = [replace(rows[i], owner=rows[i].owner - first) for i in own]
        for batch, order in packed(moved, [weights[i] for i in own], pad, **shapes):
            batches.append((replace(batch, members=members), [own[i] for i in order]))
    return batches


def answer_places(
    student: Sequence[tuple[Sequence[int], int]],
    teacher: Sequence[tuple[Sequence[int], int]],
    lengths: Sequence[int],
) -> list[Int[Tensor, " answers"]]:
    """For each batch of the student: where its answers' tokens lie among those of the teacher.

    Padding has the place 0.

    Args:
        student: the rows of each of its batches, by number, and its answer tokens with padding.
        teacher: the same of the teacher, whose batches lie one after another.
        lengths: tokens of the rows' answers.
    """
    starts, before = dict[int, int](), 0
    for order, size in teacher:
        ends = accumulate((lengths[i] for i in order), initial=before)
        starts |= dict(zip(order, ends, strict=False))
        before += size
    places = []
    for order, size in student:
        own = [starts[i] + k for i in order for k in range(lengths[i])]
        places.append(torch.tensor(own + [0] * (size - len(own))))
    return places


class LessonLoss:
    """The loss of a batch, and sums over the batches since the last figures.

    Loss: the weighted sum over answer tokens of the divergence from the teacher and, of those of
    rows that have a task, `label_weight` times the cross-entropy.

    Args:
        label_weight: of the loss of the answers' tokens.
        label_smoothing: of that loss.
        device: of the base.
    """

    def __init__(self, label_weight: float, label_smoothing: float, device: torch.device) -> None:
        self.label_weight, self.label_smoothing = label_weight, label_smoothing
        # In place, for CUDA graphs: divergence and loss of rows that have a task, divergence of the
        # others, all weighted.
        self._sums = torch.zeros(3, device=device)

    def __call__(self, model: Any, batch: PackedBatch) -> Float[Tensor, ""]:
        states = packed_states(model, batch)
        assert batch.teacher is not None and batch.labelled is not None
        divergences, losses = taught_losses(
            model, batch.teacher, states, batch.targets, label_smoothing=self.label_smoothing
        )
        weights = batch.weights.to(divergences.dtype)
        described = weights * batch.labelled
        parts = (described * divergences, described * losses, (weights - described) * divergences)
        sums = torch.stack([part.sum() for part in parts])
        self._sums += sums.detach()
        return sums[0] + self.label_weight * sums[1] + sums[2]

    def figures(self, lessons: Lessons) -> dict[str, Float[Tensor, ""]]:
        """The loss of a step, and means over rows in nats a token, where there are such rows.

        Divergence from the teacher and loss of the answers; divergence from the base where it alone
        teaches.
        """
        divergence, label, nothing = self._sums.clone().unbind()
        self._sums.zero_()
        figures = {"loss": divergence + self.label_weight * label + nothing}
        if lessons.described:
            share = lessons.rows / lessons.described
            figures |= {"divergence": divergence * share, "label_loss": label * share}
        others = lessons.rows - lessons.described
        if others:
            figures["nothing_divergence"] = nothing * lessons.rows / others
        return figures


def _labelled(batch: PackedBatch, order: Sequence[int], rows: Sequence[TaughtRow]) -> PackedBatch:
    """A batch of the student that says which of its answer tokens are of rows that have a task."""
    described = torch.tensor([not rows[i].nothing for i in order])
    number = batch.segments.flatten()[batch.answers]  # of each token's row in the batch
    return replace(batch, labelled=described[number] & (batch.weights > 0))  # 0 is padding
