"""Greedy answers with the states that they were read from, for whoever is to learn from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from library.base.decode import decode
from library.base.models import BaseModel
from library.base.turns import turn


@dataclass(frozen=True)
class DecodedAnswer:
    """An answer.

    Attributes:
        tokens: as `decode` gives them.
        states: the decoder's last states at the positions that predict the tokens, on the CPU;
            `output_logits` makes the tokens' distributions of them, a hundred times as large.
    """

    tokens: list[int]
    states: Float[Tensor, "tokens width"]


def decode_states(
    base: BaseModel, prompts: Sequence[Sequence[int]], adapter: Adapter
) -> list[DecodedAnswer]:
    """Greedy answers under one adapter (n = 1), all prompts in one batch."""
    with turn(base.model), _last_states(base.model) as by_step:  # one (rows, width) for each step
        answers = decode(base, prompts, adapter, batch_size=max(1, len(prompts)))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # as `decode` sorts
    states: list[list[Tensor]] = [[] for _ in prompts]
    for step, rows in enumerate(by_step):
        going = [i for i in order if len(answers[i]) > step]  # rows that have ended leave
        for i, row in zip(going, rows, strict=True):
            states[i].append(row)
    return [DecodedAnswer(a, torch.stack(own)) for a, own in zip(answers, states, strict=True)]


@contextmanager
def _last_states(model: Any) -> Iterator[list[Tensor]]:
    """The decoder's state at the last position of every forward pass inside the block."""
    seen: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        seen.append(output.last_hidden_state[:, -1].cpu())

    handle = model.get_decoder().register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
