"""Contexts that a server and the local base both go on from, and what either makes of them.

Contexts are beginnings of a few plain sentences, without a chat template: ΔW acts on every token,
and one local forward pass over the sentences predicts all of them. They begin after four tokens:
before that there is little for attention to rest on, and rounding alone can turn an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from library.adapter import Adapter
from library.base.loss import answer_logits, full_precision
from library.base.models import BaseModel
from library.base.multi_adapter import adapted
from verification.scores.served_server import NextTokens

TEXTS = (
    "The soup was cold, but the waiter was kind",
    "To reset your password, open the settings page",
    "Ana Silva moved to Lisbon and opened a bakery",
    "The server crashed last night because the disk",
)
LEAST_TOKENS = 4


@dataclass(frozen=True)
class Contexts:
    """Beginnings of texts.

    Attributes:
        texts: of each context.
        ids: the whole texts, padded on the right.
        ends: the last tokens of the contexts among them, in the contexts' order.
    """

    texts: tuple[str, ...]
    ids: Int[Tensor, "rows length"]
    ends: Bool[Tensor, "rows length"]

    @classmethod
    def of(cls, tokenizer: Any) -> "Contexts":
        """Beginnings of TEXTS that end with a word and are cut into the same tokens alone."""
        rows: list[list[int]] = [tokenizer(text)["input_ids"] for text in TEXTS]
        ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
        ends, texts = torch.zeros_like(ids, dtype=torch.bool), []
        for index, (text, row) in enumerate(zip(TEXTS, rows, strict=True)):
            ids[index, : len(row)] = torch.tensor(row)
            words = text.split(" ")
            for beginning in (" ".join(words[:count]) for count in range(1, len(words) + 1)):
                tokens = tokenizer(beginning)["input_ids"]
                if len(tokens) >= LEAST_TOKENS and row[: len(tokens)] == tokens:
                    ends[index, len(tokens) - 1] = True
                    texts.append(beginning)
        return cls(tuple(texts), ids, ends)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class ObservedTokens:
    """What a server said of the next token of every context.

    Attributes:
        ids: the likeliest tokens, any where `known` is false.
        logprobs: theirs.
        known: which of them are tokens of the local base.
    """

    ids: Int[Tensor, "contexts top"]
    logprobs: Float[Tensor, "contexts top"]
    known: Bool[Tensor, "contexts top"]

    def errors(self, predicted: Float[Tensor, "contexts vocabulary"]) -> Float[Tensor, " contexts"]:
        """Root mean square difference of each context's log-probabilities from predicted ones."""
        squares = (self.logprobs - predicted.gather(1, self.ids)).square() * self.known
        return (squares.sum(dim=1) / self.known.sum(dim=1)).sqrt()


class Vocabulary:
    """The tokens of a base by their text, those of one text that no other token has."""

    def __init__(self, tokenizer: Any) -> None:
        self._ids: dict[str, int | None] = {}
        for token in range(len(tokenizer)):
            text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            self._ids[text] = None if text in self._ids else token

    def observed(self, answers: Sequence[NextTokens]) -> ObservedTokens | None:
        """Answers of a server by the base's tokens; None if those of a context are all unknown."""
        top = max(map(len, answers))
        ids = torch.zeros(len(answers), top, dtype=torch.long)
        logprobs = torch.zeros(len(answers), top, dtype=torch.double)
        known = torch.zeros(len(answers), top, dtype=torch.bool)
        for row, answer in enumerate(answers):
            for column, (text, logprob) in enumerate(answer.items()):
                token = self._ids.get(text)
                if token is not None:
                    ids[row, column], logprobs[row, column] = token, logprob
                    known[row, column] = True
        return ObservedTokens(ids, logprobs, known) if bool(known.any(dim=1).all()) else None


class Predictions:
    """What the local base says of every context's next token, under any adapter.

    Attributes:
        base: the local base.
        contexts: those that it goes on from.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base, self.contexts = base, Contexts.of(base.tokenizer)

    @torch.inference_mode()
    def under(self, adapter: Adapter) -> Float[Tensor, "contexts vocabulary"]:
        """Log-probabilities under one adapter.

        Raises LayoutMismatch if the base lacks its modules.
        """
        base, ids, ends = self.base, self.contexts.ids, self.contexts.ends
        rows = torch.zeros(len(ids), dtype=torch.long, device=base.device)
        with adapted(base.model, adapter.to(base.device), rows):
            logits = answer_logits(base.model, ids.to(base.device), ends.to(base.device))
        return full_precision(logits).log_softmax(dim=-1).cpu().double()
