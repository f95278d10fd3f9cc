"""A static part that all conditions share, and a gate on what a condition adds to it.

ΔW = ΔW(static) + g·ΔW(condition), exactly: the two lie side by side in the ranks, and g, a number
in (0, 1) that depends on the condition, scales B of the second. Where a description says nothing
that the generator can use, closing one gate leaves what helps every task.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generator.layers.heads import kaiming_a
from library.adapter import Adapter
from library.errors import UsageError
from library.factored import squared_delta_distance
from library.layout import Layout

START = -2.0  # the gate's logit before training: g is 0.12
TINY = 1e-12  # under the root of a squared norm, whose slope at zero would be infinite


def static_rank(layout: Layout) -> int:
    """Ranks of every module that are static: half of the smallest. Raises UsageError for none."""
    rank = min(layout.ranks.values()) // 2
    if not rank:
        raise UsageError("a gate needs rank 2 or more at every module: one half of it is static")
    return rank


def conditional(layout: Layout) -> Layout:
    """The same modules at the ranks that are left to a condition. Raises UsageError."""
    static = static_rank(layout)
    return layout.with_ranks({name: rank - static for name, rank in layout.ranks.items()})


class GatedSum(nn.Module):
    """The static part, zero before training, and the gate.

    Args:
        width: of what the gate reads of a condition.
        layout: of the sums.
    """

    def __init__(self, width: int, layout: Layout) -> None:
        super().__init__()
        self.layout, a, b = layout, {}, {}
        for group in layout.with_rank(static_rank(layout)).groups:
            a[group.key] = nn.Parameter(torch.stack([kaiming_a(group) for _ in group.sites]))
            b[group.key] = nn.Parameter(
                torch.zeros(len(group.sites), group.out_features, group.rank)
            )
        self.A, self.B = nn.ParameterDict(a), nn.ParameterDict(b)
        self.gate = nn.Linear(width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, START)

    def forward(
        self, task: Float[Tensor, "n width"], added: Adapter
    ) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """n sums, and two means over them by name.

        Args:
            task: what is read of each condition.
            added: what the conditions add, at the ranks that are left to them.
        Returns:
            The adapters; "gate", the mean g, and "gated_norm", the mean Frobenius norm of
            g·ΔW(condition) over all modules of an adapter.
        """
        g = self.gate(task).sigmoid()[..., None, None]  # (n, 1, 1, 1)
        a, b, squares = {}, {}, g.new_zeros(len(task), dtype=torch.float64)
        for key in added.A:
            more_a, more_b = added.A[key], g * added.B[key]
            a[key] = torch.cat([self.A[key].expand(len(g), -1, -1, -1), more_a], dim=2)
            b[key] = torch.cat([self.B[key].expand(len(g), -1, -1, -1), more_b], dim=3)
            squares = squares + squared_norm(more_a, more_b).sum(dim=1)
        norms = (squares + TINY).sqrt().to(g.dtype)
        return Adapter(self.layout, a, b), {"gate": g.mean(), "gated_norm": norms.mean()}


def squared_norm(
    a: Float[Tensor, "n sites r i"], b: Float[Tensor, "n sites o r"]
) -> Float[Tensor, "n sites"]:
    """‖B·A‖² in float64, as a distance from a matrix of rank 0."""
    return squared_delta_distance(a, b, a[..., :0, :], b[..., :0])
