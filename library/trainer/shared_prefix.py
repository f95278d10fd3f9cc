"""Rows of an adapter side by side behind the beginning that they share. For CPUs.

Examples of a task share the chat template and often an instruction, and a step may draw an example
several times. What is shared is run once for all rows of a sequence, equal rows as one that weighs
as much. A sequence has one adapter, so nothing of another one can reach it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from library.base.batches import TokenRow, width
from library.trainer.packing import SHARED, PackedBatch, first_fit, teacher_states

LENGTH = 512  # of a sequence; longer where a row is: attention grows with its square


@dataclass
class _Tokens:
    """A sequence in the making; an answer is at the token that predicts it."""

    owner: int
    ids: list[int]
    positions: list[int]
    segments: list[int]
    answers: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    rows: list[TokenRow] = field(default_factory=list)

    def add(self, row: TokenRow, beginning: int, segment: int, weight: float) -> None:
        """Append what follows a row's beginning, but for the last token: it predicts nothing."""
        rest = [*row.prompt, *row.answer[:-1]][beginning:]
        first = len(self.ids) + len(row.prompt) - 1 - beginning
        self.segments += [segment] * len(rest)
        self.positions += range(beginning, beginning + len(rest))
        self.ids += rest
        self.answers += range(first, first + len(row.answer))
        self.targets += row.answer
        self.weights += [weight] * len(row.answer)
        self.rows.append(row)


def shared_prefix_batches(
    rows: Sequence[TokenRow], weights: Sequence[float], pad: int, parts: int
) -> list[PackedBatch]:
    """Lay rows into at most `parts` batches of sequences, each of one owner.

    Args:
        rows: in any order.
        weights: of an answer token, for each row; the same for equal rows of an owner.
        pad: id of the padding token.
    """
    by_owner: dict[int, list[tuple[TokenRow, float]]] = {}
    for row, weight in zip(rows, weights, strict=True):
        by_owner.setdefault(row.owner, []).append((row, weight))
    sequences = [sequence for own in by_owner.values() for sequence in _sequences(own)]
    sequences.sort(key=lambda sequence: len(sequence.ids))
    size = -(-len(sequences) // parts)  # alike, as the largest batch is what takes memory
    return [_batch(sequences[i : i + size], pad) for i in range(0, len(sequences), size)]


def _sequences(weighted: Sequence[tuple[TokenRow, float]]) -> list[_Tokens]:
    """The rows of one owner, with their weights, in as few sequences as first-fit needs."""
    # 1. Equal rows are one; what one of them learns from its teacher, others do not.
    keys = [(tuple(row.prompt), tuple(row.answer), id(row.teacher)) for row, _ in weighted]
    counts = Counter(keys)
    unequal = dict(zip(keys, weighted, strict=True))  # in the same order
    different = [row for row, _ in unequal.values()]
    weights = [weight * counts[key] for key, (_, weight) in unequal.items()]
    # 2. The beginning of all, but for a prompt's last token, which predicts the row's own answer.
    beginning = common_beginning([row.prompt[:-1] for row in different])
    shared = len(beginning)
    # 3. What is left of each row finds its place.
    lengths = [len(row) - 1 - shared for row in different]
    sequences = []
    for members in first_fit(lengths, max(LENGTH - shared, *lengths)):
        tokens = _Tokens(different[0].owner, [*beginning], [*range(shared)], [SHARED] * shared)
        for segment, member in enumerate(members):
            tokens.add(different[member], shared, segment, weights[member])
        sequences.append(tokens)
    return sequences


def common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with: that of the least and the greatest in lexical order."""
    least, greatest = min(prompts), max(prompts)
    pairs = enumerate(zip(least, greatest, strict=False))
    return least[: next((i for i, (a, b) in pairs if a != b), len(least))]


def _batch(sequences: Sequence[_Tokens], pad: int) -> PackedBatch:
    """Sequences padded to the longest."""
    length = width(max(len(sequence.ids) for sequence in sequences))

    def padded(values: Sequence[list[int]], padding: int) -> torch.Tensor:
        return torch.tensor([row + [padding] * (length - len(row)) for row in values])

    answers = [i * length + answer for i, s in enumerate(sequences) for answer in s.answers]
    teacher, taught = teacher_states([row for s in sequences for row in s.rows], len(answers))
    return PackedBatch(
        ids=padded([s.ids for s in sequences], pad),
        positions=padded([s.positions for s in sequences], 0),
        segments=padded([s.segments for s in sequences], -1),
        owners=padded([[s.owner] * len(s.ids) for s in sequences], -1),
        answers=torch.tensor(answers, dtype=torch.int64),
        targets=torch.tensor([t for s in sequences for t in s.targets], dtype=torch.int64),
        weights=torch.tensor([w for s in sequences for w in s.weights], dtype=torch.float64),
        teacher=teacher,
        taught=taught,
    )
