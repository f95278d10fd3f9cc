"""Gates over the library's adapters, which completions name as models: `route:NAME`."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from api.errors import NotFound
from api.service.settings import Settings
from generator.resources import Resources
from index.gate.experts import experts_of
from index.gate.forward import gated
from index.gate.learnt import Gate
from index.gate.prototypes import Prototypes, Scorer
from index.gate.systems import SYSTEMS, System, systems
from index.routing import embed_inputs
from index.search.retriever import Retriever
from library.adapter import Adapter, stack
from library.base.models import BaseReference
from library.checkpoint import load_checkpoint
from library.errors import AdapterFileError, LorasmithError, UsageError

ROUTE = "route:"
MOST_EXPERTS = 16  # adapters that a gate without training chooses among


@dataclass(frozen=True)
class GateHooks:
    """A gate's hooks for one answer, which put its experts together when its turn comes.

    Attributes:
        adapters: of one layout, as the library's reader keeps them.
        gate: a trained one; None for one that needs no training.
    """

    system: System
    adapters: Sequence[Adapter]
    gate: Gate | None
    device: str

    def __call__(self, model: nn.Module) -> AbstractContextManager[None]:
        return gated(model, self.scorer, self.system, self.experts)

    @cached_property
    def experts(self) -> Adapter:
        return experts_of(self.system, stack(self.adapters).to(self.device))

    @cached_property
    def scorer(self) -> Scorer:
        return Prototypes(self.system, self.experts) if self.gate is None else self.gate


class Gates:
    """The gates that need no training, and the trained ones that are configured.

    Args:
        settings: names the trained ones.
        resources: gives the library, once it is loaded.
    Raises:
        UsageError: a trained one has the name of one that needs no training.
        MissingPath, CheckpointError: a checkpoint cannot be used.
    """

    def __init__(self, settings: Settings, resources: Callable[[], Resources]) -> None:
        self._settings, self._resources = settings, resources
        untrained = systems(learnt=False)
        for name in settings.gates:
            if name in untrained:
                raise UsageError(f"setting gates: {name} is a gate that needs no training")
        self._trained = {n: load_checkpoint(f, Gate).module for n, f in settings.gates.items()}
        self.models = [f"{ROUTE}{name}" for name in (*untrained, *self._trained)]

    def base_name(self) -> str:
        """The first configured base that the library is for.

        Raises NotReady; UsageError, LayoutMismatch or UnsupportedModel if it is for none.
        """
        fit, settings = self._resources().library_fit, self._settings
        for name in settings.bases:
            with suppress(LorasmithError):  # another base's trouble
                if not fit.misfit(settings.base(name)):
                    return name
        fit.require(settings.base())
        return settings.default_base

    def find(self, model: str, text: str) -> tuple[BaseReference, GateHooks]:
        """The base and the hooks of a gate among `models`.

        Args:
            text: of the prompt; a gate that is not trained chooses among the adapters near to it.
        Raises:
            NotFound: there is no such gate, or an adapter that it needs is gone or damaged.
            UsageError: the library has too few adapters.
            NotReady, LayoutMismatch, UnsupportedModel: as `base_name`.
        """
        if model not in self.models:
            raise NotFound(f"there is no model '{model}'; gates are {', '.join(self.models)}")
        base, resources = self._settings.base(self.base_name()), self._resources()
        resources.follow()
        retriever, name = resources.retriever(base), model.removeprefix(ROUTE)
        gate = self._trained.get(name)
        if gate is None:
            system, adapters = SYSTEMS[name], _near(retriever, text, model)
        else:
            system, adapters = gate.system, _own(retriever, gate.to(resources.device), model)
        return base, GateHooks(system, adapters, gate, resources.device)


def _near(retriever: Retriever, text: str, model: str) -> list[Adapter]:
    """Of the adapters of the library's layout those with the nearest descriptions."""
    own = {record["id"] for record in retriever.experts}
    if len(own) < 2:
        raise UsageError("a gate chooses among two adapters or more, and the library has fewer")
    vector = embed_inputs(retriever.encoder, [text])[0]
    nearest = retriever.nearest(vector, MOST_EXPERTS, lambda record: record["id"] in own)
    return _read(retriever, (neighbour.id for neighbour in nearest), model)


def _own(retriever: Retriever, gate: Gate, model: str) -> list[Adapter]:
    """The adapters that a gate was trained on, in its order."""
    retriever.plan.layout.require_same(gate.layout, "the library", f"'{model}'")
    there = {record["id"] for record in retriever.experts}
    for identity in gate.config.adapters:
        if identity not in there:
            raise NotFound(f"'{model}' needs {identity}, which is not in the library")
    return _read(retriever, gate.config.adapters, model)


def _read(retriever: Retriever, identities: Iterable[str], model: str) -> list[Adapter]:
    """Adapters of the library, whose records may be there still while their files are not."""
    adapters: list[Adapter] = []
    for identity in identities:
        try:
            adapters.append(retriever.adapter(identity))
        except AdapterFileError as error:
            message = f"'{model}' needs {identity}, which the library has lost or holds damaged"
            raise NotFound(message) from error
    return adapters
