"""What placements may look at: a few rows of the tasks, in the base before it is adapted."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from library.base.batches import TokenBatch, TokenRow, fitting_rows, grouped
from library.base.loss import answer_loss, output_logits
from library.base.models import BaseModel, BaseReference, load_base
from library.errors import TaskFileError
from library.layout import Layout
from library.progress import Progress, no_progress
from library.tasks.files import Task

ROWS = 64  # of all tasks together
LONGEST = 320  # tokens of a row; longer ones are left out
BATCH = 4  # rows whose activations are held at once


@dataclass(frozen=True)
class Probe:
    """Rows of some tasks, and the base, which is loaded when it is first asked for.

    Attributes:
        reference: the base.
        tasks: to be adapted to.
        seed: of the draw of rows.
        device: where the base runs, in float32.
        progress: of what a placement trains, in steps.
    """

    reference: BaseReference
    tasks: Sequence[Task]
    seed: int = 0
    device: str = "cpu"
    progress: Progress = no_progress

    @cached_property
    def base(self) -> BaseModel:
        return load_base(self.reference, device=self.device)

    @cached_property
    def drawn(self) -> list[Task]:
        """At most ROWS tasks that have train rows, in a drawn order. Raises TaskFileError: none."""
        tasks = sorted((task for task in self.tasks if task.train), key=lambda task: task.name)
        if not tasks:
            raise TaskFileError("no task has train rows for a placement to look at")
        random.Random(f"{self.seed}/placement").shuffle(tasks)
        return tasks[:ROWS]

    @cached_property
    def rows(self) -> list[TokenRow]:
        """Bare train rows of all drawn tasks; see `drawn_rows`."""
        return self.drawn_rows("train", ROWS)

    def drawn_rows(self, part: Literal["train", "tune"], count: int) -> list[TokenRow]:
        """At most `count` bare rows, as many of each drawn task.

        Raises TaskFileError: all are too long.
        """
        each = -(-count // len(self.drawn))
        rows: list[TokenRow] = []
        for task in self.drawn:
            own = task.train if part == "train" else task.tune
            examples = random.Random(f"{self.seed}/{task.name}").sample(own, min(each, len(own)))
            rows += fitting_rows(examples, self.base.tokenizer, LONGEST)
        if not rows:
            message = f"no {part} row of a placement's tasks has at most {LONGEST} tokens"
            raise TaskFileError(message)
        return rows[:count]

    def batches(self) -> Iterator[TokenBatch]:
        """The rows, a few at a time, of like length."""
        rows, pad = sorted(self.rows, key=len), self.base.tokenizer.pad_token_id
        for start in range(0, len(rows), BATCH):
            (batch,) = grouped(rows[start : start + BATCH], pad, 1)
            yield batch.to(self.base.device)


def read_positions(batch: TokenBatch) -> Bool[Tensor, "batch length"]:
    """Where the rows are read: up to the last token that another is predicted from, no padding."""
    return batch.answer.flip(1).cumsum(1).flip(1) > 0


@dataclass(frozen=True)
class Recorded:
    """What went into a module and came out, at the last forward pass."""

    into: Float[Tensor, "batch length in"]
    out: Float[Tensor, "batch length out"]


@contextmanager
def recorded(model: Any, names: Sequence[str]) -> Iterator[dict[str, Recorded]]:
    """The inputs and outputs of modules, by name, of the forward passes in the `with` block."""
    seen: dict[str, Recorded] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], out: Any) -> None:
            seen[name] = Recorded(args[0], out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def loss_of(base: BaseModel, batch: TokenBatch, **options: Any) -> tuple[Tensor, Any]:
    """The sum of the rows' losses, as a graph from the embeddings on, and the decoder's output.

    Args:
        options: of the decoder's forward pass.
    """
    embedded = base.model.get_input_embeddings()(batch.ids).detach().requires_grad_()
    out = base.model.get_decoder()(inputs_embeds=embedded, use_cache=False, **options)
    logits = output_logits(base.model, out.last_hidden_state[batch.answer])
    return answer_loss(logits, batch.ids, batch.answer).sum(), out


@contextmanager
def attention_weights(base: BaseModel) -> Iterator[None]:
    """Lets the base give its attention weights in the `with` block, which fused kernels do not."""
    before = base.model.config._attn_implementation
    base.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.model.set_attn_implementation(before)


def layer_names(layout: Layout) -> dict[int, str]:
    """The path of each layer's module, by depth."""
    names: dict[int, str] = {}
    for site in layout.sites:
        head, _, _ = site.name.partition(f".{site.depth}.")
        names[site.depth] = f"{head}.{site.depth}"
    return dict(sorted(names.items()))
