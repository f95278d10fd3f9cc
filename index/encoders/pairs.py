"""Input/output pairs of a task as vectors, by the frozen encoder that reads descriptions.

Of an input its unit vector is kept, of an output also its first tokens, as an adapter may have to
say them. Only the beginning of a text is read: so many characters are about 100 tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from index.encoders.descriptions import Embeddings, join
from index.encoders.texts import TextEncoder
from library.tasks.files import Example

READ_CHARACTERS = 400  # of an input or output
OUTPUT_TOKENS = 16  # of an output, special ones among them

Embed = Callable[[Sequence[str]], Sequence[Embeddings]]


@dataclass(frozen=True)
class EmbeddedPairs:
    """Embedded pairs of n conditions, each with up to p of them; their order says nothing.

    Attributes:
        inputs: unit vectors of the inputs.
        outputs: of the outputs.
        tokens: the encoder's last hidden states of the outputs' first tokens.
        words: its input embeddings of these.
        mask: false where an output is padded, and throughout where a condition has fewer pairs.
    """

    inputs: Float[Tensor, "n p d"]
    outputs: Float[Tensor, "n p d"]
    tokens: Float[Tensor, "n p t d"]
    words: Float[Tensor, "n p t w"]
    mask: Bool[Tensor, "n p t"]

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def count(self) -> int:
        """Number p of places for pairs; in one condition alone, of its pairs."""
        return self.inputs.shape[1]

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "EmbeddedPairs":
        inputs, outputs = self.inputs.to(device, dtype), self.outputs.to(device, dtype)
        tokens, words = self.tokens.to(device, dtype), self.words.to(device, dtype)
        return EmbeddedPairs(inputs, outputs, tokens, words, self.mask.to(device))


class PairBank:
    """Embeds pairs, each text once, and keeps what it embedded.

    Args:
        embed: texts to embeddings, one row each.
        dtype: in which they are kept, on the CPU; None for the encoder's, where they are.
    """

    def __init__(self, embed: Embed, dtype: torch.dtype | None = None) -> None:
        self._embed, self._dtype = embed, dtype
        self._inputs: dict[str, Float[Tensor, " d"]] = {}
        self._outputs: dict[str, Embeddings] = {}

    def __call__(self, conditions: Sequence[Sequence[Example]]) -> EmbeddedPairs:
        """The pairs of n conditions; all that is new is embedded in one call.

        At least one condition has a pair.
        """
        pairs = [[(_beginning(e.input), _beginning(e.output)) for e in c] for c in conditions]
        self._add({text for c in pairs for text, _ in c}, {text for c in pairs for _, text in c})
        outputs = join([self._outputs[text] for c in pairs for _, text in c])
        flat = (
            torch.stack([self._inputs[text] for c in pairs for text, _ in c]),
            outputs.pooled,
            outputs.tokens,
            outputs.words,
            outputs.mask,
        )
        counts = [len(c) for c in pairs]
        return EmbeddedPairs(*(_spread(part, counts) for part in flat))

    def _add(self, inputs: set[str], outputs: set[str]) -> None:
        """Embed the texts that are not kept yet."""
        new_inputs = sorted(inputs - self._inputs.keys())
        new_outputs = sorted(outputs - self._outputs.keys())
        texts = [*dict.fromkeys((*new_inputs, *new_outputs))]
        if not texts:
            return
        rows = dict(zip(texts, self._embed(texts), strict=True))
        device = None if self._dtype is None else "cpu"
        for text in new_inputs:
            self._inputs[text] = rows[text].pooled[0].to(device, self._dtype)
        for text in new_outputs:
            row, first = rows[text], slice(OUTPUT_TOKENS)
            cut = (row.tokens[:, first].clone(), row.words[:, first].clone(), row.mask[:, first])
            self._outputs[text] = Embeddings(row.pooled, *cut).to(device, self._dtype)


def embed_pairs(encoder: TextEncoder, conditions: Sequence[Sequence[Example]]) -> EmbeddedPairs:
    """Pairs as they are served: each text alone, so that no other changes its last bits."""
    return PairBank(lambda texts: [row for t in texts for row in encoder.encode_batch([t])])(
        conditions
    )


def _beginning(text: str) -> str:
    return text[:READ_CHARACTERS]


def _spread(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows (sum of counts, ·) to (n, p, ·), with zeros where a condition has fewer than p."""
    most, rest = max(counts), (0, 0) * (rows.ndim - 1)
    parts = rows.split(list(counts))
    return torch.stack([pad(part, (*rest, 0, most - len(part))) for part in parts])
