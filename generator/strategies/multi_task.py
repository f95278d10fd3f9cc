"""Multi-task: one adapter for all train tasks; the instruction in the prompt says which it is."""

import json
from functools import cached_property
from pathlib import Path

import pretrained
from generator.refine.limits import UNDESCRIBED
from generator.refine.teacher import Teacher
from generator.request import Query, Request
from generator.resources import Fit
from generator.strategies.base import Offer, Proposal, Strategy
from generator.strategies.evidence import Evidence, shipped_evidence
from library.adapter import Adapter
from library.base.models import BaseReference, base_layout, described, of_one_base, same_base
from library.base.prompts import Mode
from library.base.usage import Usage
from library.canonical import digest
from library.errors import LayoutMismatch, UsageError
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

REASON = (
    "it reads the instruction in its prompt, and its weights are the same for every description"
)


def shipped_multi_task() -> Path:
    """The folder of the adapter that ships; an installation may lack it."""
    return pretrained.folder(MultiTask.name)


class MultiTask(Strategy):
    """A stored adapter that was trained on many tasks, each with its instruction in the prompt.

    Args:
        folder: of the adapter; it is read when it is first needed.
    """

    name = "multi-task"
    best: Mode = "prompted"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fit = Fit(self._require_same_base)
        self._adapted: dict[BaseReference, Adapter] = {}

    def unavailable(self, base: BaseReference) -> str:
        if not self._folder.is_dir():
            return "this installation has no multi-task adapter"
        return self._fit.misfit(base)

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

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of its weights' file."""
        return digest(self._files[WEIGHTS_FILE])

    @property
    def trained_on(self) -> list[str] | None:
        """Names of its training tasks; None if its provenance does not say."""
        provenance = json.loads(self._files.get(PROVENANCE_FILE, b"{}"))
        return (provenance.get("details") or {}).get("tasks")

    def teacher(self, description: str | None, base: BaseReference) -> Teacher:
        """The adapter as a teacher, which reads a description and answers inputs.

        Raises UsageError without a description, LayoutMismatch if there is none for the base.
        """
        if description is None:
            raise UsageError(UNDESCRIBED)
        missing = self.unavailable(base)
        if missing:
            raise LayoutMismatch(f"nothing can answer the inputs: {missing}")
        return Teacher(
            self.adapter_for(base), self.weights_digest, Usage.of("prompted", description)
        )

    def adapter_for(self, base: BaseReference) -> Adapter:
        """The adapter in the order of a base's layout, read once.

        Raises LayoutMismatch, UnsupportedModel: it is not for this base.
        """
        self._fit.require(base)
        if base not in self._adapted:
            layout = base_layout(base, self._stored.layout)
            self._adapted[base] = adapter_of(self._files, layout)
        return self._adapted[base]

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return read_adapter_folder(self._folder)

    @cached_property
    def _stored(self) -> Adapter:
        return adapter_of(self._files)

    def _require_same_base(self, base: BaseReference) -> None:
        """By name; else by modules and then, as hashing a large base takes seconds, by weights."""
        named = json.loads(self._files[CONFIG_FILE])["base_model_name_or_path"]
        if same_base(named, base.name):
            return
        made_for = json.loads(self._files.get(PROVENANCE_FILE, b"{}")).get("base")
        modules = {*base_layout(base, self._stored.layout).sites}
        if (
            made_for is None
            or modules != {*self._stored.layout.sites}
            or not of_one_base(made_for, described(base))
        ):
            raise LayoutMismatch(f"the {self.name} adapter is for {named}, not for {base.name}")
