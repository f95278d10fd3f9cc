"""Methods that take adapters from a library: oracle, soup, nearest and top-k.

Retrieval never sees the evaluated task's own adapter: on a task of the library it is measured as if
that task were new.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from index.encoder import DescriptionEncoder, normalise
from library.adapter import Adapter
from library.base import BaseReference, base_layout, identity
from library.catalogue import Record, read_adapter, records
from library.errors import LayoutMismatch, UsageError
from library.folder import MANIFEST, LibraryFolder
from library.plan import Plan
from library.tasks import Task

NEIGHBOURS = 4  # SG-LoRA's K
TEMPERATURE = 0.05  # of the softmax over cosines


class LibraryMethods:
    """Adapters for tasks, by method.

    Args:
        library: what soup, nearest and top-k read; its adapters share one A.
        oracles: where `oracle` looks for a task's own adapter.
        base: the evaluated base, which must be the libraries' own.
        encoder: of descriptions.
    Raises:
        LayoutMismatch: a library was made for another base.
    """

    def __init__(
        self,
        library: LibraryFolder,
        oracles: LibraryFolder,
        base: BaseReference,
        encoder: DescriptionEncoder,
    ) -> None:
        self.library, self.oracles, self.encoder = library, oracles, encoder
        self._plans = {f.place: _plan(f, base) for f in (library, oracles)}
        self._embedded: dict[str, Tensor] = {}
        self._own = {record["task"]: record for record in self._fitting(oracles)}

    def adapters(self, method: str, tasks: Sequence[Task]) -> list[Adapter | None]:
        """One adapter a task; None where the method has none. Raises UsageError if all are None."""
        make = {
            "oracle": self._oracle,
            "soup": self._soup,
            "nearest": self._nearest,
            "top-k": self._top_k,
        }[method]
        found = [make(task) for task in tasks]
        if all(adapter is None for adapter in found):
            place = self.oracles if method == "oracle" else self.library
            raise UsageError(f"{place.place} holds no adapter that {method} could use")
        return found

    def similarity(self, tasks: Sequence[Task]) -> dict[str, float]:
        """Cosine of each task's description with the nearest other one of the library."""
        found = {}
        for task in tasks:
            cosines = self._similarity(task) if self._others(task) else []
            if cosines:
                found[task.name] = max(cosines[i] for i in self._others(task))
        return found

    def _oracle(self, task: Task) -> Adapter | None:
        record = self._own.get(task.name)
        return self._read(self.oracles, record) if record else None

    def _soup(self, task: Task) -> Adapter | None:
        others = self._sharing_a(task)
        return self._mean(others, [1 / len(others)] * len(others)) if others else None

    def _nearest(self, task: Task) -> Adapter | None:
        others = self._others(task)
        return self._stock[max(others, key=self._similarity(task).__getitem__)] if others else None

    def _top_k(self, task: Task) -> Adapter | None:
        """Softmax-weighted mean of the nearest (SG-LoRA, arXiv 2509.10535, sparse aggregator)."""
        similarity = self._similarity(task)
        near = sorted(self._sharing_a(task), key=lambda i: (-similarity[i], i))[:NEIGHBOURS]
        if not near:
            return None
        cosines = torch.tensor([similarity[i] for i in near], dtype=torch.float64)
        return self._mean(near, (cosines / TEMPERATURE).softmax(0).tolist())

    def _others(self, task: Task) -> list[int]:
        return [i for i, record in enumerate(self._records) if record["task"] != task.name]

    def _sharing_a(self, task: Task) -> list[int]:
        """Those whose factors may be averaged: neither imported nor truncated."""
        return [i for i in self._others(task) if ":" not in self._records[i]["recipe"]]

    def _similarity(self, task: Task) -> list[float]:
        return (self._vectors @ self._embed(task.definition)).tolist()

    def _mean(self, places: Sequence[int], weights: Sequence[float]) -> Adapter:
        """Mean of the factors, which share an A to start from."""
        parts = [self._stock[i] for i in places]
        a, b = (
            {
                key: torch.stack([getattr(p, side)[key] * w for p, w in pairs]).sum(0)
                for key in getattr(parts[0], side)
            }
            for side in ("A", "B")
            for pairs in [list(zip(parts, weights, strict=True))]
        )
        return Adapter(parts[0].layout, a, b)

    def _embed(self, text: str) -> Float[Tensor, " d"]:
        """Each text once: nearest, top-k and similarity all ask for it."""
        if text not in self._embedded:
            self._embedded[text] = self.encoder.encode([normalise(text)]).pooled[0]
        return self._embedded[text]

    @cached_property
    def _records(self) -> list[Record]:
        return self._fitting(self.library)

    @cached_property
    def _stock(self) -> list[Adapter]:
        return [self._read(self.library, record) for record in self._records]

    @cached_property
    def _vectors(self) -> Float[Tensor, "n d"]:
        return torch.stack([self._embed(record["description"]) for record in self._records])

    def _fitting(self, folder: LibraryFolder) -> list[Record]:
        """Records of the library's own base and layout; an imported adapter may have another."""
        plan = self._plans[folder.place]
        wanted = (plan.layout.digest, plan.base["id"], 0)
        keys = ("layout_digest", "base_model", "variant")
        return [r for r in records(folder) if tuple(r[key] for key in keys) == wanted]

    def _read(self, folder: LibraryFolder, record: Record) -> Adapter:
        return read_adapter(folder, record["id"], self._plans[folder.place].layout)


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
