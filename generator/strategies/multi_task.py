"""Multi-task: one adapter for all train tasks; the instruction in the prompt says which it is."""

from pathlib import Path

import pretrained
from generator.refine.teacher import Teacher
from generator.request import Query, Request
from generator.strategies.base import Offer, Proposal, Strategy
from generator.strategies.evidence import Evidence, shipped_evidence
from generator.strategies.stored import StoredAdapter
from library.base.models import BaseReference
from library.base.prompts import Mode
from library.base.usage import Usage
from library.errors import LayoutMismatch, UsageError

REASON = (
    "it reads the instruction in its prompt, and its weights are the same for every description"
)


def shipped_multi_task() -> Path:
    """The folder of the adapter that ships; an installation may lack it."""
    return pretrained.folder(MultiTask.name)


class MultiTask(Strategy):
    """Stored adapters that were each trained on many tasks, with the instruction in the prompt.

    Args:
        folders: of the adapters, at least one; the first that is for a base serves it.
    """

    name = "multi-task"
    best: Mode = "prompted"

    def __init__(self, *folders: Path) -> None:
        self._stored = [StoredAdapter(folder, self.name) for folder in folders]

    def stored(self, base: BaseReference) -> StoredAdapter:
        """The adapter that serves a base; where none does, the first, which says why not."""
        serving = (stored for stored in self._stored if not stored.unavailable(base))
        return next(serving, self._stored[0])

    def unavailable(self, base: BaseReference) -> str:
        return self.stored(base).unavailable(base)

    def offer(self, base: BaseReference) -> Offer | None:
        stored = self.stored(base)
        if stored.unavailable(base):
            return None
        return Offer(stored.weights_digest, base.name, stored.layout)

    def evidence(self, base: BaseReference) -> Evidence:
        stored = self.stored(base)
        if stored.unavailable(base):
            return Evidence()
        tasks = stored.trained_on
        return shipped_evidence(
            self.name, stored.weights_digest, None if tasks is None else len(tasks)
        )

    def propose(self, query: Query) -> Proposal:
        """Raises UsageError for bare prompts without training; LayoutMismatch."""
        request, stored = query.request, self.stored(query.base)
        missing = stored.unavailable(query.base)
        if missing:
            raise LayoutMismatch(missing)
        adapter, usage = stored.adapter_for(query.base), self.usage(request)
        return Proposal(
            adapter,
            self.chosen(query, None),
            usage,
            checkpoint=stored.weights_digest,
            instructed=usage.mode == "prompted",
        )

    def usage(self, request: Request) -> Usage:
        if request.mode == "bare" and not request.refines:
            raise UsageError(f"{self.name} needs its instruction in the prompt: mode bare is none")
        return super().usage(request)

    def teacher(self, description: str | None, base: BaseReference) -> Teacher:
        """A base's adapter as a teacher, which reads a description and answers inputs.

        Raises UsageError without a description, LayoutMismatch if there is none for the base.
        """
        stored = self.stored(base)
        usage = Usage.of("prompted", stored.required(description, base, "answer the inputs"))
        return Teacher(stored.adapter_for(base), stored.weights_digest, usage)
