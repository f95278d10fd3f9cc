"""Placements that train one LoRA for a short while and read ranks off what its gates have become.

Published systems choose ranks while the adapter itself is trained. Here the choice is made once,
on the mixed rows of a library's tasks, and its adapters are trained as ever.
"""

from abc import abstractmethod
from contextlib import closing
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.layout import Layout
from library.placement.gated import GatedLoRA
from library.placement.placement import Placement, best, of_depths, of_layers
from library.placement.probe import Probe

SMOOTHING = 0.9  # of the importance that `DynamicRank` goes by, from step to step
READ = 16  # batches of tune rows that `DyLoRA` reads


@dataclass(frozen=True)
class Learnt(Placement):
    """What they have in common.

    Attributes:
        steps: of the probe's LoRA.
    """

    steps: int = 80

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        with closing(GatedLoRA(layout, probe)) as lora:
            return self.learnt(layout, lora)

    @abstractmethod
    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        """Train the LoRA; the scores that come of it."""


@dataclass(frozen=True)
class AutoLoRA(Learnt):
    """A selection variable for each component (AutoLoRA, Zhang et al. 2024).

    It is learnt on tune rows, the factors on train rows, in turn: the paper's meta-gradient without
    its second order. The paper's variables sum to 1 in a module and are cut at their mean; here
    they compete over all modules. A module's score is the sum of what is above the cut.
    """

    name = "autolora"

    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        logits = lora.filled(len(lora.module), 0.0)
        lora.learn(self.steps, logits, lambda: _competing(logits))
        chosen = _competing(logits)
        return lora.by_module(chosen * (chosen > 1))


@dataclass(frozen=True)
class Flexora(Learnt):
    """The layers of the highest gates (Flexora, Wei et al. 2024).

    Gates are a softmax over the layers, times their number, learnt on tune rows. The paper
    differentiates through some steps of the factors; here one side learns after the other.

    Attributes:
        share: of the layers that are adapted.
    """

    name = "flexora"
    share: float = 0.5

    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        layers = of_depths(layout)
        logits = lora.filled(len(layers), 0.0)
        lora.learn(self.steps, logits, lambda: _competing(logits)[lora.layer])
        gates = dict(zip(layers, logits.tolist(), strict=True))
        return of_layers(layout, best(gates, self.share))


@dataclass(frozen=True)
class ARDLoRA(Learnt):
    """A learnt factor on the rank of each module (ARD-LoRA, Shinwari and Usama 2025).

    The components up to factor·rank act, those about it in part, so that the factor has a gradient;
    it learns on tune rows. Attention heads have no factors of their own.

    Attributes:
        l1: weight of the mean factor in the loss.
        tv: weight of the mean difference between a module and that of the next layer.
    """

    name = "ard"
    l1: float = 0.1
    tv: float = 0.1

    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        factors, groups = lora.filled(len(layout.sites), 1.0), layout.groups
        one = lora.module.new_tensor([i for group in groups for i in group.indices[:-1]])
        following = lora.module.new_tensor([i for group in groups for i in group.indices[1:]])

        def gates() -> Tensor:
            return (layout.rank * factors[lora.module] - lora.place - 0.5).sigmoid()

        def penalty() -> Tensor:
            changes = (factors[following] - factors[one]).abs().sum()
            return (self.l1 * factors.abs().sum() + self.tv * changes) / len(factors)

        lora.learn(self.steps, factors, gates, penalty)
        return dict(zip(layout.ranks, factors.relu().tolist(), strict=True))


@dataclass(frozen=True)
class DynamicRank(Learnt):
    """The components that are left after the weakest are pruned (DoRA, Mao et al. 2024).

    A component's importance is its norm over that of its module's ΔW, smoothed over the steps. From
    a quarter of the steps on fewer and fewer stay, along a cubic, down to the budget. Without the
    paper's penalty on the spread of a component's entries.
    """

    name = "dora"

    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        alive, importance = (lora.filled(len(lora.module), value) for value in (1.0, 0.0))
        budget = min(len(alive), sum(site.rank for site in layout.sites))

        def prune(done: float) -> None:
            importance.lerp_(lora.shares(alive), 1 - SMOOTHING)
            left = min(1.0, (1 - done) * 4 / 3) ** 3  # of what is above the budget
            count = round(budget + (len(alive) - budget) * left)
            strongest = importance.masked_fill(alive == 0, -1.0).topk(count).indices
            alive.zero_().index_fill_(0, strongest, 1.0)

        lora.train(self.steps, lambda: alive, prune)
        return lora.by_module(alive)


@dataclass(frozen=True)
class DyLoRA(Learnt):
    """What cutting a nested LoRA costs (DyLoRA, Valipour et al. 2023).

    Each step trains the first components of every module alone, of a number drawn anew. A module's
    score is how much the loss on tune rows rises when it is cut, the mean over all cuts. That is
    read off one gradient by the gates, taken half-way between no LoRA and all of it, which is exact
    where the loss is quadratic on the way; at the end of it training has made the gradient small.
    """

    name = "dylora"

    def learnt(self, layout: Layout, lora: GatedLoRA) -> dict[str, float]:
        def prefix() -> Tensor:
            return (lora.place < lora.rng.randint(1, lora.layout.rank)).float()

        lora.train(self.steps, prefix, lambda _: None)
        half = lora.filled(len(lora.module), 0.5).requires_grad_()
        gained = torch.zeros_like(half)
        for _ in range(READ):
            gained -= torch.autograd.grad(lora.loss("tune", half), half)[0]
        return lora.by_module(gained * (lora.place + 1))  # cuts that a component does not survive


def _competing(logits: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Gates above 0 whose mean is 1, and so is each at the start."""
    return len(logits) * logits.softmax(0)
