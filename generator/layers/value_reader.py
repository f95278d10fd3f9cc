"""What the words of a description mean, put into both factors of the modules that make values.

Under a prompt, tokens of an input attend to the words of the instruction, and what they take from
them marks them: this one is about shipping, say. Without the instruction in the prompt v_proj can
leave such marks: a row of A that looks for what a word means, and a column of B beside it that says
what to carry to wherever attention takes the token's value. So each rank of each such module picks
a word by a query of its own, and two matrices of the module turn the reader's state at that word
into its row and its column.
"""

import torch
from torch import Tensor, nn

from generator.layers.copy_reader import picked
from index.encoders.descriptions import Embeddings
from library.errors import UsageError
from library.layout import Layout

CARRYING = "v_proj"


class ValueReader(nn.Module):
    """Rows of A and columns of B from the states that each rank picks; both zero at the start.

    Args:
        embedding_dim: length of the reader's states.
        words_dim: length of its input embeddings.
        code: length of a query, and of what rows and columns are made from.
        layout: of the adapters.
    Raises:
        UsageError: the layout has no such module.
    """

    def __init__(self, embedding_dim: int, words_dim: int, code: int, layout: Layout) -> None:
        super().__init__()
        self.groups = [g for g in layout.groups if g.module_type == CARRYING]
        if not self.groups:
            raise UsageError(f"value_dim needs {CARRYING} among the targets")
        self.state_norm, self.word_norm = nn.LayerNorm(embedding_dim), nn.LayerNorm(words_dim)
        self.key = nn.Linear(embedding_dim + words_dim, code, bias=False)
        self.meaning = nn.Linear(embedding_dim, code, bias=False)
        self.queries, self.rows, self.columns = (nn.ParameterDict() for _ in range(3))
        for group in self.groups:
            sites = len(group.sites)
            self.queries[group.key] = nn.Parameter(torch.randn(sites, group.rank, code))
            self.rows[group.key] = nn.Parameter(torch.zeros(sites, group.in_features, code))
            self.columns[group.key] = nn.Parameter(torch.zeros(sites, group.out_features, code))

    def forward(self, read: Embeddings) -> dict[str, tuple[Tensor, Tensor]]:
        """By group: what the words add to A `(n, sites, r, in)` and to B `(n, sites, out, r)`."""
        states = self.state_norm(read.tokens)  # (n, t, d)
        keys = self.key(torch.cat([states, self.word_norm(read.words)], dim=-1))  # (n, t, c)
        meanings = self.meaning(states)
        added = {}
        for group in self.groups:
            taken = picked(self.queries[group.key], keys, read.mask)  # (n, s, r, t)
            meant = torch.einsum("nsrt,ntc->nsrc", taken, meanings)
            rows = torch.einsum("sic,nsrc->nsri", self.rows[group.key], meant)
            columns = torch.einsum("soc,nsrc->nsor", self.columns[group.key], meant)
            added[group.key] = (rows, columns)
        return added
