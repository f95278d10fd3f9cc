"""Multi-task: one adapter for all train tasks; the instruction in the prompt says which it is."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pretrained
from generator.refine.teacher import Teacher
from generator.request import ONLY_EXAMPLES, Query, Request
from generator.strategies.base import Offer, Proposal, Strategy
from generator.strategies.evidence import Evidence, shipped_evidence
from generator.strategies.stored import StoredAdapter, to_read
from library.base.models import BaseReference
from library.base.prompts import Mode, with_examples
from library.base.usage import Usage
from library.errors import BaseModelError, LayoutMismatch, UsageError
from library.files import require_present
from library.tasks.files import Example

REASON = (
    "it reads the instruction in its prompt, and its weights are the same for every description"
)


SHOWN = 5  # examples in a prompt: more answered no better (docs/strategies.md)
SHOWN_CHARACTERS = 2000  # of them together, inputs and answers
TOO_LONG = f"every example is longer than the {SHOWN_CHARACTERS:,} characters that a prompt shows"

SHIPPED = ("multi-task", "multi-task-qwen2.5-coder-0.5b")  # the default base's is first


def shipped_multi_tasks() -> list[Path]:
    """Folders of the adapters that ship, each for its base; an installation may lack them."""
    return [pretrained.folder(name) for name in SHIPPED]


class MultiTask(Strategy):
    """Stored adapters that were each trained on many tasks, with the instruction in the prompt.

    Args:
        folders: of the adapters, at least one; the first that is for a base serves it.
    """

    name = "multi-task"
    uses_examples = True
    best: Mode = "prompted"

    def __init__(self, *folders: Path) -> None:
        self._stored = [StoredAdapter(folder, self.name) for folder in folders]

    def _serving(self, base: BaseReference) -> StoredAdapter | None:
        """The first adapter that is for a base; those behind it are not read."""
        return next((stored for stored in self._stored if not stored.unavailable(base)), None)

    def stored(self, base: BaseReference) -> StoredAdapter:
        """The adapter that serves a base. Raises LayoutMismatch if none does."""
        serving = self._serving(base)
        if serving is None:
            raise LayoutMismatch(self.unavailable(base))
        return serving

    def unavailable(self, base: BaseReference) -> str:
        if self._serving(base) is not None:
            return ""
        present = [stored for stored in self._stored if stored.folder.exists()]
        reasons = [stored.unavailable(base) for stored in present or self._stored[:1]]
        return reasons[0] if len(reasons) == 1 else f"no multi-task adapter is for {base.name}"

    def offer(self, base: BaseReference) -> Offer | None:
        if self.unavailable(base):
            return None
        stored = self.stored(base)
        return Offer(stored.weights_digest, base.name, stored.layout)

    def evidence(self, base: BaseReference) -> Evidence:
        if self.unavailable(base):
            return Evidence()
        stored = self.stored(base)
        known, count = stored.weights_digest, stored.tasks_seen
        found = [shipped_evidence(name, known, count) for name in SHIPPED]
        return next((one for one in found if one.held_out is not None), found[0])

    def propose(self, query: Query) -> Proposal:
        """Examples that it is not to train on stand in its prompt, as many as fit there.

        Raises UsageError for bare prompts, or no description, without training; LayoutMismatch.
        """
        request, stored = query.request, self.stored(query.base)
        adapter, usage = stored.adapter_for(query.base), self.usage(request)
        chosen, shown = self.chosen(query, None), shown_examples(request)
        if shown:
            count = f"{len(shown)} of {len(request.examples)} examples"
            chosen = replace(chosen, reason=f"its prompt shows {count}; {REASON}")
        return Proposal(
            adapter,
            chosen,
            usage,
            checkpoint=stored.weights_digest,
            saw_examples=bool(shown),
            instructed=usage.mode == "prompted",
        )

    def usage(self, request: Request) -> Usage:
        if request.mode == "bare" and not request.refines:
            raise UsageError(f"{self.name} needs its instruction in the prompt: mode bare is none")
        if request.refines or not request.examples:
            return super().usage(request)
        if request.description is None:
            raise UsageError(ONLY_EXAMPLES)
        shown = [(example.input, example.output) for example in shown_examples(request)]
        if not shown:
            raise UsageError(TOO_LONG)
        return Usage.of("prompted", with_examples(request.description, shown))

    def teacher(self, description: str | None, base: BaseReference) -> Teacher:
        """A base's adapter as a teacher, which reads a description and answers inputs.

        Raises UsageError without a description, LayoutMismatch if there is none for the base.
        """
        task = to_read(description, self.unavailable(base), "answer the inputs")
        stored, usage = self.stored(base), Usage.of("prompted", task)
        return Teacher(stored.adapter_for(base), stored.weights_digest, usage)


def shown_examples(request: Request) -> list[Example]:
    """Examples that are not trained on and fit into the prompt, the first ones before others."""
    shown, left = list[Example](), SHOWN_CHARACTERS
    for example in () if request.refines else request.examples:
        size = len(example.input) + len(example.output)
        if size <= left and len(shown) < SHOWN:
            shown.append(example)
            left -= size
    return shown


def require_serving(folders: Sequence[Path], bases: Sequence[BaseReference]) -> None:
    """Raise unless every multi-task adapter can be read and is for one of the bases.

    Raises MissingPath, AdapterFileError; LayoutMismatch for one that is for none.
    """
    require_present(*folders)
    for folder in folders:
        stored = StoredAdapter(folder, MultiTask.name)
        _ = stored.layout  # of weights that are damaged, too
        reasons = [*takewhile(bool, (_misfit(stored, base) for base in bases))]
        if len(reasons) == len(bases):
            told = "; ".join(reasons) or "there is no base model"
            raise LayoutMismatch(f"{folder} is of no use: {told}")


def _misfit(stored: StoredAdapter, base: BaseReference) -> str:
    """The reason why an adapter is not known to be for a base; empty if it is."""
    try:
        return stored.unavailable(base)
    except BaseModelError as error:  # as of a Hub base that cannot be reached
        return str(error)
