"""Heads that turn the states of a matrix's patches into two factors, a patch's width at a time.

Columns 64·j to 64·j + 63 of A meet the patches of column j, and the same rows of B those of row j.
So each such piece comes from the mean of its patches' states, plus CLS, through one linear map for
all pieces. A map from one pooled vector to all of A and B, as in the paper, would have as many
parameters for a 576 × 576 matrix as nine of these, more than the trunk.
"""

from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.weight_tokens import PATCH, patches_along
from generator.layers.weight_trunk import States
from library.layout import Group


class PatchHead(nn.Module):
    """One factor: `rank` rows, `features` long."""

    def __init__(self, width: int, rank: int, features: int) -> None:
        super().__init__()
        self.rank, self.features = rank, features
        self.linear = nn.Linear(width, rank * PATCH)

    def forward(self, states: Float[Tensor, "n s pieces d"]) -> Float[Tensor, "n s r f"]:
        pieces = self.linear(states).unflatten(3, (self.rank, PATCH))  # (n, s, pieces, r, 64)
        return pieces.transpose(2, 3).flatten(3)[..., : self.features]


class FactorHeads(nn.Module):
    """Both factors of a group's matrices. B's rows are its columns; B is zero at the start."""

    def __init__(self, width: int, rank: int, group: Group) -> None:
        super().__init__()
        self.grid = (patches_along(group.out_features), patches_along(group.in_features))
        self.a = PatchHead(width, rank, group.in_features)
        self.b = PatchHead(width, rank, group.out_features)
        nn.init.zeros_(self.b.linear.weight)
        nn.init.zeros_(self.b.linear.bias)

    def forward(
        self, states: States
    ) -> tuple[Float[Tensor, "n sites r in"], Float[Tensor, "n sites r out"]]:
        cls, grid = states[:, :, :1], states[:, :, 1:].unflatten(2, self.grid)
        columns, rows = grid.mean(dim=2), grid.mean(dim=3)  # (n, sites, pieces, d)
        return self.a(columns + cls), self.b(rows + cls)
