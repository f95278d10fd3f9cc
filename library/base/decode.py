"""Greedy decoding of many prompts, each under its own adapter, in one batch.

Rows are sorted by length so that little is padding, and rows that have ended leave the batch (its
cache is compacted), so one long answer does not make the others wait.
"""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import Any

import torch
from torch import Tensor

from library.adapter import Adapter
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter, turn

MAX_NEW_TOKENS = 64


@torch.inference_mode()
def greedy(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    adapter: Adapter | None = None,
    rows: Sequence[int] | Sequence[Sequence[float]] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
) -> list[str]:
    """Answers to `prompts`, greedily, stopping at the end of sequence.

    Args:
        base: the loaded base model.
        prompts: token ids, as `prompt_ids` makes them.
        adapter: n adapters; None for the base alone.
        rows: for each prompt, which of the n adapters answers it, or n weights of their sum.
        max_new_tokens: the most tokens in an answer.
        batch_size: prompts decoded together.
    """
    which = torch.tensor(rows if rows is not None else [0] * len(prompts))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[str] = [""] * len(prompts)
    hooked = nullcontext() if adapter is None else closing(MultiAdapter(base.model, adapter.layout))
    with turn(base.model), hooked as hooks:  # the base alone waits for its turn as well
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            state = _Batch(base, [prompts[i] for i in batch], which[batch], hooks, adapter)
            for i, tokens in zip(batch, state.run(max_new_tokens), strict=True):
                answers[i] = _text(base, tokens)
    return answers


class _Batch:
    """The rows of one batch that are still being decoded."""

    def __init__(
        self,
        base: BaseModel,
        prompts: Sequence[Sequence[int]],
        which: Tensor,
        hooks: MultiAdapter | None,
        adapter: Adapter | None,
    ) -> None:
        width = max(len(ids) for ids in prompts)
        pad = base.tokenizer.pad_token_id
        padded = [[pad] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self.model, self.eos = base.model, _eos_ids(base)
        self.ids = torch.tensor(padded, device=base.device)  # (rows, width)
        self.mask = torch.tensor(mask, device=base.device)
        self.which = which.to(base.device)
        self.hooks, self.adapter = hooks, adapter
        self.alive = list(range(len(prompts)))  # positions in the batch of the rows still decoded
        self.tokens: list[list[int]] = [[] for _ in prompts]

    def run(self, max_new_tokens: int) -> list[list[int]]:
        cache: Any = None
        ids = self.ids
        self._set_adapters()
        for _ in range(max_new_tokens):
            position = self.mask.cumsum(-1)[:, -ids.shape[1] :] - 1
            out = self.model(
                input_ids=ids,
                attention_mask=self.mask,
                position_ids=position.clamp_min(0),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, next_tokens = out.past_key_values, out.logits[:, -1].argmax(-1)  # (rows,)
            going = self._take(next_tokens.tolist())
            if not going:
                break
            keep = torch.tensor(going, device=ids.device)
            if len(going) < len(next_tokens):
                cache.batch_select_indices(keep)
                self.mask, self.which = self.mask[keep], self.which[keep]
                self._set_adapters()
            ids = next_tokens[keep, None]  # (rows, 1)
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=-1)
        return self.tokens

    def _take(self, next_tokens: list[int]) -> list[int]:
        """Record the next tokens; return the rows (of the present batch) that go on."""
        going = []
        for row, (position, token) in enumerate(zip(self.alive, next_tokens, strict=True)):
            if token not in self.eos:
                self.tokens[position].append(token)
                going.append(row)
        self.alive = [self.alive[row] for row in going]
        return going

    def _set_adapters(self) -> None:
        if self.hooks is not None and self.adapter is not None:
            mixed = self.which.ndim == 2
            (self.hooks.set_mixture if mixed else self.hooks.set)(self.adapter, self.which)


def _text(base: BaseModel, tokens: list[int]) -> str:
    """Trimmed text; no clean-up of spaces, which would change what a BPE model said."""
    return base.tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    ).strip()


def _eos_ids(base: BaseModel) -> set[int]:
    configured = base.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, base.tokenizer.eos_token_id] if i is not None}
