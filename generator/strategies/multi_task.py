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


class MultiTask(StoredAdapter, Strategy):
    """A stored adapter that was trained on many tasks, each with its instruction in the prompt.

    Args:
        folder: of the adapter.
    """

    name = "multi-task"
    best: Mode = "prompted"

    def offer(self, base: BaseReference) -> Offer | None:
        if self.unavailable(base):
            return None
        return Offer(self.weights_digest, base.name, self._stored.layout)

    def evidence(self) -> Evidence:
        if not self._folder.is_dir():
            return Evidence()
        tasks = self.trained_on
        return shipped_evidence(
            self.name, self.weights_digest, None if tasks is None else len(tasks)
        )

    def propose(self, query: Query) -> Proposal:
        """Raises UsageError for bare prompts without training; LayoutMismatch."""
        request = query.request
        missing = self.unavailable(query.base)
        if missing:
            raise LayoutMismatch(missing)
        adapter, usage = self.adapter_for(query.base), self.usage(request)
        return Proposal(
            adapter,
            self.chosen(query, None),
            usage,
            checkpoint=self.weights_digest,
            instructed=usage.mode == "prompted",
        )

    def usage(self, request: Request) -> Usage:
        if request.mode == "bare" and not request.refines:
            raise UsageError(f"{self.name} needs its instruction in the prompt: mode bare is none")
        return super().usage(request)

    def teacher(self, description: str | None, base: BaseReference) -> Teacher:
        """The adapter as a teacher, which reads a description and answers inputs.

        Raises UsageError without a description, LayoutMismatch if there is none for the base.
        """
        usage = Usage.of("prompted", self.required(description, base, "answer the inputs"))
        return Teacher(self.adapter_for(base), self.weights_digest, usage)
