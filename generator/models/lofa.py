"""LoFA: the base's own weights are the input, and a description turns them into an adapter.

Two stages (arXiv 2512.08785). The first learns which weights respond to a task
(generator.layers.response_maps); the second, here, has a trunk of the same shape that starts from
the first's, reads what the first made of the weights, and emits A and B. docs/lofa.md says where
this differs from the paper.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from generator.layers.factor_heads import FactorHeads
from generator.layers.lofa_config import LoFAConfig
from generator.layers.response_maps import ResponseMaps
from generator.layers.weight_tokens import WeightTokens
from generator.layers.weight_trunk import PreNorm, States, WeightTrunk, WithinSite
from generator.models.base import Condition, Generator, require_loaded_base, require_text
from library.adapter import Adapter, rank_mask
from library.errors import UsageError
from library.layout import Group, Layout

LEAST = 1e-4  # scale of a factor that does not vary


class AdapterHead(nn.Module):
    """States of a group's patches to A and B of its modules.

    Library adapters all start from one random A, which no function of the weights could produce;
    so each module has a learned A, and a learned B that starts at zero, and the heads say what a
    task adds to them, times a learned scale of each.
    """

    def __init__(self, config: LoFAConfig, group: Group) -> None:
        super().__init__()
        self.factors = FactorHeads(config.width, group.rank, group)
        sites, bound = len(group.sites), group.in_features**-0.5  # of PEFT's start
        start_a = torch.empty(sites, group.rank, group.in_features).uniform_(-bound, bound)
        self.start_a = nn.Parameter(start_a)
        self.start_b = nn.Parameter(torch.zeros(sites, group.rank, group.out_features))
        self.scales = nn.Parameter(torch.full((2,), math.log(math.expm1(config.scale))))
        self.register_buffer("mask", rank_mask(group)[..., None], persistent=False)

    def forward(
        self, states: States
    ) -> tuple[Float[Tensor, "n sites r in"], Float[Tensor, "n sites out r"]]:
        more_a, more_b = self.factors(states)  # (n, sites, r, in), (n, sites, r, out)
        scale_a, scale_b = softplus(self.scales)
        mask = self.get_buffer("mask").to(more_a)
        a, b = self.start_a + scale_a * more_a, self.start_b + scale_b * more_b
        return a * mask, (b * mask).mT


class LoFA(Generator):
    """The second stage for one layout: descriptions and the loaded base to adapters.

    Raises UsageError for a condition without descriptions or without the base; LayoutMismatch or
    UnsupportedModel for a base whose weights are not those of the layout or cannot be read.
    """

    kind = "lofa"
    Config = LoFAConfig
    needs = frozenset({"description", "base"})

    def __init__(self, config: LoFAConfig, layout: Layout) -> None:
        super().__init__(config, layout)
        self.tokens = WeightTokens(config.width)
        self.trunk = WeightTrunk(config, layout)
        self.heads = nn.ModuleDict({g.key: AdapterHead(config, g) for g in layout.groups})
        self.stage1: WeightTrunk | None = None
        self.readers = nn.ModuleDict()
        if config.features:
            # As in stage I, whose tokens these are; so both are the same in every request.
            self.tokens.requires_grad_(False)
            self.stage1 = WeightTrunk(config, layout).requires_grad_(False)
            for number in sorted({max(1, config.blocks // 2), config.blocks}):
                self.readers[str(number)] = PreNorm(config.width, WithinSite(config))

    def forward(self, condition: Condition) -> Adapter:
        """n embedded descriptions to n adapters."""
        text, base = require_text(condition), require_loaded_base(condition)
        a, b = {}, {}
        for group in self.layout.groups:
            tokens = self.tokens.of(base, group)
            features = None
            if self.stage1 is not None:
                features = self.stage1(self.stage1.place(tokens, group), text)
            states = self.trunk(self.trunk.place(tokens, group), text, self.readers, features)
            a[group.key], b[group.key] = self.heads[group.key](states)
        return Adapter(self.layout, a, b)

    def begin_from(self, stage1: ResponseMaps) -> None:
        """Take stage I's trunk, once to go on from and once to read, strictly.

        Raises UsageError if its trunk has another shape, or if this one reads no features;
        LayoutMismatch if it is for other modules.
        """
        if self.stage1 is None:
            raise UsageError("stage II without features begins from nothing: leave stage1 out")
        mine, others = self.layout.with_rank(1), stage1.layout.with_rank(1)
        mine.require_same(others, "stage II", "stage I")
        self.config.require_same_trunk(stage1.config)
        self.tokens.load_state_dict(stage1.tokens.state_dict())
        for trunk in (self.trunk, self.stage1):
            trunk.load_state_dict(stage1.trunk.state_dict())

    @torch.no_grad()
    def prepare(self, adapters: Adapter, tasks: Float[Tensor, "m d"] | None = None) -> None:
        """Set each module's own A and B to the mean of the adapters that are trained on.

        The heads' scales become the standard deviations around it, over a group.
        """
        for key, head in self.heads.items():
            factors = (adapters.A[key], adapters.B[key].mT)
            for name, factor in zip(("start_a", "start_b"), factors, strict=True):
                head.get_parameter(name).copy_(factor.mean(dim=0))
            spread = torch.stack([f.std(dim=0, correction=0).mean() for f in factors])
            head.get_parameter("scales").copy_(spread.clamp_min(LEAST).expm1().log())
