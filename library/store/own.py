"""What a library's adapters have in common: their base model and their layout.

A plan says both. A library of imports has none, and may be of any model, also of one whose config
tells us nothing; then they are those of most of its adapters.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from library.base.models import base_layout, resolve_base
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout
from library.peft.read import adapter_of
from library.store.catalogue import files_of, records
from library.store.folder import MANIFEST, LibraryFolder
from library.store.plan import Plan, has_plan
from library.store.records import Record


@dataclass(frozen=True)
class OwnAdapters:
    """The adapters of a library's own base and layout.

    Attributes:
        base: {"id", "sha256", "source"}.
        layout: of each, ranks included.
        records: theirs, one at least, sorted by task and variant.
    """

    base: dict[str, Any]
    layout: Layout
    records: list[Record]


def own_adapters(folder: LibraryFolder) -> OwnAdapters:
    """A library's own adapters; the others, imported ones of another rank say, are left out.

    Raises:
        UsageError: it holds none.
        AdapterFileError, OutputError: something is damaged.
        BaseModelError, LayoutMismatch: imports lie in the order of a base that is not here.
    """
    every, manifest = records(folder), folder.read_json(MANIFEST)
    plan = Plan.from_dict(manifest) if has_plan(manifest) else None
    if plan is not None:
        kind = plan.layout.digest, plan.base["id"]
    else:
        kind = max(Counter(map(_kind, every)).items(), key=lambda item: item[1], default=(None,))[0]
    own = [record for record in every if _kind(record) == kind]
    if not own:
        raise UsageError(f"{folder.location} holds no adapter of its own base and layout")
    if plan is not None:
        return OwnAdapters(plan.base, plan.layout, own)
    base = {"id": own[0]["base_model"], "sha256": own[0]["base_sha256"], "source": "library"}
    return OwnAdapters(base, _layout(folder, own[0]), own)


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
