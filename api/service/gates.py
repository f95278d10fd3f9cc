"""Gates over the library's adapters, which completions name as models: `route:NAME`."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from api.errors import NotFound
from api.service.settings import Settings
from generator.resources import Resources
from index.gate.experts import experts_of
from index.gate.forward import gated
from index.gate.learnt import Gate
from index.gate.prototypes import Prototypes
from index.gate.systems import SYSTEMS, systems
from index.routing import embed_inputs
from index.search.retriever import Retriever
from library.adapter import Adapter, stack
from library.base.joint_completion import Hooks
from library.base.models import BaseReference
from library.checkpoint import load_checkpoint
from library.errors import AdapterFileError, LorasmithError, UsageError

ROUTE = "route:"
MOST_EXPERTS = 16  # adapters that a gate without training chooses among


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

    def find(self, model: str, text: str) -> tuple[BaseReference, Hooks]:
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
            system, adapters = SYSTEMS[name], _near(retriever, text, model).to(resources.device)
            scorer, experts = Prototypes(system, adapters), adapters
        else:
            adapters = _own(retriever, gate, model).to(resources.device)
            system, experts = gate.system, experts_of(gate.system, adapters)
            scorer = gate.to(resources.device)
        return base, partial(gated, gate=scorer, system=system, experts=experts)


def _near(retriever: Retriever, text: str, model: str) -> Adapter:
    """Of the adapters of the library's layout those with the nearest descriptions."""
    own = {record["id"] for record in retriever.experts}
    if len(own) < 2:
        raise UsageError("a gate chooses among two adapters or more, and the library has fewer")
    vector = embed_inputs(retriever.encoder, [text])[0]
    nearest = retriever.nearest(vector, MOST_EXPERTS, lambda record: record["id"] in own)
    return _read(retriever, (neighbour.id for neighbour in nearest), model)


def _own(retriever: Retriever, gate: Gate, model: str) -> Adapter:
    """The adapters that a gate was trained on, in its order."""
    retriever.plan.layout.require_same(gate.layout, "the library", f"'{model}'")
    there = {record["id"] for record in retriever.experts}
    for identity in gate.config.adapters:
        if identity not in there:
            raise NotFound(f"'{model}' needs {identity}, which is not in the library")
    return _read(retriever, gate.config.adapters, model)


def _read(retriever: Retriever, identities: Iterable[str], model: str) -> Adapter:
    """Adapters of the library, whose records may be there still while their files are not."""
    adapters: list[Adapter] = []
    for identity in identities:
        try:
            adapters.append(retriever.adapter(identity))
        except AdapterFileError as error:
            message = f"'{model}' needs {identity}, which the library has lost or holds damaged"
            raise NotFound(message) from error
    return stack(adapters)
