"""Which hooks a verification job runs. A new hook is one more entry of `hooks_of`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from api.commands.common import SHIPPED
from api.settings import Settings
from index.encoder import DescriptionEncoder
from library.base import BaseModel, BaseReference, load_base
from library.catalogue import open_library
from library.folder import LibraryFolder
from library.peft_read import adapter_of
from library.provenance import PROVENANCE_FILE
from library.tasks import Instance, Task, read_tasks
from verification import hooks
from verification.behaviour_hook import Examples, check_behaviour, unmeasured
from verification.findings import Finding
from verification.hooks import Policy
from verification.rivals import nearest_task, rivals_of
from verification.subject import Context
from verification.subject import Subject as FileSubject

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Subject:
    """An adapter under verification: its files by name, and examples of its task, if any."""

    id: str
    files: Mapping[str, bytes]
    base_model: str
    examples: Sequence[Instance] = ()

    @property
    def description(self) -> str | None:
        return json.loads(self.files[PROVENANCE_FILE])["description"]


Hook = Callable[[Subject, Progress], list[Finding]]


def hooks_of(settings: Settings, encoder: Callable[[], DescriptionEncoder]) -> dict[str, Hook]:
    """Every hook by name, in the order in which they run.

    Args:
        encoder: gives the description encoder once it is loaded.
    """
    return {"files": check_files, "behaviour": BehaviourCheck(settings, encoder)}


def check_files(subject: Subject, progress: Progress) -> list[Finding]:
    """What `lorasmith verify` says of the files: format, integrity, servers and base."""
    return hooks.run(FileSubject(subject.files), Context(), Policy())


class BehaviourCheck:
    """The behaviour hook with what it needs of a service; the base is read at the first check."""

    def __init__(self, settings: Settings, encoder: Callable[[], DescriptionEncoder]) -> None:
        self._settings, self._encoder = settings, encoder
        self._bases: dict[BaseReference, BaseModel] = {}

    def __call__(self, subject: Subject, progress: Progress) -> list[Finding]:
        reference = self._reference(subject.base_model)
        if reference is None:
            return [unmeasured(f"the service has no base model {subject.base_model}")]
        examples = self._examples(subject)
        if examples is None:
            return [unmeasured("there are no examples of the task, in the request or stored")]
        rivals = rivals_of(
            self._library, reference, description=subject.description, identity=subject.id
        )
        base = self._base(reference)
        adapter = adapter_of(subject.files)
        return [check_behaviour(base, adapter, rivals, examples, progress=progress)]

    def _examples(self, subject: Subject) -> Examples | None:
        """The request's, else those of the nearest stored task."""
        if subject.examples:
            return Examples(subject.examples, "request")
        if not self._tasks or subject.description is None:
            return None
        near = nearest_task(subject.description, self._tasks, self._encoder())
        return Examples(near.task.train, near.task.name, near.similarity)

    def _reference(self, base_model: str) -> BaseReference | None:
        known = (self._settings.base(name) for name in self._settings.bases)
        return next((base for base in known if base.name == base_model), None)

    def _base(self, reference: BaseReference) -> BaseModel:
        if reference not in self._bases:
            self._bases[reference] = load_base(reference)
        return self._bases[reference]

    @cached_property
    def _library(self) -> LibraryFolder:
        return open_library(self._settings.library or SHIPPED)

    @cached_property
    def _tasks(self) -> list[Task]:
        place = self._settings.tasks
        return [] if place is None else read_tasks(Path(place))
