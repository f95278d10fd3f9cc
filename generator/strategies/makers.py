"""The three strategies that make an adapter: generate it, take the nearest, sum the nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from generator.generate import TEXT_TO_LORA, Generator
from generator.request import Chosen, Proposal
from generator.strategies.calibration import strategy_calibration
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from index.merge.weighted_sum import weighted_sum
from index.search.retriever import NEIGHBOURS, Neighbour, Retriever, softmax_weights
from library.base.models import BaseReference
from library.errors import LayoutMismatch, LorasmithError, UnsupportedModel, UsageError
from library.store.folder import LibraryFolder

NEAREST, COMPOSE = "nearest", "compose"
MISFIT = (LayoutMismatch, UnsupportedModel, UsageError)  # what does not fit a base raises one


@dataclass(frozen=True)
class Wish:
    """A description for a base, and what of the library is near it, nearest first."""

    description: str
    base: BaseReference
    neighbours: Sequence[Neighbour]


class Makers:
    """A checkpoint and a library, loaded once and used for many wishes and bases.

    Args:
        generator: None where there is no checkpoint.
        library: None where there is no library.
        device: where the description encoder runs.
    """

    def __init__(
        self, generator: Generator | None, library: LibraryFolder | None, device: str
    ) -> None:
        self.generator, self.library, self.device = generator, library, device
        self._shelves: dict[BaseReference, Retriever | LorasmithError] = {}

    @cached_property
    def encoder(self) -> DescriptionEncoder:
        """Of descriptions, for retrieval; the generator's own if that is the same."""
        if self.generator and self.generator.checkpoint.info.encoder == DEFAULT_ENCODER:
            return self.generator.encoder
        return DescriptionEncoder(device=self.device)

    def shelf(self, base: BaseReference) -> Retriever:
        """The library for a base.

        Raises UsageError if there is none, LayoutMismatch or UnsupportedModel if it does not fit.
        """
        if self.library is None:
            raise UsageError("there is no library to take adapters from")
        if base not in self._shelves:
            try:
                self._shelves[base] = Retriever(self.library, base, self.encoder)
            except MISFIT as error:
                self._shelves[base] = error
        found = self._shelves[base]
        if isinstance(found, LorasmithError):
            raise found.with_traceback(None)  # else it grows with every request
        return found

    def wish(self, description: str, base: BaseReference, without: str = "") -> Wish:
        """Look up what is near a description, leaving out the adapters of the task `without`."""
        if self.misfit(base):
            return Wish(description, base, ())
        near = self.shelf(base).nearest(
            description, NEIGHBOURS, lambda record: record["task"] != without
        )
        return Wish(description, base, near)

    def misfit(self, base: BaseReference) -> str:
        """Why the library is of no use for a base; empty if it is."""
        try:
            self.shelf(base)
        except MISFIT as error:
            return str(error)
        return ""

    def make(self, strategy: str, wish: Wish, reason: str) -> Proposal:
        """An adapter by one of the three. Raises UsageError, LayoutMismatch, UnsupportedModel."""
        make = {TEXT_TO_LORA: self._generated, NEAREST: self.nearest, COMPOSE: self._composed}
        return make[strategy](wish, reason)

    def cannot_generate(self, base: BaseReference) -> str:
        """Why the checkpoint is of no use for a base; empty if it is."""
        if self.generator is None:
            return "there is no checkpoint to generate with"
        try:
            self.generator.require_fit(base)
        except MISFIT as error:
            return str(error)
        return ""

    def nearest(self, wish: Wish, reason: str, place: int = 0) -> Proposal:
        """The adapter whose description is nearest, or next in `place`, as it is."""
        shelf = self._needed(wish)
        near = wish.neighbours[place]
        chosen = _chosen(NEAREST, reason, wish, near.similarity)
        return Proposal(shelf.adapter(near.id), chosen, parents=[near.id])

    def _generated(self, wish: Wish, reason: str) -> Proposal:
        if self.generator is None:
            raise UsageError("there is no checkpoint to generate with")
        self.generator.require_fit(wish.base)
        similarity = wish.neighbours[0].similarity if wish.neighbours else None
        return self.generator.proposal(
            wish.description,
            self.generator.adapters([wish.description]),
            _chosen(TEXT_TO_LORA, reason, wish, similarity),
        )

    def _composed(self, wish: Wish, reason: str) -> Proposal:
        """Softmax-weighted sum of the nearest, exact in ΔW, at the sum of their ranks."""
        shelf, weights = self._needed(wish), softmax_weights(wish.neighbours)
        parts = [shelf.adapter(near.id).to(dtype=torch.float64) for near in wish.neighbours]
        return Proposal(
            weighted_sum(parts, weights),
            _chosen(COMPOSE, reason, wish, wish.neighbours[0].similarity),
            parents=[near.id for near in wish.neighbours],
            details={"weights": [round(weight, 9) for weight in weights]},
        )

    def _needed(self, wish: Wish) -> Retriever:
        """The shelf, with something on it. Raises as `shelf` does."""
        shelf = self.shelf(wish.base)
        if not wish.neighbours:
            raise UsageError(f"{shelf.folder.place} holds no adapter for '{wish.base.name}'")
        return shelf


def _chosen(strategy: str, reason: str, wish: Wish, similarity: float | None) -> Chosen:
    predicted = strategy_calibration().predicted(strategy, similarity)
    return Chosen(strategy, reason, wish.neighbours, predicted)
