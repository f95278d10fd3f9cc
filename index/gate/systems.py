"""Published systems as choices of one gate: what it reads, chooses among, takes and is balanced by.

Their papers train experts and gate together, mostly in the feed-forward layers. Here the experts
are a library's adapters, frozen, in the modules that they have, and the gate alone is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from library.errors import UsageError


@dataclass(frozen=True)
class System:
    """Attributes:
    paper: where it is published.
    scores: learnt, or from the adapters' weights alone, without training.
    reads: each token's input of the module; the mean of the prompt's, once a request; or the last
        hidden states of a first pass without adapters.
    among: adapters; their B over one A that they share; or single ranks of all of them.
    takes: all by softmax; the best; the best k, by softmax; those above a threshold that is learnt
        too; or top-p where the softmax is sure and all where it is not (by Tsallis entropy).
    balances: what is added to the loss: experts' load, Tsallis entropy, or load and the choice of
        the task's own adapter.
    k: of top-k.
    more_above: whether low layers have fewer experts.
    """

    paper: str
    scores: Literal["learnt", "arrow", "spectr", "lag"] = "learnt"
    reads: Literal["token", "prompt", "first-pass"] = "token"
    among: Literal["adapters", "shared-a", "ranks"] = "adapters"
    takes: Literal["softmax", "top-1", "top-k", "threshold", "tsallis"] = "softmax"
    balances: Literal["nothing", "load", "tsallis", "specialisation"] = "nothing"
    k: int = 2
    more_above: bool = False


SYSTEMS: dict[str, System] = {
    "mixlora": System("arXiv 2404.15159", takes="top-k", balances="load"),
    "mola": System("arXiv 2402.08562", takes="top-k", balances="load", more_above=True),
    "adamole": System("arXiv 2405.00361", takes="threshold", balances="load"),
    "llava-mole": System("arXiv 2401.16160", takes="top-1", balances="load"),
    "lora-mixer": System("arXiv 2507.00029", takes="top-k", balances="specialisation"),
    "dynmole": System("arXiv 2504.00661", takes="tsallis", balances="tsallis"),
    "mole": System("arXiv 2404.13628", balances="load"),
    "x-lora": System("arXiv 2402.07148", reads="first-pass"),
    "mosld": System("arXiv 2412.08946", among="shared-a", takes="top-k", balances="load"),
    "smora": System("arXiv 2501.15103", among="ranks", takes="top-k", k=8),
    "milora": System("arXiv 2410.18035", reads="prompt", takes="top-k", balances="load"),
    "arrow": System("arXiv 2405.11157", scores="arrow", takes="top-k", k=3),
    "spectr": System("arXiv 2504.03454", scores="spectr", takes="top-k", k=3),
    "lag": System("arXiv 2507.05346", scores="lag", takes="top-1", k=3),
}


def systems(learnt: bool) -> list[str]:
    """Names of the systems that are trained, or of those that are not."""
    return [name for name, system in SYSTEMS.items() if (system.scores == "learnt") == learnt]


def system_named(name: str, among: Sequence[str]) -> System:
    """A system of the table. Raises UsageError, with the names that there are."""
    if name not in among:
        raise UsageError(f"there is no gate {name!r}; there are {', '.join(among)}")
    return SYSTEMS[name]
