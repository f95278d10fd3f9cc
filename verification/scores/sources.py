"""The slow hooks with their sources: a library, an encoder, the base model.

Sources are read when the first check needs them, and kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from index.encoders.descriptions import DescriptionEncoder, InvalidDescription, normalise
from index.encoders.weights import WeightEncoder, load_weight_encoder
from library.base.models import BaseModel, BaseReference
from library.base.usage import Usage, usage_of
from library.errors import AdapterFileError, LayoutMismatch, UsageError
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.tasks.files import Task, read_tasks
from verification.artifact import Artifact, Context
from verification.checks.screening_bank import shipped_bank
from verification.hook import Finding
from verification.run import Hook
from verification.scores import agreement, neighbours, screening
from verification.scores.agreement import check_agreement
from verification.scores.behaviour import (
    BEHAVIOUR_HOOK,
    REQUEST,
    Examples,
    Origin,
    check_behaviour,
    unmeasured,
)
from verification.scores.behaviour_rivals import nearest_task, rivals_of
from verification.scores.neighbours import Neighbours, check_neighbours, read_neighbours
from verification.scores.screening import check_spectra

SLOW = (
    screening.SCREENING_HOOK,
    neighbours.NEIGHBOURS_HOOK,
    agreement.AGREEMENT_HOOK,
    BEHAVIOUR_HOOK,
)


@dataclass(frozen=True)
class SlowHooks:
    """The slow hooks, over their sources.

    Attributes:
        library: folder or URL, for neighbours and rivals.
        encoder: gives the description encoder that finds the nearest stored task.
        reference: gives the base model of a name in a config; None for one that is not at hand.
        base: loads it.
        tasks: folder of tasks whose examples stand in where there are none.
    """

    library: str
    encoder: Callable[[], DescriptionEncoder]
    reference: Callable[[str | None], BaseReference | None]
    base: Callable[[BaseReference], BaseModel]
    tasks: Path | None = None

    def hooks(self) -> tuple[Hook, ...]:
        """In the order of SLOW; costs are those once everything has been read."""
        checks = (self._screening, self._neighbours, self._agreement, self._behaviour)
        costs = (3.0, 10.0, 40.0, 2e4)
        return tuple(
            Hook(name, cost, check) for name, cost, check in zip(SLOW, costs, checks, strict=True)
        )

    def _screening(self, subject: Artifact, context: Context) -> list[Finding]:
        code = screening.NOT_APPLICABLE
        try:
            adapter = subject.adapter
        except AdapterFileError as error:
            return [Finding(screening.SCREENING_HOOK, code, "info", f"no screening: {error}")]
        recipe, base = subject.recorded("generator"), subject.recorded("base", "sha256")
        return check_spectra(adapter, shipped_bank(), recipe, base)

    def _neighbours(self, subject: Artifact, context: Context) -> list[Finding]:
        _ = self._library  # one that is not there is no finding about the adapter
        try:
            return check_neighbours(subject.adapter, self._stored)
        except (AdapterFileError, UsageError) as error:
            code, message = neighbours.INCOMPARABLE, f"no neighbours: {error}"
            return [Finding(neighbours.NEIGHBOURS_HOOK, code, "info", message)]

    def _agreement(self, subject: Artifact, context: Context) -> list[Finding]:
        text = subject.recorded("description")
        if text is None:
            return [agreement.not_applicable("provenance has no description")]
        try:
            adapter, text = subject.adapter, normalise(text)
        except (AdapterFileError, InvalidDescription) as error:
            return [agreement.not_applicable(str(error))]
        recipe, base = subject.recorded("generator"), subject.recorded("base", "sha256")
        vector = self._texts.vectors([text])
        return [check_agreement(adapter, vector, self._weights, recipe, base)]

    def _behaviour(self, subject: Artifact, context: Context) -> list[Finding]:
        named = (subject.config or {}).get("base_model_name_or_path")
        reference = self.reference(named if isinstance(named, str) else None)
        if reference is None:
            return [unmeasured(f"the base model {str(named)[:200]} is not available")]
        examples = self._examples(subject, context)
        if examples is None:
            return [unmeasured("no examples were given, and no stored task has any")]
        description, identity = subject.recorded("description"), subject.recorded("id")
        try:
            adapter = subject.adapter
            rivals = rivals_of(self._library, reference, description=description, identity=identity)
            origin = Origin(usage_of(subject.files), subject.recorded("examples"))
            base = self.base(reference)
            asked = _unshown(examples, origin.usage)
            if not asked.rows:
                return [unmeasured("the adapter's prompt shows all of the examples")]
            return [check_behaviour(base, adapter, rivals, asked, origin, context.progress)]
        except (AdapterFileError, LayoutMismatch, UsageError) as error:
            return [unmeasured(str(error))]

    def _examples(self, subject: Artifact, context: Context) -> Examples | None:
        """The examples in the context, else those of the nearest stored task."""
        if context.examples:
            return Examples(context.examples, REQUEST)
        description = subject.recorded("description")
        if not self._tasks or description is None:
            return None
        nearest = nearest_task(description, self._tasks, self.encoder())
        return Examples(nearest.task.train, nearest.task.name, nearest.similarity)

    @cached_property
    def _library(self) -> LibraryFolder:
        return open_library(self.library)

    @cached_property
    def _stored(self) -> Neighbours:
        return read_neighbours(self.library)

    @cached_property
    def _weights(self) -> WeightEncoder:
        return load_weight_encoder()

    @cached_property
    def _texts(self) -> DescriptionEncoder:
        """The one that the weight encoder goes with; in float32, which takes half of the time."""
        return DescriptionEncoder(self._weights.info.encoder, dtype=torch.float32)

    @cached_property
    def _tasks(self) -> Sequence[Task]:
        return [] if self.tasks is None else read_tasks(self.tasks)


def _unshown(examples: Examples, usage: Usage) -> Examples:
    """The examples without those that the adapter's prompt shows, whose answers can be copied."""
    rows = [row for row in examples.rows if not usage.shows(row.input, row.output)]
    return replace(examples, rows=rows)
