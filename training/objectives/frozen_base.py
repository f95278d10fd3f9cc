"""The frozen base that training runs through: adapters act in it; it answers and is scored.

It is no module of what is trained: it belongs in no checkpoint, and is loaded once.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.batches import TokenBatch
from library.base.compiled import compile_layers
from library.base.decode import decode
from library.base.loss import row_losses
from library.base.merged import merge_into
from library.base.models import BaseReference, fast_dtype, load_base, numerics
from library.base.multi_adapter import MultiAdapter
from library.base.sampling import Sampling
from library.errors import TaskFileError
from library.layout import Layout
from library.trainer.cuda_graphs import PackedLoss, PackedStates
from training.objectives.lessons import LessonLoss, Lessons


@dataclass(frozen=True)
class Noise:
    """Regularisation of training; measuring uses none.

    Attributes:
        label_smoothing: of the answers' tokens.
        neftune_alpha: noise on the base's input embeddings; 0 for none.
    """

    label_smoothing: float = 0.0
    neftune_alpha: float = 0.0


QUIET = Noise()
# What a loss sums, from the number of a group of rows and their mean losses a token.
Terms = Callable[[int, Float[Tensor, " batch"]], Float[Tensor, " batch"]]


class FrozenBase:
    """A base on a device, with hooks for adapters of one layout, or several in turn.

    Args:
        reference: of the base.
        layout: of the adapters.
        device: where it runs.
        compiled: whether its layers are compiled.
        others: further layouts of adapters.
        merged: an adapter that is added to its weights first.
    """

    def __init__(
        self,
        reference: BaseReference,
        layout: Layout,
        device: torch.device,
        *,
        compiled: bool,
        others: Sequence[Layout] = (),
        merged: Adapter | None = None,
    ) -> None:
        self.base = load_base(reference, device=device, dtype=fast_dtype(device))
        if merged is not None:
            merge_into(self.base.model, merged)
        self._model, self._compiled = self.base.model, compiled
        self.numerics = numerics(self._model)
        self._hooks = MultiAdapter(self._model, layout, *others)
        self._teacher: PackedStates | None = None
        self._student: PackedLoss | None = None
        if compiled:
            compile_layers(self._model)

    def losses(
        self,
        groups: Sequence[TokenBatch],
        adapters: Adapter,
        noise: Noise = QUIET,
        temperature: float = 1.0,
    ) -> Float[Tensor, " rows"]:
        """Loss of every row, answered under the adapter that it belongs to."""
        losses = [self._losses(group, adapters, noise, temperature) for group in groups]
        self._hooks.clear()
        return torch.cat(losses)

    def backward(
        self,
        groups: Sequence[TokenBatch],
        cut: Adapter,
        noise: Noise,
        *,
        terms: Terms | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Mean loss of the rows; its gradient is left on the adapters' factors.

        Each group of rows is run backward before the next, so memory holds one group.

        Args:
            groups: of rows.
            cut: the adapters, as leaves.
            noise: regularisation.
            terms: what is averaged over the rows in place of their losses.
            temperature: divides the base's logits.
        Raises:
            TaskFileError: there are no rows.
        """
        if not groups:
            raise TaskFileError("no row of this step is short enough; raise sampling.max_length")
        count = sum(len(group.ids) for group in groups)
        total = torch.zeros((), device=self._model.device)
        for number, group in enumerate(groups):
            losses = self._losses(group, cut, noise, temperature)
            if terms is not None:
                losses = terms(number, losses)
            share = losses.sum() / count  # of the mean over all rows
            share.backward()
            total += share.detach()
        self._hooks.clear()
        return total

    def distil(
        self, lessons: Lessons, teacher: Adapter, student: Adapter, loss: LessonLoss
    ) -> Adapter:
        """The student's adapters as leaves, with the gradient of the step's loss on their factors.

        Args:
            lessons: of the step.
            teacher: one adapter, the same at every call.
            student: one for each condition; as many at every call, or what is captured of them on
                a GPU is lost.
            loss: the same at every call.
        """
        if self._teacher is None:
            self._teacher = PackedStates(self._model, self._hooks, teacher)
        states = torch.cat([self._teacher(batch) for batch in lessons.teacher])
        if self._student is None or len(self._student.leaves) != len(student):
            self._student = PackedLoss(self._model, self._hooks, student, loss)
        self._student.load(student)
        for batch in lessons.taught(states):
            self._student.backward(batch)
        return self._student.leaves

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Adapter,
        rows: Sequence[int] | Sequence[Sequence[float]],
        *,
        sampling: Sampling | None,
        max_new_tokens: int,
        batch_size: int,
    ) -> list[list[int]]:
        """Answers as `library.base.decode.decode` gives them; layers run uncompiled.

        A cache grows with every token: compiled layers would count each length as new.
        """
        eager = torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()
        with eager:
            return decode(
                self.base,
                prompts,
                adapters,
                rows,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                hooks=self._hooks,
            )

    def _losses(
        self, group: TokenBatch, adapters: Adapter, noise: Noise, temperature: float
    ) -> Float[Tensor, " batch"]:
        return row_losses(
            self._model, self._hooks, group, adapters, temperature=temperature, **asdict(noise)
        )


def passed_on(adapters: Adapter, cut: Adapter) -> Float[Tensor, ""]:
    """A sum whose gradient in the adapters is the one that lies on the cut, their detached copy."""
    gradients: list[Any] = [leaf.grad for leaf in cut.factors()]
    parts = zip(adapters.factors(), gradients, strict=True)
    return torch.stack([(factor * gradient).sum() for factor, gradient in parts]).sum()
