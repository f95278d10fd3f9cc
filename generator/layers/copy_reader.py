"""Words of a description that an adapter can say: picked one by one, written as they stand.

An answer often has to be a word of the description itself, a label say, letter by letter. Of a
module that writes to the residual stream, a column of B that equals a word's embedding raises that
word's logit where embeddings are tied, and the row of A beside it says when. So each rank of each
such module picks a word by a query of its own: what the word is goes into B as it stands, and what
it means in its place, the reader's state there, into A. That is one step of attention over the
description with the prompt left out: keys become rows of A, values columns of B.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.encoders.descriptions import Embeddings
from library.errors import UsageError
from library.layout import Group, Layout

HIDDEN = -1e9  # score of padding: not infinite, as a condition may have no words at all
WRITING = ("o_proj", "down_proj")  # what they put out is added to the residual stream


class CopyReader(nn.Module):
    """Rows of A and columns of B from the words that each rank picks; B's are zero at the start.

    Args:
        embedding_dim: length of the reader's states.
        words_dim: length of its input embeddings, the base's own.
        code: length of a query, and of what a row of A is made from.
        layout: of the adapters.
    Raises:
        UsageError: no module of the layout writes vectors as long as a word's.
    """

    def __init__(self, embedding_dim: int, words_dim: int, code: int, layout: Layout) -> None:
        super().__init__()
        self.groups = [
            g for g in layout.groups if g.module_type in WRITING and g.out_features == words_dim
        ]
        if not self.groups:
            raise UsageError(
                f"copy_dim needs one of {', '.join(WRITING)} among the targets, and a reader whose "
                f"words are the base's own; here words have {words_dim} numbers"
            )
        self.state_norm, self.word_norm = nn.LayerNorm(embedding_dim), nn.LayerNorm(words_dim)
        self.key = nn.Linear(embedding_dim + words_dim, code, bias=False)
        self.meaning = nn.Linear(embedding_dim, code, bias=False)
        self.queries, self.rows, self.gains = (nn.ParameterDict() for _ in range(3))
        for group in self.groups:
            sites, rank = len(group.sites), group.rank
            self.queries[group.key] = nn.Parameter(torch.randn(sites, rank, code))
            self.rows[group.key] = nn.Parameter(torch.zeros(sites, group.in_features, code))
            self.gains[group.key] = nn.Parameter(torch.zeros(sites, rank))

    def forward(self, read: Embeddings) -> dict[str, tuple[Tensor, Tensor]]:
        """By group: what the words add to A `(n, sites, r, in)` and to B `(n, sites, out, r)`."""
        states = self.state_norm(read.tokens)  # (n, t, d)
        keys = self.key(torch.cat([states, self.word_norm(read.words)], dim=-1))  # (n, t, c)
        words, meanings = evened(read.words), self.meaning(states)
        added = {}
        for group in self.groups:
            picked = self._picked(group, keys, read)  # (n, s, r, t)
            meant = torch.einsum("nsrt,ntc->nsrc", picked, meanings)
            rows = torch.einsum("sic,nsrc->nsri", self.rows[group.key], meant)
            said = torch.einsum("nsrt,ntw->nswr", picked, words)
            added[group.key] = (rows, said * self.gains[group.key][:, None, :])
        return added

    def _picked(
        self, group: Group, keys: Float[Tensor, "n t c"], read: Embeddings
    ) -> Float[Tensor, "n sites r t"]:
        """How much of each word each rank takes; nothing where there are no words."""
        scores = torch.einsum("src,ntc->nsrt", self.queries[group.key], keys)
        shown = read.mask[:, None, None, :]
        scores = (scores / math.sqrt(keys.shape[-1])).masked_fill(~shown, HIDDEN)
        return scores.softmax(dim=-1) * shown


def evened(words: Float[Tensor, "n t w"]) -> Float[Tensor, "n t w"]:
    """Words at a root mean square of 1; those of nothing but zeros stay."""
    return words / words.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)
