"""Lessons: rows of a step as student and teacher read them, and what the student's loss sums."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from library.base.batches import TokenBatch, TokenRow, grouped
from training.data.batches import TaughtRow


@dataclass(frozen=True)
class Lessons:
    """Rows of a step, by length in groups: prompts differ in length, so the groups do too.

    Attributes:
        student: the rows' owners are conditions of the step.
        teacher: the rows' owners are the rows by their numbers.
        shares: of the teacher in each row by its number: 1, or 0 where the base alone teaches.
        places: of each group of the student: where its answers' tokens lie among the teacher's.
        nothing: of each group of the student: which rows the base alone teaches.
        described: number of the others.
    """

    student: list[TokenBatch]
    teacher: list[TokenBatch]
    shares: Float[Tensor, "rows one"]
    places: list[Int[Tensor, "_answers"]]
    nothing: list[Bool[Tensor, "_batch"]]
    described: int

    @classmethod
    def of(
        cls,
        rows: Sequence[TaughtRow],
        answers: Sequence[Sequence[int]],
        pad: int,
        parts: int,
        device: torch.device,
    ) -> "Lessons":
        """Lessons on a device.

        Args:
            rows: with their prompts.
            answers: tokens of an answer to each.
            pad: the padding token.
            parts: the most groups of student and of teacher.
            device: of all tensors.
        """
        pairs = list(enumerate(zip(rows, answers, strict=True)))
        student = grouped([TokenRow(i, row.prompt, [*a]) for i, (row, a) in pairs], pad, parts)
        teacher = grouped([TokenRow(i, row.read, [*a]) for i, (row, a) in pairs], pad, parts)
        owners = torch.tensor([row.owner for row in rows])
        nothing = torch.tensor([row.nothing for row in rows])
        places = answer_places([g.rows for g in student], [g.rows for g in teacher], answers)
        return cls(
            [replace(g, rows=owners[g.rows]).to(device) for g in student],
            [g.to(device) for g in teacher],
            (~nothing)[:, None].float().to(device),
            [place.to(device) for place in places],
            [nothing[g.rows].to(device) for g in student],
            int((~nothing).sum()),
        )


def answer_places(
    student: Sequence[Int[Tensor, "_batch"]],
    teacher: Sequence[Int[Tensor, "_batch"]],
    answers: Sequence[Sequence[int]],
) -> list[Int[Tensor, "_answers"]]:
    """For each group of the student: where its answers' tokens lie among those of the teacher.

    Args:
        student: numbers of the rows in its groups.
        teacher: the same of the teacher, whose answers' tokens lie group by group, row by row.
        answers: tokens of the rows' answers, by number.
    """
    lengths, starts, start = [len(answer) for answer in answers], dict[int, int](), 0
    for number in torch.cat([*teacher]).tolist():
        starts[number] = start
        start += lengths[number]
    return [
        torch.cat([torch.arange(starts[i], starts[i] + lengths[i]) for i in group.tolist()])
        for group in student
    ]


class LessonTerms:
    """What the loss sums: a row's divergence, and `label_weight` times its loss if it has a task.

    Args:
        lessons: the rows.
        label_weight: of the loss of the answers' tokens.
    """

    def __init__(self, lessons: Lessons, label_weight: float) -> None:
        self.lessons, self.label_weight = lessons, label_weight
        self._figures: list[Float[Tensor, "2 _batch"]] = []

    def __call__(
        self, number: int, divergences: Float[Tensor, " batch"], losses: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """The terms of a group's rows from their means over the answers' tokens."""
        self._figures.append(torch.stack([divergences, losses]).detach())
        if not self.label_weight:
            return divergences
        described = ~self.lessons.nothing[number]
        return divergences + self.label_weight * described * losses

    def figures(self) -> dict[str, Float[Tensor, ""]]:
        """Means over rows in nats a token, where there are such rows.

        Divergence from the teacher and loss of the answers; divergence from the base where it alone
        teaches.
        """
        values, nothing = torch.cat(self._figures, dim=1), torch.cat(self.lessons.nothing)
        found, described = {}, self.lessons.described  # numbers on the CPU: no waiting for a GPU
        if described:
            divergence, loss = (values * ~nothing).sum(dim=1) / described
            found = {"divergence": divergence, "label_loss": loss}
        if described < len(nothing):
            rows = len(nothing) - described
            found["nothing_divergence"] = (values[0] * nothing).sum() / rows
        return found
