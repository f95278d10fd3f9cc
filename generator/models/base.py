"""The generator interface: a condition in, an adapter out.

A generator is one file in `generator/models/`. Subclassing `Generator` registers it by its name;
training, serving, evaluation and help texts iterate over what is registered. Packages elsewhere
bring their own through the entry point group `lorasmith.generators`.
"""

import importlib
import pkgutil
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from index.encoders.descriptions import Embeddings
from index.encoders.pairs import EmbeddedPairs
from index.search.retriever import NEIGHBOURS
from library.adapter import Adapter
from library.checkpoint import Checkpointed
from library.errors import UsageError
from library.layout import Layout

ENTRY_POINTS = "lorasmith.generators"
NEEDS = frozenset({"description", "examples", "experts", "task", "base"})


@dataclass(frozen=True)
class Experts:
    """Library adapters near each of n conditions: k of them for each, nearest first.

    All are trained from one A, so that their factors can be averaged.

    Attributes:
        means: one `Adapter` of k rows for each condition: the mean of an expert's snapshots, or
            the expert itself where the library kept none.
        variances: variance of every entry of A and B over the snapshots, likewise; zero for none.
        similarities: cosines of their descriptions with the condition's.
    """

    means: Sequence[Adapter]
    variances: Sequence[Adapter]
    similarities: Float[Tensor, "n k"]


@dataclass(frozen=True)
class Condition:
    """Input of a generator for n adapters; a part that the generator does not need is None.

    Attributes:
        text: embedded descriptions; one without tokens is none.
        examples: embedded input/output pairs of each.
        experts: library adapters; while training, never the task's own.
        task: task vectors, from the base's hidden states.
        base: the loaded base model, for generators that read its weights; the same for all n.
        seed: of whatever the generator draws.
        phase: numbers from 0 to 1 for each of the n, or one for all: how far a generation has
            come, for bases that make their output in steps (generator.phases).
    """

    text: Embeddings | None = None
    examples: EmbeddedPairs | None = None
    experts: Experts | None = None
    task: Float[Tensor, "n d"] | None = None
    base: nn.Module | None = None
    seed: int = 0
    phase: Float[Tensor, "#n"] | None = None


class Generator(Checkpointed):
    """A network from conditions to adapters of one layout.

    Class attributes:
        kind: its name in requests, checkpoints and reports.
        Config: dataclass of its architecture.
        draws: whether another seed gives another adapter.

    Attributes:
        needs: parts of a condition that it reads, out of `NEEDS`. What its class says holds unless
            its architecture is for other parts.
        optional: parts that it reads where there are any, of the same names. One of them has to be
            there if it needs none.
        max_examples: number of pairs in a condition, if it reads them as they are.
        top_k: number of experts in a condition, if it needs experts, and
        floor: cosine of the nearest one below which requests are refused.
        phases: whether it needs the condition's phase.
    """

    needs: frozenset[str] = frozenset({"description"})
    optional: frozenset[str] = frozenset()
    draws: ClassVar[bool] = False
    layout: Layout
    max_examples: int = 0
    top_k: int = NEIGHBOURS
    floor: float = -1.0
    phases: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        unknown = (cls.needs | cls.optional) - NEEDS
        if unknown:
            raise TypeError(f"{cls.__name__}.needs holds {sorted(unknown)}, not of {sorted(NEEDS)}")

    @abstractmethod
    def forward(self, condition: Condition) -> Adapter:
        """n conditions to n adapters.

        Before training ΔW is exactly zero, or what the experts give without the network.
        """

    def measured(self, condition: Condition) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """As `forward`, with figures that training logs or penalises, by name; most have none."""
        return self(condition), {}

    def require_same_start(self, experts: Adapter) -> None:
        """Raise LayoutMismatch for experts from another A than in training, if that matters."""

    def prepare(self, adapters: Adapter, tasks: Float[Tensor, "m d"] | None = None) -> None:
        """Take what it needs of a training set before the first step; most need nothing.

        Args:
            adapters: all that it is trained on.
            tasks: their task vectors, if the data has any.
        """

    def posterior(
        self, condition: Condition, target: Adapter
    ) -> tuple[Adapter, dict[str, Float[Tensor, ""]]]:
        """The reconstruction of known adapters, and further terms of the loss by name.

        Latent-variable models override it (encode the target, decode a draw while training and the
        mean in eval mode, return KL in nats); for the others it is what `forward` gives, with no
        terms.
        """
        return self(condition), {}


def reads_examples(generator: Generator | type[Generator]) -> bool:
    """Whether a generator can make something of examples; of a class, whether one of it can."""
    return "examples" in generator.needs | generator.optional


def require_text(condition: Condition) -> Embeddings:
    """The condition's embedded descriptions. Raises UsageError if there are none."""
    if condition.text is None:
        raise UsageError("this generator needs descriptions")
    return condition.text


def require_phase(condition: Condition) -> Float[Tensor, "#n"]:
    """The condition's phase. Raises UsageError if there is none, or one outside [0, 1]."""
    if condition.phase is None:
        raise UsageError("this generator needs a phase, which requests for text do not have")
    if not bool(((condition.phase >= 0) & (condition.phase <= 1)).all()):
        raise UsageError("a phase lies in [0, 1]")
    return condition.phase


def require_loaded_base(condition: Condition) -> nn.Module:
    """The condition's base model. Raises UsageError if there is none."""
    if condition.base is None:
        raise UsageError("this generator needs the base model, whose weights it reads")
    return condition.base


def require_experts(condition: Condition) -> Experts:
    """The condition's experts. Raises UsageError if there are none."""
    if condition.experts is None:
        raise UsageError("this generator needs experts: adapters of a library")
    return condition.experts


@cache
def _load_all() -> None:
    """Import every generator of ours and of installed packages, so that they register."""
    import generator.models

    for module in pkgutil.iter_modules(generator.models.__path__, "generator.models."):
        importlib.import_module(module.name)
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


def registered() -> dict[str, type[Generator]]:
    """Every known generator class by name, sorted, whichever was imported first."""
    _load_all()
    kinds = sorted(Checkpointed.registry.items())
    return {name: cls for name, cls in kinds if issubclass(cls, Generator)}
