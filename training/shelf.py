"""A library as methods use it: the adapters that fit a base, and how near each is to a task.

A task's own adapter is never among its neighbours: on a task of the library a method is measured as
if that task were new.
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from index.encoder import DescriptionEncoder, normalise
from library.adapter import Adapter
from library.base import BaseReference, base_layout, identity
from library.catalogue import Record, read_adapter, records
from library.errors import LayoutMismatch
from library.folder import MANIFEST, LibraryFolder
from library.plan import Plan
from library.tasks import Task


class Shelf:
    """The adapters of a library for its own base and modules, of any rank.

    Args:
        folder: the library.
        base: which must be the library's own.
        encoder: of descriptions.
    Raises:
        LayoutMismatch: the library was made for another base.
        UsageError: it has no plan.
    """

    def __init__(
        self, folder: LibraryFolder, base: BaseReference, encoder: DescriptionEncoder
    ) -> None:
        self.folder, self.plan, self._encoder = folder, _plan(folder, base), encoder
        self._embedded: dict[str, Tensor] = {}
        self._read: dict[int, Adapter] = {}

    @cached_property
    def records(self) -> list[Record]:
        """Variant 0 of each task, and what was imported, as far as it fits."""
        return [record for record in records(self.folder) if self._fits(record)]

    def adapter(self, place: int) -> Adapter:
        """The adapter of a record, at its own rank."""
        if place not in self._read:
            identity = self.records[place]["id"]
            self._read[place] = read_adapter(self.folder, identity, self.plan.layout)
        return self._read[place]

    def of_task(self, task: Task) -> Adapter | None:
        """The task's own adapter."""
        found = [i for i, record in enumerate(self.records) if record["task"] == task.name]
        return self.adapter(found[0]) if found else None

    def others(self, task: Task) -> list[int]:
        """Places of all adapters but the task's own."""
        return [i for i, record in enumerate(self.records) if record["task"] != task.name]

    def nearest(self, task: Task, count: int) -> list[int]:
        """Places of the other adapters whose descriptions are nearest to the task's, in order."""
        others = self.others(task)
        cosines = self.similarities(task) if others else []
        return sorted(others, key=lambda i: (-cosines[i], i))[:count]

    def similarities(self, task: Task) -> list[float]:
        """Cosine of the task's definition with each adapter's description."""
        return (self._vectors @ self._embed(task.definition)).tolist()

    def _fits(self, record: Record) -> bool:
        same = self.plan.layout.with_rank(record["rank"]).digest == record["layout_digest"]
        return same and (record["base_model"], record["variant"]) == (self.plan.base["id"], 0)

    def _embed(self, text: str) -> Float[Tensor, " d"]:
        """Each text once: several methods ask for it."""
        if text not in self._embedded:
            self._embedded[text] = self._encoder.encode([normalise(text)]).pooled[0]
        return self._embedded[text]

    @cached_property
    def _vectors(self) -> Float[Tensor, "n d"]:
        return torch.stack([self._embed(record["description"]) for record in self.records])


def _plan(folder: LibraryFolder, base: BaseReference) -> Plan:
    """The library's plan, once it has been held to the base. Raises UsageError if it has none."""
    plan = Plan.from_dict(folder.read_json(MANIFEST))
    ours = base_layout(base, plan.layout)
    ours.require_same(plan.layout, f"base model '{base.name}'", f"the library {folder.place}")
    sha256, _ = identity(base)
    if plan.base["sha256"] != sha256:
        raise LayoutMismatch(
            f"the library {folder.place} was made for other weights of {plan.base['id']}"
        )
    return plan
