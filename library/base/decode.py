"""Decoding of many prompts, each under its own adapter or several, in one batch.

Rows are sorted by length so that little is padding, and rows that have ended leave the batch (its
cache is compacted), so one long answer does not make the others wait.
"""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from library.adapter import Adapter
from library.base.cached_rows import CachedRows
from library.base.models import BaseModel
from library.base.multi_adapter import MultiAdapter
from library.base.sampling import Draws, Sampling
from library.base.turns import turn

MAX_NEW_TOKENS = 64


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
    found = decode(
        base, prompts, adapter, rows, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    return [answer_text(base, tokens) for tokens in found]


@torch.inference_mode()
def decode(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    adapter: Adapter | None = None,
    rows: Sequence[int] | Sequence[Sequence[float]] | None = None,
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
    hooks: MultiAdapter | None = None,
) -> list[list[int]]:
    """Answers as token ids; the end of sequence is the last of them where it was reached.

    A prompt's answer depends on its place among the prompts and on the generator's state, not on
    what the other prompts are.

    Args:
        base: the loaded base model.
        prompts: token ids, as `prompt_ids` makes them.
        adapter: n adapters; None for the base alone.
        rows: for each prompt, which of the n adapters answers it, or n weights of their sum.
        sampling: how tokens are drawn; None for greedy decoding.
        max_new_tokens: the most tokens in an answer.
        batch_size: prompts decoded together.
        hooks: of a base that has some already, for adapters of their layout; cleared afterwards.
    """
    which = torch.tensor(rows if rows is not None else [0] * len(prompts))
    owned = [[i] for i in range(len(prompts))]
    draws = None if sampling is None else Draws.of(sampling, len(prompts), max_new_tokens)
    return _decoded(base, prompts, adapter, which, owned, draws, max_new_tokens, batch_size, hooks)


@torch.inference_mode()
def greedy_ensemble(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    adapter: Adapter,
    members: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
) -> list[str]:
    """Greedy answers of ensembles: the next token is the largest of its adapters' mean logits.

    The means of their log-probabilities have the same largest token, as the two differ by a number
    that all tokens share; so the answer is the greedy one of the distributions' geometric mean. An
    answer costs as many rows as the ensemble has members. One of equal members answers as one of
    them; their order does not matter.

    Args:
        base: the loaded base model.
        prompts: token ids, as `prompt_ids` makes them.
        adapter: n adapters.
        members: for each prompt, which of the n answer it together; one or more.
        max_new_tokens: the most tokens in an answer.
        batch_size: rows decoded together, where one ensemble does not take more.
    Raises ValueError for a prompt without members.
    """
    if not all(members):
        raise ValueError("every prompt needs one adapter or more")
    which = torch.tensor([i for group in members for i in group])
    ends = [0, *accumulate(len(group) for group in members)]
    owned = [range(start, end) for start, end in pairwise(ends)]
    most = max((len(group) for group in members), default=1)
    prompts_together = max(1, batch_size // most)
    found = _decoded(
        base, prompts, adapter, which, owned, None, max_new_tokens, prompts_together, None
    )
    return [answer_text(base, tokens) for tokens in found]


def _decoded(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    adapter: Adapter | None,
    which: Tensor,
    owned: Sequence[Sequence[int]],
    draws: Draws | None,
    max_new_tokens: int,
    batch_size: int,
    hooks: MultiAdapter | None,
) -> list[list[int]]:
    """Answers to prompts, `batch_size` together; prompt i has the rows `owned[i]` of `which`."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    hooked = nullcontext(hooks)
    if adapter is not None and hooks is None:
        hooked = closing(MultiAdapter(base.model, adapter.layout))
    with turn(base.model), hooked as hooks:  # the base alone waits for its turn as well
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            chosen = which[[row for i in batch for row in owned[i]]]
            sizes = [len(owned[i]) for i in batch]
            drawn = None if draws is None else draws.rows(torch.tensor(batch)).to(base.device)
            state = _Batch(base, [prompts[i] for i in batch], sizes, chosen, hooks, adapter, drawn)
            for i, tokens in zip(batch, state.run(max_new_tokens), strict=True):
                answers[i] = tokens
        if hooks is not None:
            hooks.clear()
    return answers


def answer_text(base: BaseModel, tokens: Sequence[int]) -> str:
    """An answer's trimmed text, without the end of sequence.

    There is no clean-up of spaces, which would change what a BPE model said.
    """
    ended = bool(tokens) and tokens[-1] in eos_ids(base)
    return base.tokenizer.decode(
        list(tokens[:-1] if ended else tokens),
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    ).strip()


class _Batch:
    """The prompts of one batch that are still being decoded, each in one row or several.

    Args:
        sizes: rows of each prompt, which lie side by side and get the same tokens.
        which: the adapter of each row, or its weights of all.
    """

    def __init__(
        self,
        base: BaseModel,
        prompts: Sequence[Sequence[int]],
        sizes: Sequence[int],
        which: Tensor,
        hooks: MultiAdapter | None,
        adapter: Adapter | None,
        draws: Draws | None,
    ) -> None:
        width = max(len(ids) for ids in prompts)
        pad = base.tokenizer.pad_token_id
        padded = [[pad] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self.cached, self.eos = CachedRows(base.model), eos_ids(base)
        owners = torch.arange(len(prompts)).repeat_interleave(torch.tensor(sizes))
        self.owners = owners.to(base.device)  # (rows,): positions among the prompts still decoded
        self.ids = torch.tensor(padded, device=base.device)[self.owners]  # (rows, width)
        self.mask = torch.tensor(mask, device=base.device)[self.owners]
        self.which = which.to(base.device)
        self.hooks, self.adapter, self.draws = hooks, adapter, draws
        self.alive = list(range(len(prompts)))  # positions in the batch of those still decoded
        self.tokens: list[list[int]] = [[] for _ in prompts]

    def run(self, max_new_tokens: int) -> list[list[int]]:
        ids, mask = self.ids, self.mask
        self._set_adapters()
        for step in range(max_new_tokens):
            next_tokens = self._next(self.cached.forward(ids, mask), step)
            going = self._take(next_tokens.tolist())
            if not going:
                break
            keep = torch.tensor(going, device=ids.device)
            if len(going) < len(next_tokens):
                self._keep(keep)
            ids, mask = next_tokens[keep][self.owners, None], None  # (rows, 1)
        return self.tokens

    def _next(self, logits: Float[Tensor, "rows vocabulary"], step: int) -> Int[Tensor, " prompts"]:
        """The next token of each prompt: the likeliest, of several rows by their mean, or a draw.

        The mean as a sum, which is exact in float64, so that no order of the rows changes it.
        """
        if self.draws is not None:  # one row for each prompt
            return self.draws.tokens(logits, step)
        if len(self.alive) == len(self.owners):
            return logits.argmax(-1)
        sums = logits.new_zeros(len(self.alive), logits.shape[1], dtype=torch.float64)
        return sums.index_add_(0, self.owners, logits.double()).argmax(-1)

    def _take(self, next_tokens: list[int]) -> list[int]:
        """Record the next tokens; return the prompts (of the present ones) that go on."""
        going = []
        for number, (position, token) in enumerate(zip(self.alive, next_tokens, strict=True)):
            self.tokens[position].append(token)
            if token not in self.eos:
                going.append(number)
        self.alive = [self.alive[number] for number in going]
        return going

    def _keep(self, going: Int[Tensor, " prompts"]) -> None:
        """Drop the rows of all other prompts."""
        rows = torch.isin(self.owners, going).nonzero()[:, 0]
        self.cached.keep(rows)
        self.which = self.which[rows]
        self.owners = torch.searchsorted(going, self.owners[rows])
        self.draws = None if self.draws is None else self.draws.rows(going)
        self._set_adapters()

    def _set_adapters(self) -> None:
        if self.hooks is not None and self.adapter is not None:
            mixed = self.which.ndim == 2
            (self.hooks.set_mixture if mixed else self.hooks.set)(self.adapter, self.which)


def eos_ids(base: BaseModel) -> set[int]:
    """The tokens that end an answer."""
    configured = base.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, base.tokenizer.eos_token_id] if i is not None}
