"""Ways to merge adapters, by name.

Each looks at ΔW alone: another factorisation of the same adapters gives the same merge. Sums are
exact at the sum of the ranks; the others have a rank to be asked for, by default the largest of the
adapters'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from index.merge import lorahub
from index.merge.klora import klora
from index.merge.lego import lego
from index.merge.lora_rar import Predictor
from index.merge.orthogonal import orthogonal
from index.merge.ties_dare import dare, merge_entries, ties
from index.merge.weighted_sum import require_mergeable, weighted_sum
from library.adapter import Adapter
from library.errors import UnknownName, UsageError


@dataclass(frozen=True)
class Mix:
    """What is merged, and how.

    Attributes:
        adapters: one each (n = 1), of one layout up to rank.
        weights: one for each; None where the method finds them, and for equal ones.
        rank: of the result; None for the method's own.
        density: share of entries that TIES and DARE keep; None for the method's own.
        seed: of DARE's masks and LoraHub's search.
        predictor: needed by lora-rar.
        losses: of weights, on examples; needed by lorahub.
    """

    adapters: Sequence[Adapter]
    weights: Sequence[float] | None = None
    rank: int | None = None
    density: float | None = None
    seed: int = 0
    predictor: Predictor | None = None
    losses: lorahub.Losses | None = None

    @property
    def shares(self) -> Sequence[float]:
        """The weights; equal ones that sum to one if there are none."""
        count = len(self.adapters)
        return self.weights if self.weights is not None else [1 / count] * count

    @property
    def largest_rank(self) -> int:
        """The rank that was asked for, else the largest of the adapters'."""
        return self.rank or max(adapter.layout.rank for adapter in self.adapters)


@dataclass(frozen=True)
class Merged:
    """One adapter (n = 1), and the weights that made it where there is one for each adapter."""

    adapter: Adapter
    weights: list[float] | None


DENSITY = {"ties": 0.2, "dare": 0.5}  # the papers' top 20 %, and a drop rate that suits LoRA
FINDS_WEIGHTS = ("soup", "lora-rar", "lorahub")


def merge(method: str, mix: Mix) -> Merged:
    """Merge by a method of METHODS.

    Raises:
        UnknownName: no such method.
        UsageError: weights, density or number of adapters do not suit it.
        LayoutMismatch: the adapters differ in modules or shapes.
    """
    if method not in METHODS:
        raise UnknownName(f"unknown method '{method}'; known: {', '.join(METHODS)}")
    require_suitable(method, mix.weights, mix.density)
    require_mergeable(mix.adapters, mix.shares)
    return METHODS[method](mix)


def require_suitable(method: str, weights: Sequence[float] | None, density: float | None) -> None:
    """Raise UsageError for weights or a density that the method would not look at, or cannot."""
    if weights is not None and method in FINDS_WEIGHTS:
        raise UsageError(f"{method} takes no weights")
    if density is not None and method not in DENSITY:
        raise UsageError(f"{method} takes no density; {' and '.join(DENSITY)} do")
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"density must be above 0 and at most 1, not {density}")


def _density(method: str, mix: Mix) -> float:
    return mix.density if mix.density is not None else DENSITY[method]


def _sum(mix: Mix) -> Merged:
    return _weighted(mix, weighted_sum(mix.adapters, mix.shares, mix.rank))


def _ties(mix: Mix) -> Merged:
    rule = ties(mix.shares, _density("ties", mix))
    return _weighted(mix, merge_entries(mix.adapters, rule, mix.largest_rank))


def _dare(mix: Mix) -> Merged:
    rule = dare(mix.shares, _density("dare", mix), mix.seed)
    return _weighted(mix, merge_entries(mix.adapters, rule, mix.largest_rank))


def _lego(mix: Mix) -> Merged:
    return _weighted(mix, lego(mix.adapters, mix.shares, mix.largest_rank))


def _klora(mix: Mix) -> Merged:
    return _weighted(mix, _at_rank(klora(mix.adapters, mix.shares), mix.rank))


def _orthogonal(mix: Mix) -> Merged:
    return _weighted(mix, _at_rank(orthogonal(mix.adapters, mix.shares), mix.rank))


def _lora_rar(mix: Mix) -> Merged:
    if len(mix.adapters) != 2:
        raise UsageError(f"lora-rar merges two adapters, not {len(mix.adapters)}")
    if mix.predictor is None:
        raise UsageError("lora-rar needs a predictor")
    return Merged(mix.predictor.merge(mix.adapters[0], mix.adapters[1], mix.rank), None)


def _lorahub(mix: Mix) -> Merged:
    if mix.losses is None:
        raise UsageError("lorahub needs examples")
    found = lorahub.search_mixture(mix.losses, len(mix.adapters), seed=mix.seed)
    return _sum(replace(mix, weights=found.weights))


def _weighted(mix: Mix, adapter: Adapter) -> Merged:
    return Merged(adapter, list(mix.shares))


def _at_rank(adapter: Adapter, rank: int | None) -> Adapter:
    return adapter if rank is None else adapter.recompressed(rank)


METHODS: dict[str, Callable[[Mix], Merged]] = {
    "cat": _sum,
    "soup": _sum,
    "ties": _ties,
    "dare": _dare,
    "lego": _lego,
    "klora": _klora,
    "orthogonal": _orthogonal,
    "lora-rar": _lora_rar,
    "lorahub": _lorahub,
}
