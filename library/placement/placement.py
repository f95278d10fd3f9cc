"""The interface of placements: what scores the modules of a base."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from library.layout import Layout
from library.placement.probe import Probe


@dataclass(frozen=True)
class Placement(ABC):
    """A way to spend a budget of ranks. Its fields are what a user may set, as name:key=value."""

    name: ClassVar[str]

    @abstractmethod
    def scores(self, layout: Layout, probe: Probe) -> dict[str, float]:
        """How much each module of the layout is to get, against the others; 0 for nothing."""


def of_layers(layout: Layout, layers: Collection[int]) -> dict[str, float]:
    """Scores of a subset: 1 for the modules of these layers, 0 for others."""
    return {site.name: float(site.depth in layers) for site in layout.sites}


def of_depths(layout: Layout) -> list[int]:
    """The layers that have modules in the layout, from the input on."""
    return sorted({site.depth for site in layout.sites})


def best(scores: dict[int, float], share: float) -> list[int]:
    """A share of the layers, one at least: those of the highest scores, the earlier one of two."""
    count = max(1, round(share * len(scores)))
    return sorted(scores, key=lambda layer: (-scores[layer], layer))[:count]
