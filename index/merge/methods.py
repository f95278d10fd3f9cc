"""Ways to merge adapters, by name.

Each looks at ΔW alone: another factorisation of the same adapters gives the same merge. Sums are
exact at the sum of the ranks; the others take a rank, by default the largest of the adapters'.
METHODS is the one place that says which method takes which option.
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

TIES_DENSITY, DARE_DENSITY = 0.2, 0.5  # the paper's top 20 %, and a drop rate that suits LoRA


@dataclass(frozen=True)
class Mix:
    """Adapters to merge, with the options of all methods.

    Attributes:
        adapters: one each (n = 1), of one base; one that lacks a module is zero there.
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
        """The rank of the result where it cannot be exact: by default the adapters' largest."""
        return self.rank or max(adapter.layout.rank for adapter in self.adapters)


@dataclass(frozen=True)
class Merged:
    """One adapter (n = 1), and the weights that made it where there is one for each adapter."""

    adapter: Adapter
    weights: list[float] | None


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge, and the options that it takes.

    Attributes:
        run: merges.
        weights: takes one for each adapter; the others find or fix their own.
        density: its default share of entries; None if it takes none.
        examples: the most that it takes; None if it takes none. One that takes them needs them.
        predictor: takes a checkpoint.
        dense: forms every ΔW, entry by entry, which takes seconds.
        exactly, most: how many adapters it merges.
    """

    run: Callable[[Mix], Merged]
    weights: bool = True
    density: float | None = None
    examples: int | None = None
    predictor: bool = False
    dense: bool = False
    exactly: int | None = None
    most: int | None = None


def method_named(name: str) -> MergeMethod:
    """Raises UnknownName."""
    if name not in METHODS:
        raise UnknownName(f"unknown method '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]


def merge(name: str, mix: Mix) -> Merged:
    """Merge by a method of METHODS.

    Raises:
        UnknownName: no such method.
        UsageError: weights, density or number of adapters do not suit it.
        LayoutMismatch: the adapters are of different bases.
    """
    method = method_named(name)
    require_suitable(name, len(mix.adapters), mix.weights, mix.density)
    require_mergeable(mix.adapters, mix.shares)
    return method.run(mix)


def require_suitable(
    name: str, adapters: int, weights: Sequence[float] | None, density: float | None
) -> None:
    """Raise UsageError if a method does not take these options, or UnknownName."""
    method = method_named(name)
    if weights is not None and not method.weights:
        raise UsageError(f"{name} takes no weights")
    if density is not None and method.density is None:
        takers = " and ".join(key for key, other in METHODS.items() if other.density is not None)
        raise UsageError(f"{name} takes no density; {takers} do")
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"density must be above 0 and at most 1, not {density}")
    if weights is not None and len(weights) != adapters:
        raise UsageError(f"{adapters} adapters need as many weights, not {len(weights)}")
    if method.exactly is not None and adapters != method.exactly:
        raise UsageError(f"{name} merges two adapters, not {adapters}")
    if method.most is not None and adapters > method.most:
        raise UsageError(f"{name} takes at most {method.most} adapters")


def require_merge_inputs(name: str, examples: int | None, *, predictor: bool) -> None:
    """Raise UsageError if a method does not take these files, or needs what is missing.

    Args:
        examples: their number; None for no file of them.
        predictor: whether there is a checkpoint.
    """
    method = method_named(name)
    if (examples is not None) != (method.examples is not None):
        verb = "takes no" if method.examples is None else "needs"
        raise UsageError(f"{name} {verb} --examples")
    if examples is not None and method.examples is not None and examples > method.examples:
        raise UsageError(f"{name} takes at most {method.examples} examples, not {examples}")
    if predictor and not method.predictor:
        raise UsageError(f"{name} takes no --predictor")


def _sum(mix: Mix) -> Merged:
    return _weighted(mix, weighted_sum(mix.adapters, mix.shares, mix.rank))


def _ties(mix: Mix) -> Merged:
    rule = ties(mix.shares, mix.density or TIES_DENSITY)
    return _weighted(mix, merge_entries(mix.adapters, rule, mix.largest_rank))


def _dare(mix: Mix) -> Merged:
    rule = dare(mix.shares, mix.density or DARE_DENSITY, mix.seed)
    return _weighted(mix, merge_entries(mix.adapters, rule, mix.largest_rank))


def _lego(mix: Mix) -> Merged:
    return _weighted(mix, lego(mix.adapters, mix.shares, mix.largest_rank))


def _klora(mix: Mix) -> Merged:
    return _weighted(mix, _at_rank(klora(mix.adapters, mix.shares), mix.rank))


def _orthogonal(mix: Mix) -> Merged:
    return _weighted(mix, _at_rank(orthogonal(mix.adapters, mix.shares), mix.rank))


def _lora_rar(mix: Mix) -> Merged:
    if mix.predictor is None:
        raise UsageError("lora-rar needs a predictor")
    return Merged(mix.predictor.merge(mix.adapters[0], mix.adapters[1], mix.rank), None)


def _lorahub(mix: Mix) -> Merged:
    if mix.losses is None:
        raise UsageError("lorahub needs examples")
    best = lorahub.search_mixture(mix.losses, len(mix.adapters), seed=mix.seed)
    return _sum(replace(mix, weights=best.weights))


def _weighted(mix: Mix, adapter: Adapter) -> Merged:
    return Merged(adapter, list(mix.shares))


def _at_rank(adapter: Adapter, rank: int | None) -> Adapter:
    return adapter if rank is None else adapter.recompressed(rank)


METHODS: dict[str, MergeMethod] = {
    "cat": MergeMethod(_sum),
    "soup": MergeMethod(_sum, weights=False),
    "ties": MergeMethod(_ties, density=TIES_DENSITY, dense=True),
    "dare": MergeMethod(_dare, density=DARE_DENSITY, dense=True),
    "lego": MergeMethod(_lego),
    "klora": MergeMethod(_klora),
    "orthogonal": MergeMethod(_orthogonal),
    "lora-rar": MergeMethod(_lora_rar, weights=False, predictor=True, exactly=2),
    "lorahub": MergeMethod(
        _lorahub, weights=False, examples=lorahub.EXAMPLES, most=lorahub.CANDIDATES
    ),
}
