"""What a library's adapters have in common: their base model and their modules.

A plan says both. A library of imports has none, and may be of any model, also of one whose config
tells us nothing; then they are those of most of its adapters.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from library.adapter import Adapter
from library.base.models import base_layout, resolve_base
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout
from library.peft.read import adapter_of
from library.store.catalogue import files_of, read_adapter, records
from library.store.folder import MANIFEST, LibraryFolder
from library.store.plan import Plan, has_plan
from library.store.records import Record


@dataclass(frozen=True)
class OwnAdapters:
    """The adapters of a library's own base and modules.

    Attributes:
        base: {"id", "sha256", "source"}.
        layout: of all, at the largest rank that was built.
        records: theirs, one at least, sorted by task and variant.
        adapters: in the order of the records; what one has less than the layout is zero.
    """

    base: dict[str, Any]
    layout: Layout
    records: list[Record]
    adapters: list[Adapter]


def own_adapters(folder: LibraryFolder) -> OwnAdapters:
    """A library's own adapters; imported ones of a larger rank, of other modules or with a head are
    left out.

    Raises:
        UsageError: it holds none.
        AdapterFileError, OutputError: something is damaged.
        BaseModelError, LayoutMismatch: imports lie in the order of a base that is not here.
    """
    every = [record for record in records(folder) if not record.get("extras")]
    manifest = folder.read_json(MANIFEST)
    if has_plan(manifest):
        own = _of_plan(folder, Plan.from_dict(manifest), every)
    else:
        own = _of_most(folder, every)
    if not own.records:
        raise UsageError(f"{folder.location} holds no adapter of its own base and modules")
    return own


def _of_plan(folder: LibraryFolder, plan: Plan, every: list[Record]) -> OwnAdapters:
    """Those of the plan's base that have no module and no rank that its builds lack."""
    of_base = [record for record in every if record["base_model"] == plan.base["id"]]
    rank = max((r["rank"] for r in of_base if r.get("shard") is not None), default=0)
    layout = plan.layout.with_rank(rank) if rank > plan.layout.rank else plan.layout
    own = OwnAdapters(plan.base, layout, [], [])
    for record in of_base:
        with suppress(LayoutMismatch):
            adapter = read_adapter(folder, record["id"], plan.layout).expanded(layout)
            own.records.append(record)
            own.adapters.append(adapter)
    return own


def _of_most(folder: LibraryFolder, every: list[Record]) -> OwnAdapters:
    """Those of the layout and base that most have. Raises UsageError without any."""
    kinds = Counter(map(_kind, every))
    if not kinds:
        raise UsageError(f"{folder.location} holds no adapter of its own base and modules")
    kind = max(kinds.items(), key=lambda item: item[1])[0]
    own = [record for record in every if _kind(record) == kind]
    base = {"id": own[0]["base_model"], "sha256": own[0]["base_sha256"], "source": "library"}
    layout = _layout(folder, own[0])
    adapters = [read_adapter(folder, record["id"], layout) for record in own]
    return OwnAdapters(base, layout, own, adapters)


def _kind(record: Record) -> tuple[str, str]:
    return record["layout_digest"], record["base_model"]


def _layout(folder: LibraryFolder, record: Record) -> Layout:
    """An import's layout: in its file's order, or in its base's if that was at hand then."""
    stored = adapter_of(files_of(folder, record["id"])).layout
    if stored.digest == record["layout_digest"]:
        return stored
    layout = base_layout(resolve_base(record["base_model"]), stored)
    if layout.digest != record["layout_digest"]:
        raise LayoutMismatch(f"{record['id']} has other modules than {record['base_model']}")
    return layout
