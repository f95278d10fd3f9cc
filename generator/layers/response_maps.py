"""Stage I of LoFA: which entries of a base's weights a task changes (arXiv 2512.08785, section 3).

An entry responds to a task if an adapter trained on it changes the entry by more than a share of
the entry itself, |Δw| > τ·|w|. The network gives the logit of that for every entry of a matrix,
S = B·A + bias − slope·log|W|, with A and B from its heads.

The last term is ours. Whether an entry passes τ depends first on how small it is, and a map of
low rank cannot say which entries of a matrix without structure are small: even the matrix of rank
16 that is nearest to a true map ranks the entries hardly better than 1/|W| does. With the term the
heads are left to say what the task is about: log|Δw|, which rows and columns do explain.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generator.layers.factor_heads import FactorHeads
from generator.layers.lofa_config import ResponseMapsConfig
from generator.layers.weight_tokens import WeightTokens
from generator.layers.weight_trunk import WeightTrunk
from index.encoders.descriptions import Embeddings
from library.base.weights import group_weights
from library.checkpoint import Checkpointed
from library.layout import Group, Layout

TINY = 1e-8  # beside which an entry counts as zero, as the authors' code has it


class ResponseMaps(Checkpointed):
    """Descriptions and a base's weights to maps of logits, one for each target module.

    Args:
        config: sizes.
        layout: the modules; its ranks do not matter.
    """

    kind = "lofa-stage1"
    Config = ResponseMapsConfig
    layout: Layout

    def __init__(self, config: ResponseMapsConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.tokens = WeightTokens(config.width)
        self.trunk = WeightTrunk(config, layout)
        rank, keys = config.map_rank, [group.key for group in layout.groups]
        self.heads = nn.ModuleDict(
            {g.key: FactorHeads(config.width, rank, g) for g in layout.groups}
        )
        self.bias = nn.ParameterDict({key: nn.Parameter(torch.zeros(1)) for key in keys})
        slopes = keys if config.weight_term else []
        self.slope = nn.ParameterDict({key: nn.Parameter(torch.ones(1)) for key in slopes})

    def factors(
        self, text: Embeddings, base: nn.Module, group: Group, positions: Sequence[int] | None
    ) -> tuple[Float[Tensor, "n sites r in"], Float[Tensor, "n sites r out"]]:
        """A and the rows of Bᵀ for n descriptions and the modules of a group at `positions`."""
        placed = self.trunk.place(self.tokens.of(base, group, positions), group, positions)
        return self.heads[group.key](self.trunk(placed, text))

    def logits(
        self,
        a: Float[Tensor, "n sites r in"],
        b: Float[Tensor, "n sites r out"],
        w: Float[Tensor, "sites out in"],
        group: Group,
    ) -> Float[Tensor, "n sites out in"]:
        """Maps from their factors and the weights that they are maps of."""
        maps = b.mT @ a + self.bias[group.key]
        if not self.slope:
            return maps
        size = w.square().mean(dim=(1, 2), keepdim=True).sqrt()
        return maps - self.slope[group.key] * ((w.abs() + TINY) / (size + TINY)).log()

    def forward(
        self,
        text: Embeddings,
        base: nn.Module,
        group: Group,
        positions: Sequence[int] | None = None,
    ) -> Float[Tensor, "n sites out in"]:
        """Logits of the modules of one group (or of those at `positions`) for n descriptions.

        Raises as `library.base.weights.group_weights` does.
        """
        a, b = self.factors(text, base, group, positions)
        return self.logits(a, b, group_weights(base, group, positions).to(a), group)


def relative_change(
    a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"], w: Float[Tensor, "*m o i"]
) -> Float[Tensor, "*k o i"]:
    """|Δw| / (|w| + 1e-8) of every entry, ΔW = B·A; leading axes are broadcast."""
    return (b @ a).abs() / (w.abs() + TINY)


def responses(
    a: Float[Tensor, "*n r i"],
    b: Float[Tensor, "*n o r"],
    w: Float[Tensor, "*m o i"],
    threshold: float,
) -> Bool[Tensor, "*k o i"]:
    """The map itself: true where an entry changes by more than `threshold` of itself."""
    return relative_change(a, b, w) > threshold
