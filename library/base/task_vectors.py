"""Task vectors: a task as what a base model makes of it, the state in which it would answer.

A vector is the last decoder layer's state, after the model's final norm, at the last position of a
prompt, averaged over a task's prompts. Two kinds of prompt are in use. ICM-LoRA (arXiv 2501.17635)
asks the model with the task's own adapter for some of its rows ("adapted"); a task without an
adapter is put to the base alone, as its description after a few examples ("in-context").
"""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from library.adapter import Adapter
from library.base.batches import example_row
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.base.prompts import prompt_ids, shots_ids
from library.base.turns import turn
from library.tasks.files import Example

ROWS = 30  # of a task, in an adapted vector
SHOTS = 5  # examples in an in-context vector
LONGEST = 320  # tokens of such an example; longer ones are left out


def adapted_prompts(tokenizer: Any, rows: Sequence[Example]) -> list[list[int]]:
    """Bare prompts of a task's first 30 rows, for the base with the task's adapter."""
    return [prompt_ids(tokenizer, row.input) for row in rows[:ROWS]]


def in_context_prompts(
    tokenizer: Any, description: str, examples: Sequence[Example] = ()
) -> list[list[int]]:
    """The description as the last turn, after up to five examples as earlier ones.

    One prompt for each rotation of the examples, so that none is always the last; the description
    alone if there are none, or none of at most 320 tokens.
    """
    short = [row for row in examples if len(example_row(tokenizer, row)) <= LONGEST]
    shots = [(row.input, row.output) for row in short[:SHOTS]]
    return [
        shots_ids(tokenizer, [*shots[first:], *shots[:first]], description)
        for first in range(max(1, len(shots)))
    ]


@torch.inference_mode()
def task_vectors(
    base: BaseModel,
    prompts: Sequence[Sequence[Sequence[int]]],
    adapters: Adapter | None = None,
    *,
    batch_size: int = 32,
) -> Float[Tensor, "tasks d"]:
    """The mean state at the last position of each task's prompts, in float32 on the CPU.

    Waits until adapters that another thread has put on the model are closed.

    Args:
        base: the loaded base model.
        prompts: token ids of the prompts of each task, one at least.
        adapters: one for each task, which acts on its prompts; None for the base alone.
        batch_size: prompts of one forward pass.
    """
    flat = [(owner, list(ids)) for owner, group in enumerate(prompts) for ids in group]
    flat.sort(key=lambda row: len(row[1]))  # so that little is padding
    counts = torch.tensor([[len(group)] for group in prompts])
    sums = torch.zeros(len(prompts), base.model.config.hidden_size, dtype=torch.float64)
    moved = None if adapters is None else adapters.to(base.device)
    hooked = nullcontext() if moved is None else closing(MultiAdapter(base.model, moved.layout))
    with turn(base.model), hooked as hooks:
        for start in range(0, len(flat), batch_size):
            rows, ids = zip(*flat[start : start + batch_size], strict=True)
            owners = torch.tensor(rows)
            if hooks is not None and moved is not None:
                hooks.set(moved, owners.to(base.device))
            sums.index_add_(0, owners, _last_states(base, ids).double().cpu())
    return (sums / counts).float()


def _last_states(base: BaseModel, ids: Sequence[list[int]]) -> Float[Tensor, "batch d"]:
    """States at the prompts' last tokens; padded on the right, where no real token sees it."""
    padded = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    decoder = base.model.get_decoder()
    states = decoder(input_ids=padded.to(base.device), use_cache=False).last_hidden_state
    last = torch.tensor([len(row) - 1 for row in ids], device=states.device)
    return states[torch.arange(len(ids), device=states.device), last]
