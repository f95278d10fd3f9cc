"""`auto`: chooses among the other strategies, and says why.

Without examples: the nearest adapter if it is near enough; else the multi-task adapter if the
instruction may stand in the prompt; else generate, else compose. With examples or inputs to train
on: the start that was measured to end best with examples. With examples and no training: the
multi-task adapter with them in its prompt, or with bare prompts whatever answers them best, of all
that generation and retrieval propose.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from generator.request import UNTRAINED, Query
from generator.strategies.base import Offer, Proposal, Strategy
from generator.strategies.calibration import strategy_calibration
from generator.strategies.fresh import Fresh
from generator.strategies.generated import Generated
from generator.strategies.multi_task import REASON, MultiTask, shown_examples
from generator.strategies.retrieved import Compose, Nearest
from library.base.example_loss import mean_losses
from library.base.models import BaseReference, numerics
from library.base.usage import BARE
from library.errors import LayoutMismatch, UsageError

MAX_EXAMPLES = 32  # more say little more
MAX_LENGTH = 1024  # tokens of an example
FRESH_REASON = "trained on the examples from nothing, which any base allows"
START_REASON = (
    "trained on the examples, from the adapter of all train tasks: measured to end best on average"
)
INPUTS_REASON = "trained on what the adapter of all train tasks answers, from that adapter"
BOTH_REASON = (
    "trained on the examples, and on what the adapter of all train tasks answers, from that adapter"
)


class Auto(Strategy):
    """The best of the others.

    Args:
        generated: generators; without examples, the first that is calibrated and fits is taken.
        nearest, compose: retrieval.
        multi_task, fresh: for prompted requests, and as starts.
    """

    name = "auto"
    uses_examples = True

    def __init__(
        self,
        generated: Sequence[Generated],
        nearest: Nearest,
        compose: Compose,
        multi_task: MultiTask,
        fresh: Fresh,
    ) -> None:
        self._generated = calibrated_first(generated)
        self._nearest, self._compose = nearest, compose
        self._multi_task, self._fresh = multi_task, fresh

    def unavailable(self, base: BaseReference) -> str:
        others = (*self._generated, self._compose, self._multi_task, self._fresh)
        if any(not strategy.unavailable(base) for strategy in others):
            return ""
        return _joined([strategy.unavailable(base) for strategy in self._generated])

    def offer(self, base: BaseReference) -> Offer | None:
        others = (*self._generated, self._multi_task, self._fresh)
        return next((offer for s in others if (offer := s.offer(base)) is not None), None)

    def propose(self, query: Query) -> Proposal:
        """Raises LayoutMismatch if nothing fits the base."""
        if query.request.refines:
            proposal = self._start(query)
        else:
            generates = [s for s in self._generated if not _miss(s, query)]
            proposal = self._untrained(query, generates)
        chosen = proposal.chosen
        details = {
            **proposal.details,
            "strategy": chosen.strategy,
            "reason": chosen.reason,
            "predicted_recovery": chosen.predicted_recovery,
            "calibration": strategy_calibration().digest,
        }
        return replace(proposal, details=details)

    def _untrained(self, query: Query, generates: Sequence[Strategy]) -> Proposal:
        """The proposal where nothing is trained."""
        if query.request.examples:
            if self._shows(query):
                return self._multi_task.propose(query)
            self._require_any(query, generates)
            return self._by_examples(query, generates)
        strategy, reason = self.by_description(query, generates)
        return _because(strategy.propose(query), reason)

    def _shows(self, query: Query) -> bool:
        """Whether the examples can stand in the prompt of the multi-task adapter."""
        described = query.request.description is not None and query.request.mode != "bare"
        fits = described and bool(shown_examples(query.request))
        return fits and not self._multi_task.unavailable(query.base)

    def by_description(self, query: Query, generates: Sequence[Strategy]) -> tuple[Strategy, str]:
        """Strategy and reason where nothing but the description is known.

        Args:
            generates: the generators that fit base and description.
        """
        if query.neighbours:
            task, similarity = query.neighbours[0].task, query.neighbours[0].similarity
            threshold = strategy_calibration().nearest_from
            near = f"the nearest task of the library, {task} (similarity {similarity:.2f}),"
            if similarity >= threshold:
                return self._nearest, f"{near} reaches the calibrated {threshold:.4g}"
            near = f"{near} is below the calibrated {threshold:.4g}"
        else:
            near = (
                "no library holds an adapter for this base model"
                if self._nearest.unavailable(query.base)
                else "the library holds no other adapter for this base model"
            )
        if query.request.mode != "bare" and not self._multi_task.unavailable(query.base):
            return self._multi_task, f"{near}; {REASON}"
        self._require_any(query, generates)
        if generates:
            return generates[0], near
        return self._compose, f"{near}, and the checkpoint does not fit: {self._misses(query)}"

    def _start(self, query: Query) -> Proposal:
        """The start of a training on the examples, and the prompt that it is for."""
        if query.request.description is None or self._multi_task.unavailable(query.base):
            return _because(self._fresh.propose(query), FRESH_REASON)
        reason = BOTH_REASON if query.request.examples else INPUTS_REASON
        reason = reason if query.request.taught else START_REASON
        return _because(self._multi_task.propose(query), reason)

    def _require_any(self, query: Query, generates: Sequence[Strategy]) -> None:
        """Raise UsageError or LayoutMismatch unless there is a generator or a neighbour."""
        if query.request.description is None and not generates:
            raise UsageError(UNTRAINED)
        if not generates and not query.neighbours:
            nothing = self._nearest.unavailable(query.base) or "the library holds nothing for it"
            raise LayoutMismatch(
                f"{self._misses(query)}; nor can a library help: {nothing}; "
                "examples would, by training on them"
            )

    def _by_examples(self, query: Query, generates: Sequence[Strategy]) -> Proposal:
        """The candidate with the least loss on the examples.

        Generators that read examples go by the description alone, where there is one: an adapter
        made from the examples would be judged on what it has seen.
        """
        blind = query if query.request.description is None else query.without_examples()
        retrieved = [self._compose, self._nearest] if query.neighbours else []
        candidates = [
            *(c for s in generates for c in s.candidates(blind)),
            *(c for s in retrieved for c in s.candidates(query)),
        ]
        labels, proposals = zip(*candidates, strict=True)
        base = query.model
        # The weights that the files would hold.
        stored = [p.adapter.to("cpu", torch.bfloat16) for p in proposals]
        examples = query.request.examples[:MAX_EXAMPLES]
        losses, count = mean_losses(base, stored, examples, MAX_LENGTH)
        best = min(range(len(losses)), key=losses.__getitem__)
        compared = ", ".join(f"{k} {loss:.2f}" for k, loss in zip(labels, losses, strict=True))
        reason = f"it has the least loss a token on {count} examples of these: {compared}"
        proposal = _because(proposals[best], reason)
        if query.request.mode == "best":
            proposal = replace(proposal, usage=BARE)  # as it was measured
        return replace(
            proposal, tried_in=numerics(base.model), losses=[*zip(labels, losses, strict=True)]
        )

    def _misses(self, query: Query) -> str:
        """The reason why no generator can answer a query."""
        return _joined([_miss(strategy, query) for strategy in self._generated])


def calibrated_first(generated: Iterable[Generated]) -> list[Generated]:
    """Generators in the order in which `auto` takes them: those that are calibrated, the others."""
    calibrated = strategy_calibration().recovery
    return sorted(generated, key=lambda strategy: strategy.name not in calibrated)


def _miss(strategy: Strategy, query: Query) -> str:
    """The reason why a strategy cannot answer a query; empty if it can."""
    return strategy.unavailable(query.base) or strategy.refusal(query)


def _joined(reasons: Sequence[str]) -> str:
    return "; ".join(reasons) or "there is no checkpoint to generate with"


def _because(proposal: Proposal, reason: str) -> Proposal:
    return replace(proposal, chosen=replace(proposal.chosen, reason=reason))
