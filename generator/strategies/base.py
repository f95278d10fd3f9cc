"""The strategy interface: a query in, a proposal out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from generator.refine.refine import Refined
from generator.request import Query, Request
from generator.strategies.calibration import strategy_calibration
from generator.strategies.evidence import Evidence
from index.search.retriever import Neighbour
from library.adapter import Adapter
from library.base.models import BaseReference
from library.base.prompts import Mode
from library.base.usage import BARE, Usage
from library.errors import UsageError
from library.layout import Layout

ASKED_FOR = "the only strategy asked for"


class NothingNear(UsageError):
    """A description that no adapter of the library is near enough to."""

    code = "invalid-description"
    exit_code = 1  # the library had to be searched to know it


@dataclass(frozen=True)
class Chosen:
    """The strategy that made an adapter, and the reason for it.

    Attributes:
        strategy: its name.
        reason: one sentence.
        neighbours: the library's adapters nearest to the description, nearest first.
        predicted_recovery: share of an oracle's gain over the base that calibration leads to
            expect; None where nothing was calibrated.
    """

    strategy: str
    reason: str
    neighbours: Sequence[Neighbour] = ()
    predicted_recovery: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "neighbours": [n.to_dict() for n in self.neighbours]}


@dataclass(frozen=True)
class Proposal:
    """An adapter and where it comes from, before rank, strength and profile of the request.

    Attributes:
        adapter: one adapter.
        chosen: strategy and reason.
        usage: the prompt that it is for.
        checkpoint: digest of the checkpoint that generated it, or None.
        parents: ids of the library's adapters that it was made from, or None.
        details: further members of provenance's `details`.
        tried_in: numerics of the base whose answers or states decided, if any did.
        losses: every candidate and its mean loss a token on the examples, if they decided.
        saw_examples: whether the adapter was made from the request's examples, without training.
        instructed: whether it was trained to follow the instruction that the usage's prompt holds.
        refined: what its training on the request's examples gave, if there was any.
    """

    adapter: Adapter
    chosen: Chosen
    usage: Usage
    checkpoint: str | None = None
    parents: list[str] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    tried_in: str | None = None
    losses: Sequence[tuple[str, float]] = ()
    saw_examples: bool = False
    instructed: bool = False
    refined: Refined | None = None


@dataclass(frozen=True)
class Offer:
    """What a strategy has for a base model, as `GET /v1/generators` lists it."""

    checkpoint: str | None
    base_model: str
    layout: Layout


class Strategy(ABC):
    """A way to answer queries. Raises of its methods: UsageError, LayoutMismatch, UnsupportedModel.

    Attributes:
        name: in requests and reports.
        uses_examples: whether it can use a request's examples without training on them.
        best: the mode in which its adapters were measured to answer better.
    """

    name: str
    uses_examples: bool = False
    best: Mode = "prompted"

    @abstractmethod
    def unavailable(self, base: BaseReference) -> str:
        """The reason why it cannot serve a base; empty if it can."""

    def refusal(self, query: Query) -> str:
        """The reason why it refuses a query, for a base that it can serve; empty if it does not."""
        return ""

    @abstractmethod
    def propose(self, query: Query) -> Proposal:
        """An adapter for a query."""

    @abstractmethod
    def offer(self, base: BaseReference) -> Offer | None:
        """What it has for a base; None if nothing."""

    def evidence(self, base: BaseReference) -> Evidence:
        """What is known of its checkpoint for a base; nothing without. Raises CheckpointError."""
        return Evidence()

    def candidates(self, query: Query) -> list[tuple[str, Proposal]]:
        """Proposals to be compared on a query's examples, each with a label."""
        return [(self.name, self.propose(query))]

    def usage(self, request: Request) -> Usage:
        """The prompt of its adapters, in the mode that was asked for. Raises UsageError.

        Bare where a teacher answers inputs: the adapter learns to do without the description.
        """
        if request.taught:
            return BARE
        if request.mode != "best":
            return Usage.of(request.mode, request.description)
        return Usage.of(self.best if request.description else "bare", request.description)

    def chosen(self, query: Query, similarity: float | None) -> Chosen:
        """This strategy as it was asked for, with the recovery to expect at a similarity."""
        predicted = strategy_calibration().predicted(self.name, similarity)
        return Chosen(self.name, ASKED_FOR, query.neighbours, predicted)
