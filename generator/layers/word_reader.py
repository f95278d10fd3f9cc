"""A linear path from the words of a description to the columns of B.

The trunk and its heads are shared by all modules, which they tell apart by an embedding alone. That
is enough to say what kind of answer a task wants, but not to spell it: which direction in a module
makes the base say "ham" differs from module to module and has to be right for words that no
training task uses. So for each rank a learned query reads one word, and a matrix of each module's
own turns what it read into that rank's column of B: the column says the word, the row of A beside
it when.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.encoders.descriptions import Embeddings
from library.layout import Layout

GAIN = 0.3  # keeps the first steps small
ROUTING = ("q_proj", "k_proj")  # what they put out decides where to look, and is never said


class WordReader(nn.Module):
    """Reads one word a rank, and turns words into columns of B.

    Args:
        embedding_dim: length of the encoder's token vectors.
        words_dim: length of its input embeddings.
        code: length of what is read.
        layout: modules that only route attention get no words, unless there are no others.
    """

    def __init__(self, embedding_dim: int, words_dim: int, code: int, layout: Layout) -> None:
        super().__init__()
        says = [g for g in layout.groups if g.module_type not in ROUTING]
        self.groups = says or list(layout.groups)
        self.queries = nn.Parameter(torch.randn(layout.rank, code))
        self.token_norm, self.word_norm = nn.LayerNorm(embedding_dim), nn.LayerNorm(words_dim)
        self.key = nn.Linear(embedding_dim + words_dim, code, bias=False)
        self.value = nn.Linear(words_dim, code, bias=False)
        self.maps = nn.ParameterDict(
            {
                g.key: nn.Parameter(torch.zeros(len(g.sites), g.out_features, code))
                for g in self.groups
            }
        )

    def forward(self, descriptions: Embeddings) -> dict[str, Float[Tensor, "n sites out rank"]]:
        """What the words add to B, for each group that gets words."""
        read = self.read(descriptions)
        return {
            g.key: GAIN * torch.einsum("soc,nrc->nsor", self.maps[g.key], read[:, : g.rank])
            for g in self.groups
        }

    def read(self, descriptions: Embeddings) -> Float[Tensor, "n r code"]:
        """What each rank's query takes from the words."""
        words = self.word_norm(descriptions.words)  # (n, t, w)
        keys = self.key(torch.cat([self.token_norm(descriptions.tokens), words], dim=-1))
        scores = keys @ self.queries.T / math.sqrt(keys.shape[-1])  # (n, t, r)
        scores = scores.masked_fill(~descriptions.mask[..., None], float("-inf"))
        return scores.softmax(dim=1).mT @ self.value(words)
