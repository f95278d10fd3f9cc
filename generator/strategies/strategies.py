"""The one door to every strategy that turns a request into an adapter.

`text-to-lora` generates, `nearest` takes the adapter whose description is nearest, `compose` sums
the nearest ones, and `auto` chooses among these. A request is answered by itself, so its bytes do
not depend on what else is asked for.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from generator.generate import ASKED_FOR, TEXT_TO_LORA, Generator, served_numerics
from generator.request import Generated, Proposal, Request, finished
from generator.strategies.auto import choose
from generator.strategies.makers import COMPOSE, NEAREST, Makers
from index.encoders.descriptions import DescriptionEncoder
from index.search.retriever import Retriever
from library.base.models import BaseModel, BaseReference, described, load_base
from library.errors import UnknownName, UsageError
from library.store.folder import LibraryFolder
from library.tasks.files import Example

AUTO = "auto"
GENERATORS = (AUTO, TEXT_TO_LORA, NEAREST, COMPOSE)
DEFAULT_GENERATOR = AUTO
FROM_CHECKPOINT = (AUTO, TEXT_TO_LORA)
WITH_EXAMPLES = (AUTO,)


def require_known(name: str, *, examples: bool = False) -> None:
    """Raise UnknownName, or UsageError if there are examples and it cannot use them."""
    if name not in GENERATORS:
        raise UnknownName(f"unknown generator '{name}'; known: {', '.join(GENERATORS)}")
    if examples and name not in WITH_EXAMPLES:
        raise UsageError(f"{name} cannot use examples: it reads the description alone")


class Strategies:
    """A checkpoint and a library, loaded once and used for many requests and bases.

    Args:
        generator: None where there is no checkpoint.
        library: None where there is no library.
        device: where the description encoder and a base on trial run.
        load: how a base is loaded, when examples are to be answered.
    """

    def __init__(
        self,
        generator: Generator | None,
        library: LibraryFolder | None = None,
        *,
        device: str = "cpu",
        load: Callable[[BaseReference], BaseModel] | None = None,
    ) -> None:
        self.device = device
        self._makers = Makers(generator, library, device)
        self._load = load or (lambda base: load_base(base, device=device))
        self._bases: dict[BaseReference, BaseModel] = {}
        self._loading = threading.Lock()
        self._about: dict[BaseReference, dict[str, Any]] = {}

    @property
    def generator(self) -> Generator | None:
        return self._makers.generator

    @property
    def encoder(self) -> DescriptionEncoder:
        """What descriptions are compared in."""
        return self._makers.encoder

    def shelf(self, base: BaseReference) -> Retriever:
        """The library for a base. Raises UsageError, LayoutMismatch, UnsupportedModel."""
        return self._makers.shelf(base)

    def has_library(self, base: BaseReference) -> bool:
        """Whether there is a library that fits a base."""
        return self._makers.misfit(base) == ""

    def base(self, reference: BaseReference) -> BaseModel:
        """A base, loaded at the first call."""
        with self._loading:
            if reference not in self._bases:
                self._bases[reference] = self._load(reference)
            return self._bases[reference]

    def generate(
        self, name: str, requests: Sequence[Request], base: BaseReference
    ) -> list[Generated]:
        """Finished adapters for requests, all for one base. Raises as `propose` does."""
        made = [self.propose(name, r.description, base, r.examples) for r in requests]
        if base not in self._about:
            self._about[base] = described(base)
        about = self._about[base]
        numerics = served_numerics(self.device)
        return [
            finished(request, proposal, generator=name, base=about, numerics=numerics)
            for request, proposal in zip(requests, made, strict=True)
        ]

    def propose(
        self,
        name: str,
        description: str,
        base: BaseReference,
        examples: Sequence[Example] = (),
        *,
        without: str = "",
    ) -> Proposal:
        """An adapter for a normalised description.

        Args:
            name: of a strategy.
            examples: of the task; `auto` tries its candidates on them.
            without: a task whose own adapters are left out of retrieval.
        Raises:
            UnknownName: there is no such strategy.
            UsageError: it cannot use examples, or needs what there is none of.
            LayoutMismatch, UnsupportedModel: checkpoint or library do not fit the base.
        """
        require_known(name, examples=bool(examples))
        wish = self._makers.wish(description, base, without)
        if name == AUTO:
            return choose(self._makers, wish, examples, self.base)
        return self._makers.make(name, wish, ASKED_FOR)
