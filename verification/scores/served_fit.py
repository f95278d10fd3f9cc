"""Which hypothesis about a served adapter explains the server's answers best.

Misfit is Σ log(1 + (error / noise)²) over contexts: minus the logarithm of a likelihood with heavy
tails, so that the few contexts whose answer rounding turns do not decide (Student's t, whose
constants cancel in differences). The noise is the typical error of the base's own answers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from library.adapter import Adapter
from library.layout import Site

EXPLAINED = 4.0  # times the noise: an error beyond it is none of rounding
SHARE = 0.75  # of contexts that a hypothesis has to explain
MARGIN = 3.0  # by which the misfit of a fault has to be below that of what is simpler
STRONGEST = 16.0  # times its strength, as is the reverse: what dropping √256 gives
STEP = math.sqrt(2)  # from one strength that is tried to the next
_PRECISION = 0.005  # of the logarithm of a strength


@dataclass(frozen=True)
class Hypothesis:
    """What may answer in an adapter's place.

    Attributes:
        strength: times the adapter's own; 0 for the base alone.
        missing: the part that it lacks, in words.
        errors: of its predictions by context, times the noise.
    """

    strength: float
    missing: str | None
    errors: Float[Tensor, " contexts"]

    @property
    def misfit(self) -> float:
        return float(self.errors.square().log1p().sum())

    @property
    def explained(self) -> int:
        """How many contexts it explains."""
        return int((self.errors <= EXPLAINED).sum())

    @property
    def explains(self) -> bool:
        """Whether it explains enough of them."""
        return self.explained >= SHARE * len(self.errors)


class Hypotheses:
    """The hypotheses about one adapter, each tried when it is needed.

    Args:
        adapter: the one that is said to be served.
        errors: of what is predicted under an adapter, times the noise.
    Attributes:
        this: the adapter as it is.
        base: the base alone.
        fitted: the adapter at the strength that explains the answers best.
    """

    def __init__(
        self, adapter: Adapter, errors: Callable[[Adapter], Float[Tensor, " contexts"]]
    ) -> None:
        self._adapter, self._errors = adapter, errors
        self.this, self.base = self._scaled(1.0), self._scaled(0.0)
        self.fitted = self._at_best_strength()

    def best(self) -> Hypothesis:
        """The one that explains the answers, a fault only where nothing simpler does as well."""
        simple, faults = min(self.this, self.base, key=_misfit), [self.fitted]
        if simple.misfit < MARGIN:  # no misfit is below zero
            return simple
        if not self.fitted.explains or 1 / STEP < self.fitted.strength < STEP:
            faults += self._partial()
        fault = min(faults, key=_misfit)
        return fault if fault.misfit < simple.misfit - MARGIN else simple

    def _at_best_strength(self) -> Hypothesis:
        start = self.this
        if start.misfit >= MARGIN:
            start = min(self._descent(1 / STEP), self._descent(STEP), key=_misfit)
        found = minimize_scalar(
            lambda log: self._scaled(math.exp(log)).misfit,
            bounds=(math.log(start.strength / STEP), math.log(start.strength * STEP)),
            method="bounded",
            options={"xatol": _PRECISION},
        )
        return self._scaled(math.exp(found.x))

    def _descent(self, factor: float) -> Hypothesis:
        """The last strength from 1 on, factor by factor, that explains more than the one before."""
        best = self.this
        while 1 / STRONGEST < best.strength < STRONGEST:
            tried = self._scaled(best.strength * factor)
            if tried.misfit >= best.misfit:
                break
            best = tried
        return best

    def _partial(self) -> list[Hypothesis]:
        """The adapter without one layer, and without all modules of one type."""
        layout = self._adapter.layout
        layers = sorted({site.depth for site in layout.sites})
        found = []
        if len(layers) > 1:
            for layer in layers:
                found.append(self._without(f"layer {layer}", lambda s, n=layer: s.depth == n))
        if len(layout.module_types) > 1:
            for name in layout.module_types:
                found.append(self._without(f"every {name}", lambda s, n=name: s.module_type == n))
        return found

    def _scaled(self, strength: float) -> Hypothesis:
        return self._tried(self._adapter.scaled(strength), strength, None)

    def _without(self, part: str, belongs: Callable[[Site], bool]) -> Hypothesis:
        return self._tried(without(self._adapter, belongs), 1.0, part)

    def _tried(self, adapter: Adapter, strength: float, missing: str | None) -> Hypothesis:
        return Hypothesis(strength, missing, self._errors(adapter))


def _misfit(tried: Hypothesis) -> float:
    return tried.misfit


def without(adapter: Adapter, belongs: Callable[[Site], bool]) -> Adapter:
    """The adapter with ΔW zero in the modules that belong to a part."""
    factors = {}
    for group in adapter.layout.groups:
        factors[group.key] = adapter.B[group.key].clone()
        factors[group.key][:, [i for i, site in enumerate(group.sites) if belongs(site)]] = 0
    return replace(adapter, B=factors)
