"""Fresh: an adapter that changes nothing yet, to be trained on examples. Serves any base."""

from generator.request import Query
from generator.strategies.base import Offer, Proposal, Strategy
from library.adapter import Adapter
from library.base.models import BaseReference, load_config
from library.errors import BaseModelError, UnsupportedModel, UsageError
from library.layout import Layout, layout_of
from library.trainer.optimiser import shared_start

RANK = 8


class Fresh(Strategy):
    """An untrained adapter: A as PEFT draws it, by the request's seed, and B zero."""

    name = "fresh"

    def unavailable(self, base: BaseReference) -> str:
        try:
            _layout(base)
        except (BaseModelError, UnsupportedModel) as error:
            return str(error)
        return ""

    def offer(self, base: BaseReference) -> Offer | None:
        return None if self.unavailable(base) else Offer(None, base.name, _layout(base))

    def propose(self, query: Query) -> Proposal:
        """Raises UsageError unless there are rows to train it on; UnsupportedModel."""
        request = query.request
        if not request.refines:
            raise UsageError(f"{self.name} needs examples to train on")
        start = fresh_start(query.base, request.seed)
        return Proposal(start, self.chosen(query, None), self.usage(request))


def fresh_start(base: BaseReference, seed: int) -> Adapter:
    """An untrained adapter for a base's default modules.

    Raises BaseModelError, UnsupportedModel.
    """
    return shared_start(_layout(base), seed)


def _layout(base: BaseReference) -> Layout:
    """The base's default modules. Raises BaseModelError, UnsupportedModel."""
    return layout_of(load_config(base), rank=RANK)
