"""A library opened for one base: its adapters, by how near their descriptions are to a text.

Similarities are cosines rounded to six decimals, and weights follow from the rounded ones, so that
neither depends on how many threads multiplied.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder, normalise
from library.adapter import Adapter
from library.base.models import BaseReference, base_layout, identity
from library.base.stored_adapters import adapter_for_base
from library.canonical import json_digest
from library.errors import (
    AdapterFileError,
    LayoutMismatch,
    OutputError,
    UnsupportedModel,
    UsageError,
)
from library.files import cache_dir, write_file
from library.store.catalogue import (
    Record,
    StoredRecords,
    files_of,
    in_order,
    read_adapter,
    read_records,
)
from library.store.folder import LibraryFolder
from library.store.plan import Plan
from library.store.snapshots import read_snapshots, state_moments

NEIGHBOURS = 4  # SG-LoRA's K
TEMPERATURE = 0.05  # of the softmax over cosines


@dataclass(frozen=True)
class Neighbour:
    """An adapter of the library and the cosine of its description with the query's."""

    id: str
    task: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def softmax_weights(neighbours: Sequence[Neighbour]) -> list[float]:
    """Weights of a sum over neighbours (SG-LoRA, arXiv 2509.10535, sparse aggregator)."""
    return similarity_weights(similarities(neighbours)).tolist()


def similarities(neighbours: Sequence[Neighbour]) -> Float[Tensor, " k"]:
    """Their cosines, in float64."""
    return torch.tensor([n.similarity for n in neighbours], dtype=torch.float64)


def similarity_weights(
    cosines: Float[Tensor, "*n k"], temperature: float = TEMPERATURE
) -> Float[Tensor, "*n k"]:
    """exp(cosine / temperature), divided by their sum over k."""
    return (cosines / temperature).softmax(dim=-1)


class Retriever:
    """The adapters of a library for its own base, of any modules and ranks, as it was when read.

    Args:
        folder: the library.
        base: what the adapters shall act in.
        encoder: of descriptions.
    Raises:
        LayoutMismatch: the library was made for another base.
        UsageError: it has no plan, only imported adapters.
    """

    def __init__(
        self, folder: LibraryFolder, base: BaseReference, encoder: DescriptionEncoder
    ) -> None:
        self.folder, self.encoder = folder, encoder
        self.plan, self._base = _plan(folder, base), base
        self._fitting = {self.plan.layout.digest}  # digests of layouts that are the base's
        self._read: dict[str, Adapter] = {}
        self._moments: dict[str, tuple[Adapter, Adapter]] = {}
        self._known: dict[str, Tensor] = {}  # vectors of descriptions

    def followed(self) -> "Retriever":
        """A retriever of the library as it is now; this one if nothing has changed.

        Only what is new is read and embedded. Raises OutputError for a damaged record.
        """
        stored = read_records(self.folder, self._stored)
        if stored == self._stored:
            return self
        other = copy(self)
        if "_vectors" in vars(self):
            texts = [record["description"] for record in self.records]
            other._known = dict(zip(texts, self._vectors, strict=True))
        for name in ("records", "experts", "_vectors"):
            vars(other).pop(name, None)
        other._stored = stored
        return other

    def nearest(
        self,
        embedding: Float[Tensor, " d"],
        k: int,
        keep: Callable[[Record], bool] = lambda record: True,
    ) -> list[Neighbour]:
        """The k adapters whose descriptions are nearest, of those to `keep`, nearest first.

        Args:
            embedding: the unit vector of the description, by this retriever's encoder.
        """
        neighbours = [
            Neighbour(record["id"], record["task"], round(cosine, 6))
            for record, cosine in zip(self.records, self._cosines(embedding), strict=True)
            if keep(record)
        ]
        return sorted(neighbours, key=lambda n: (-n.similarity, n.task, n.id))[:k]

    def adapter(self, identity: str) -> Adapter:
        """One adapter with its own modules and ranks, in float32, read once.

        Raises AdapterFileError if it is damaged.
        """
        if identity not in self._read:
            self._read[identity] = self._adapter(identity)
        return self._read[identity]

    def _adapter(self, identity: str) -> Adapter:
        """In the plan's order of modules, or in the base's if it has others than the plan."""
        try:
            return read_adapter(self.folder, identity, self.plan.layout)
        except LayoutMismatch:
            return adapter_for_base(files_of(self.folder, identity), self._base)

    @cached_property
    def experts(self) -> list[Record]:
        """The records of adapters of the plan's own layout, whose factors can be averaged."""
        return [r for r in self.records if r["layout_digest"] == self.plan.layout.digest]

    def moments(self, identity: str) -> tuple[Adapter, Adapter]:
        """Mean and variance of an expert over its snapshots, in float32, read once.

        The adapter itself and zeros where the library kept none. Raises AdapterFileError.
        """
        if identity not in self._moments:
            record = next(r for r in self.experts if r["id"] == identity)
            states = read_snapshots(self.folder, record, self.plan.layout)
            self._moments[identity] = state_moments(self.adapter(identity), states)
        return self._moments[identity]

    @cached_property
    def records(self) -> list[Record]:
        """Variant 0 of each task, and what was imported, as far as it fits.

        Raises OutputError for a damaged record.
        """
        return [record for record in in_order(self._stored) if self._fits(record)]

    @cached_property
    def _stored(self) -> StoredRecords:
        return read_records(self.folder)

    def embed(self, text: str) -> Float[Tensor, " d"]:
        """The unit vector of a text."""
        return self.encoder.encode([normalise(text)]).pooled[0].cpu()

    def _fits(self, record: Record) -> bool:
        """Whether it is of the base: what was built here is, else one of its layout is read."""
        if (record["base_model"], record["variant"]) != (self.plan.base["id"], 0):
            return False
        if record.get("extras"):  # of a LoRA with a head nothing can be made
            return False
        digest = record["layout_digest"]
        if record.get("shard") is None and digest not in self._fitting:
            try:
                self._adapter(record["id"])
            except (AdapterFileError, LayoutMismatch, UnsupportedModel, UsageError):
                return False
        self._fitting.add(digest)
        return True

    def _cosines(self, embedding: Float[Tensor, " d"]) -> list[float]:
        return (self._vectors @ embedding).tolist() if self.records else []

    @cached_property
    def _vectors(self) -> Float[Tensor, "n d"]:
        """Of all descriptions; those of the default encoder are kept in the cache."""
        texts = [record["description"] for record in self.records]
        key = json_digest({"encoder": self.encoder.name, "texts": texts})
        file = cache_dir() / "vectors" / f"{key}.safetensors"
        shared = self.encoder.name == DEFAULT_ENCODER  # a folder's content may change
        with suppress(OSError, SafetensorError, KeyError):
            if shared:
                return load(file.read_bytes())["vectors"]
        known = self._known
        vectors = torch.stack([known[t] if t in known else self.embed(t) for t in texts])
        if not shared:
            return vectors
        with suppress(OutputError):
            write_file(file, save({"vectors": vectors}, metadata={"format": "pt"}))
        return vectors


def _plan(folder: LibraryFolder, base: BaseReference) -> Plan:
    """The library's plan, once it has been held to the base."""
    plan = folder.plan()
    layout = base_layout(base, plan.layout)
    layout.require_same(plan.layout, f"base model '{base.name}'", "the library")
    sha256, _ = identity(base)
    if plan.base["sha256"] != sha256 or (sha256 is None and plan.base["id"] != base.name):
        raise LayoutMismatch(f"the library was made for other weights of {plan.base['id']}")
    return plan
