"""How the tokens of one answer are chosen, each with its log-probability.

Log-probabilities are those of the model itself, whatever temperature, nucleus or choices make of
them afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from library.base.models import BaseModel
from library.base.sampling import Draws, Sampling, nucleus
from library.errors import UsageError


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: the token.
        logprob: its natural log-probability.
        top: the likeliest tokens with theirs, as many as were asked for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Choices:
    """Answers of which one is to be given.

    Attributes:
        trie: their tokens: by the next token, what may follow it.
        longest: tokens of the longest, with the end of sequence.
    """

    trie: dict[int, Any]
    longest: int

    @classmethod
    def of(cls, base: BaseModel, answers: Sequence[str]) -> "Choices":
        """Raises UsageError if the tokenizer does not give back an answer as it is."""
        trie: dict[int, Any] = {}
        longest = 0
        for answer in answers:
            ids = base.tokenizer(answer, add_special_tokens=False)["input_ids"]
            if text_of(base, ids) != answer:
                raise UsageError(f"the base model's tokens cannot spell {answer!r} exactly")
            node = trie
            for token in [*ids, base.tokenizer.eos_token_id]:
                node = node.setdefault(token, {})
            longest = max(longest, len(ids) + 1)
        return cls(trie, longest)


@dataclass(frozen=True)
class Decoding:
    """How the tokens of one answer are chosen.

    Attributes:
        max_new_tokens: the most of them; `choices` are not cut.
        sampling: how they are drawn; the likeliest ones if None.
        top_p: share of the probability that they are drawn from, above 0 and up to 1.
        choices: the answers that are possible; any if None.
        top: how many of the likeliest tokens come with each.
    """

    max_new_tokens: int
    sampling: Sampling | None = None
    top_p: float = 1.0
    choices: Choices | None = None
    top: int = 0

    @property
    def longest(self) -> int:
        """The most tokens that an answer may get."""
        return self.max_new_tokens if self.choices is None else self.choices.longest


def text_of(base: BaseModel, tokens: Sequence[int]) -> str:
    """The text of tokens as it is, without special ones."""
    return base.tokenizer.decode(
        list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def window(base: BaseModel) -> int:
    """The most tokens that prompt and answer may have together."""
    return base.model.config.get_text_config().max_position_embeddings


class Chooser:
    """Chooses the tokens of one answer, one after another.

    With choices, every token is the likeliest (or a draw) among those that lead to a choice.
    """

    def __init__(self, decoding: Decoding, device: torch.device) -> None:
        self._decoding, self._draws = decoding, None
        self._node = None if decoding.choices is None else decoding.choices.trie
        if decoding.sampling is not None:
            self._draws = Draws.of(decoding.sampling, 1, decoding.longest).to(device)

    def next(self, logits: Float[Tensor, "1 vocabulary"], step: int) -> Token:
        """The token of a step, of the model's logits there; steps count from 0."""
        logprobs = logits[0].double().log_softmax(dim=-1)
        if self._node is not None:
            possible = torch.full_like(logits, -torch.inf)
            allowed = [*self._node]
            possible[:, allowed] = logits[:, allowed]
            logits = possible
        token = self._chosen(logits, step)
        if self._node is not None:
            self._node = self._node[token]
        values, ids = logprobs.topk(min(self._decoding.top, len(logprobs)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Token(token, logprobs[token].item(), top)

    def _chosen(self, logits: Float[Tensor, "1 vocabulary"], step: int) -> int:
        if self._draws is None:
            return int(logits.argmax())
        if self._decoding.top_p < 1:
            logits = nucleus(logits, self._draws.temperature, self._decoding.top_p)
        return int(self._draws.tokens(logits, step))
