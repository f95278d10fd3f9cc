"""Adapters on trial: which of several answers a task's examples best, in one forward pass.

The rows of the batch are every example under every adapter, each with its own adapter in the
multi-adapter forward. Prompts are bare: the adapter has to carry the task.
"""

from collections.abc import Sequence

import torch

from library.adapter import Adapter, stack
from library.base.batches import TokenRow, grouped
from library.base.loss import row_scores
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.base.prompts import answer_ids, prompt_ids
from library.errors import UsageError
from library.tasks.files import Example

MAX_EXAMPLES = 32  # more say little more
MAX_LENGTH = 1024  # tokens of a row
TOKENS = 32_768  # of one pass; more rows take several


@torch.inference_mode()
def trial(
    base: BaseModel, adapters: Sequence[Adapter], examples: Sequence[Example]
) -> tuple[list[float], int]:
    """Mean loss per answer token of the examples under each adapter, and how many were used.

    Args:
        base: the loaded base model.
        adapters: of the same modules; ranks may differ.
        examples: the first 32 are used, less those longer than 1,024 tokens.
    Raises:
        UsageError: no example is short enough.
        LayoutMismatch: the adapters have different modules.
    """
    rows = [
        row for example in examples[:MAX_EXAMPLES] if len(row := _row(base, example)) <= MAX_LENGTH
    ]
    if not rows:
        raise UsageError(f"no example has at most {MAX_LENGTH} tokens")
    candidates = _stacked(adapters).to(base.device, torch.float32)
    every = [
        TokenRow(owner, row.prompt, row.answer) for row in rows for owner in range(len(adapters))
    ]
    parts = 1 + sum(len(row) for row in every) // TOKENS
    hooks = MultiAdapter(base.model, candidates.layout)
    totals = torch.zeros(len(adapters), dtype=torch.float64)
    try:
        for batch in grouped(every, base.tokenizer.pad_token_id, parts):
            here = batch.to(base.device)
            hooks.set(candidates, here.rows)
            _, losses = row_scores(base.model, here)
            totals.index_add_(0, batch.rows, losses.double().cpu())
    finally:
        hooks.close()
    return (totals / len(rows)).tolist(), len(rows)


def _row(base: BaseModel, example: Example) -> TokenRow:
    prompt = prompt_ids(base.tokenizer, example.input)
    return TokenRow(0, prompt, answer_ids(base.tokenizer, example.output))


def _stacked(adapters: Sequence[Adapter]) -> Adapter:
    """All of them at the greatest rank, with the weights that their files would hold."""
    rank = max(adapter.layout.rank for adapter in adapters)
    for adapter in adapters[1:]:
        adapters[0].layout.with_rank(rank).require_same(
            adapter.layout.with_rank(rank), "the first candidate", "another one"
        )
    return stack([a.to("cpu", torch.bfloat16).with_rank(rank) for a in adapters])
