"""Placements that look at nothing but how deep a module sits."""

from dataclasses import dataclass

from library.layout import Layout
from library.placement.placement import Placement, of_depths, of_layers
from library.placement.probe import Probe


@dataclass(frozen=True)
class Uniform(Placement):
    """One rank for all: what every other placement is compared with."""

    name = "uniform"

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        return of_layers(layout, of_depths(layout))


@dataclass(frozen=True)
class Increasing(Placement):
    """Ranks that rise linearly from the first adapted layer to the last.

    PRILoRA (Benedek and Wolf 2024) without its pruning: ranks 4 to 12 where 8 is the mean. With a
    `depth` below 1 only the layers nearest the output are adapted (LEGEND, Liu et al. 2024).

    Attributes:
        first: the first layer's rank over the mean, from 0 up to 1.
        depth: share of the layers that are adapted, counted from the output.
    """

    name = "increasing"
    first: float = 0.5
    depth: float = 1.0

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        layers = of_depths(layout)
        layers = layers[-max(1, round(self.depth * len(layers))) :]
        last = max(1, len(layers) - 1)
        slope = 2 * (1 - self.first) / last
        heights = {layer: self.first + slope * i for i, layer in enumerate(layers)}
        return {site.name: heights.get(site.depth, 0.0) for site in layout.sites}


@dataclass(frozen=True)
class Ends(Placement):
    """The first and the last layers alone (LayRA, Continually Adding New Languages, 2025).

    Attributes:
        first, last: share of the layers at either end.
    """

    name = "ends"
    first: float = 0.2
    last: float = 0.2

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        layers = of_depths(layout)
        first, last = (max(1, round(share * len(layers))) for share in (self.first, self.last))
        return of_layers(layout, {*layers[:first], *layers[-last:]})


@dataclass(frozen=True)
class Strata(Placement):
    """Three strata of layers: nothing, half a share, a whole share (SPAFIT, Arora and Wang 2024).

    The paper tunes biases in the middle stratum; a LoRA has none, so half the rank stands for them.

    Attributes:
        frozen, middle: share of the layers, from the input on, in the first two strata.
    """

    name = "strata"
    frozen: float = 1 / 3
    middle: float = 1 / 3

    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        layers = of_depths(layout)
        ends = [round(share * len(layers)) for share in (self.frozen, self.frozen + self.middle)]
        heights = {layer: 0.5 * sum(i >= end for end in ends) for i, layer in enumerate(layers)}
        return {site.name: heights[site.depth] for site in layout.sites}
