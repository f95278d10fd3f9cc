"""Rows of token ids in padded batches: what a forward pass of training takes.

Rows are sorted by length and cut into groups, so that padding takes the least. With causal
attention and padding on the right no real token sees padding, so no attention mask is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from library.base.prompts import answer_ids, prompt_ids
from library.errors import UsageError
from library.tasks.files import Example


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A tokenised row: the index of its adapter (or task of the step), prompt and answer.

    Attributes:
        teacher: last states of a teacher at the positions that predict its answer
            (library.base.decoded_states); then its distributions are learned, not the tokens.
    """

    owner: int
    prompt: list[int]
    answer: list[int]
    teacher: Float[Tensor, "tokens width"] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass
class TokenBatch:
    """Rows of similar length, padded on the right.

    `answer` marks the positions whose *next* token is to be predicted; `rows` holds the owners.
    """

    ids: Int[Tensor, "batch length"]
    answer: Bool[Tensor, "batch length"]
    rows: Int[Tensor, " batch"]

    @property
    def prompt(self) -> Bool[Tensor, "batch length"]:
        """The prompts' positions: up to the one that predicts the answer's first token."""
        answer = self.answer.int()
        return answer.cumsum(1) == answer  # none before

    def to(self, device: torch.device) -> "TokenBatch":
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            answer=self.answer.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
        )


def labelled_and_taught(rows: Sequence[TokenRow]) -> list[tuple[TokenRow, ...]]:
    """Labelled rows, then those that a teacher answered; a kind without rows is left out."""
    labelled = tuple(row for row in rows if row.teacher is None)
    taught = tuple(row for row in rows if row.teacher is not None)
    return [kind for kind in (labelled, taught) if kind]


def example_row(tokenizer: Any, example: Example) -> TokenRow:
    """An example as its bare prompt and first accepted answer."""
    return TokenRow(0, prompt_ids(tokenizer, example.input), answer_ids(tokenizer, example.output))


def fitting_rows(examples: Sequence[Example], tokenizer: Any, longest: int) -> Iterator[TokenRow]:
    """Examples as rows; those of more than `longest` tokens are left out."""
    rows = (example_row(tokenizer, example) for example in examples)
    return (row for row in rows if len(row) <= longest)


def require_fitting_rows(
    examples: Sequence[Example], tokenizer: Any, longest: int
) -> tuple[TokenRow, ...]:
    """As `fitting_rows`. Raises UsageError if no example is short enough."""
    rows = tuple(fitting_rows(examples, tokenizer, longest))
    if not rows:
        raise UsageError(f"no example has at most {longest} tokens")
    return rows


def grouped(rows: Sequence[TokenRow], pad: int, parts: int) -> list[TokenBatch]:
    """Cut rows, sorted by length, into at most `parts` padded batches."""
    ordered = sorted(rows, key=len)
    return [_padded(ordered[a:b], pad) for a, b in cuts([len(row) for row in ordered], parts)]


def cuts(lengths: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """Cut sorted lengths into at most `parts` runs, so that padding takes the least."""
    widths = [width(length) for length in lengths]
    ends = [i + 1 for i, w in enumerate(widths) if widths[i + 1 : i + 2] != [w]]
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # rows so far: cells, cuts
    for _ in range(min(parts, len(ends))):
        best |= {
            end: min(
                (cells + (end - start) * widths[end - 1], [*cut, end])
                for start, (cells, cut) in best.items()
                if start < end
            )
            for end in ends
        }
    edges = best[len(lengths)][1]
    return list(zip([0, *edges], edges, strict=False))


def width(length: int) -> int:
    """The length that a row is padded to: kernels like multiples of 8."""
    return -(-length // 8) * 8


def _padded(rows: Sequence[TokenRow], pad: int) -> TokenBatch:
    longest = width(max(len(row) for row in rows))
    ids = torch.full((len(rows), longest), pad)
    answers = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.prompt + row.answer)
        answers[i, len(row.prompt) - 1 : len(row) - 1] = True
    return TokenBatch(ids, answers, torch.tensor([row.owner for row in rows]))
