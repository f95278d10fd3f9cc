"""Placements that look at the base while it reads rows of the tasks, before anything is trained."""

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.base.models import BaseModel
from library.base.prompts import prompt_ids, user_turn
from library.base.weights import group_weights
from library.layout import Layout
from library.placement.placement import Placement, best, of_layers
from library.placement.probe import (
    LONGEST,
    Probe,
    attention_weights,
    layer_names,
    loss_of,
    read_positions,
    recorded,
)

CONFLICTS = 16  # pairs of descriptions that `Focal` reads


@dataclass(frozen=True)
class Plop(Placement):
    """The module types whose weights fit their inputs least (PLoP, Hayou et al. 2025).

    A type's score is the mean over its modules of the normalised feature norm √in·‖W·x‖/(‖W‖·‖x‖),
    which is 1 for a random W; training on data like x raises it. The lowest types are adapted.

    Attributes:
        types: how many.
    """

    name = "plop"
    types: int = 2

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        norms = self.norms(layout, probe)
        by_type: dict[str, list[float]] = defaultdict(list)
        for site in layout.sites:
            by_type[site.module_type].append(norms[site.name])
        means = {kind: sum(values) / len(values) for kind, values in by_type.items()}
        chosen = sorted(means, key=lambda kind: (means[kind], kind))[: self.types]
        return {site.name: float(site.module_type in chosen) for site in layout.sites}

    @torch.no_grad()
    def norms(self, layout: Layout, probe: Probe) -> dict[str, float]:
        """The normalised feature norm of each module, averaged over tokens of the rows."""
        model, sums, tokens = probe.base.model, dict.fromkeys(layout.ranks, 0.0), 0
        for batch in probe.batches():
            with recorded(model, [*layout.ranks]) as seen:
                model.get_decoder()(input_ids=batch.ids, use_cache=False)
            read = read_positions(batch)
            tokens += int(read.sum())
            for name, value in seen.items():
                bias = getattr(model.get_submodule(name), "bias", None)
                product = value.out if bias is None else value.out - bias  # W·x
                ratio = product.norm(dim=-1) / value.into.norm(dim=-1).clamp(min=1e-12)
                sums[name] += ratio[read].sum().item()
        lengths = {
            site.name: math.sqrt(group.in_features) / weight.norm().item()
            for group in layout.groups
            for site, weight in zip(group.sites, group_weights(model, group), strict=True)
        }
        return {name: total / tokens * lengths[name] for name, total in sums.items()}


@dataclass(frozen=True)
class Contribution(Placement):
    """Ranks in proportion to what a module contributes to the loss (CoLoRA, Park et al. 2024).

    The paper attributes the loss of a fully tuned network to its filters. Before any training the
    same first-order figure is the length of the loss's gradient by W, which is taken here.
    """

    name = "contribution"

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        base, names = probe.base, [*layout.ranks]
        sums: dict[str, Tensor] = {}
        for batch in probe.batches():
            with recorded(base.model, names) as seen:
                loss, _ = loss_of(base, batch)
            gradients = torch.autograd.grad(loss, [seen[name].out for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                by_weight = gradient.flatten(0, 1).mT @ seen[name].into.detach().flatten(0, 1)
                sums[name] = sums[name] + by_weight if name in sums else by_weight  # (out, in)
        return {name: total.norm().item() for name, total in sums.items()}


@dataclass(frozen=True)
class Inflection(Placement):
    """Layers of low attention entropy behind which the gradient falls most.

    Attention Saturation and Gradient Suppression at Inflection Layers (2025) looks for both at
    once; a layer's score is the sum of its places in both orders.

    Attributes:
        share: of the layers that are adapted.
    """

    name = "inflection"
    share: float = 0.25

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        layers = layer_names(layout)
        entropy, decay = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
        with attention_weights(probe.base):
            for batch in probe.batches():
                with recorded(probe.base.model, [*layers.values()]) as seen:
                    loss, out = loss_of(probe.base, batch, output_attentions=True)
                ends = [t for name in layers.values() for t in (seen[name].into, seen[name].out)]
                norms = [g.norm().log().item() for g in torch.autograd.grad(loss, ends)]
                for i, layer in enumerate(layers):
                    entropy[layer] += _entropy(out.attentions[layer], read_positions(batch))
                    decay[layer] += norms[2 * i + 1] - norms[2 * i]  # at its output, at its input
        low, steep = _places({k: -v for k, v in entropy.items()}), _places(decay)
        return of_layers(layout, best({k: low[k] + steep[k] for k in layers}, self.share))


@dataclass(frozen=True)
class Focal(Placement):
    """Layers whose attention moves most when a second instruction contradicts the first.

    SAIL (Diagnose, Localize, Align, 2025) finds the layers that arbitrate between instructions by
    how attention drifts under conflict. Its preference loss is not part of a placement.

    Attributes:
        share: of the layers that are adapted.
    """

    name = "focal"
    share: float = 0.25

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        layers, tasks = [*layer_names(layout)], probe.drawn[: CONFLICTS + 1]
        drift = dict.fromkeys(layers, 0.0)
        with attention_weights(probe.base), torch.no_grad():
            for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
                text = user_turn("prompted", task.definition, task.train[0].input)
                one = _last_attention(probe.base, text)
                both = _last_attention(probe.base, user_turn("prompted", other.definition, text))
                for layer in layers:
                    drift[layer] += _moved(one[layer], both[layer])
        return of_layers(layout, best(drift, self.share))


def _entropy(
    weights: Float[Tensor, "batch heads queries keys"], read: Bool[Tensor, "batch queries"]
) -> float:
    """Mean entropy of attention over that of an even spread, from the second query on."""
    p = weights[:, :, 1:].double()
    entropy = -(p * p.clamp(min=1e-30).log()).sum(-1)  # (batch, heads, queries)
    keys = torch.arange(2, weights.shape[-1] + 1, device=weights.device).log()
    return (entropy / keys).mean(1)[read[:, 1:]].mean().item()


def _places(scores: dict[int, float]) -> dict[int, float]:
    """How many others have a lower score."""
    return {k: float(sum(v > other for other in scores.values())) for k, v in scores.items()}


def _last_attention(base: BaseModel, text: str) -> list[Float[Tensor, "heads keys"]]:
    """What the last token of a prompt attends to, by layer."""
    ids = torch.tensor([prompt_ids(base.tokenizer, text)[-2 * LONGEST :]], device=base.device)
    out = base.model.get_decoder()(input_ids=ids, use_cache=False, output_attentions=True)
    return [weights[0, :, -1] for weights in out.attentions]


def _moved(one: Float[Tensor, "heads keys"], both: Float[Tensor, "heads more"]) -> float:
    """Attention that leaves the tokens that both prompts end with; the mean over heads."""
    shared = min(one.shape[1], both.shape[1]) - 1  # what stands before a prompt differs in place
    return (one[:, -shared:] - both[:, -shared:]).abs().sum(1).mean().item()
