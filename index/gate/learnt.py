"""The gate that is trained: a matrix for each site, from what it reads to scores of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from index.gate.experts import admitted
from index.gate.systems import system_named, systems
from library.adapter import Adapter
from library.checkpoint import Checkpointed
from library.layout import Layout

START = 0.02  # standard deviation of the weights


@dataclass(frozen=True)
class GateConfig:
    """Attributes:
    system: a trained row of the table of systems.
    adapters: ids of the adapters, in order.
    tasks: of each.
    experts: what is chosen among: as many as adapters, or as all their ranks.
    width: of the base's hidden states.
    """

    system: str
    adapters: Sequence[str]
    tasks: Sequence[str]
    experts: int
    width: int


class Gate(Checkpointed):
    """Linear scores of experts at each site; where a threshold is learnt, its score is the last.

    Args:
        config: of it.
        layout: of the adapters.
    """

    kind = "gate"
    Config = GateConfig

    def __init__(self, config: GateConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.system = system_named(config.system, systems(learnt=True))
        self.layout: Layout = layout
        rows = config.experts + (self.system.takes == "threshold")
        self.weight, self.bias = nn.ParameterDict(), nn.ParameterDict()
        for group in layout.groups:
            states = self.system.reads == "first-pass"
            width, sites = config.width if states else group.in_features, len(group.sites)
            self.weight[group.key] = nn.Parameter(START * torch.randn(sites, rows, width))
            self.bias[group.key] = nn.Parameter(torch.zeros(sites, rows))
            self.register_buffer(f"admitted_{group.key}", torch.ones(sites, rows))

    def admit(self, experts: Adapter) -> None:
        """Leave out experts in low layers, if the system does."""
        if self.system.more_above:
            for key, allowed in admitted(experts).items():
                self.get_buffer(f"admitted_{key}")[:, : len(experts)] = allowed.float()

    def forward(
        self, name: str, x: Float[Tensor, "batch length i"]
    ) -> Float[Tensor, "batch length rows"]:
        """Scores at the site of a name."""
        group, i = self.layout.position(name)
        weight, bias = self.weight[group.key][i], self.bias[group.key][i]
        out = self.get_buffer(f"admitted_{group.key}")[i] == 0
        return (x.to(weight) @ weight.mT + bias).masked_fill(out, -torch.inf)
