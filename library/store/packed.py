"""The packed form of a library, three small files for shipping: int8 factors, records, plan.

Unpacked, it is an ordinary library: each adapter is that of its int8 rows, as an ordinary PEFT
folder with an id of its own and the original as its parent. B is stored by columns, so that a scale
belongs to one rank of one module.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from library.adapter import Adapter, stack
from library.canonical import digest
from library.errors import AdapterFileError, LayoutMismatch, MissingPath, UnknownName
from library.files import cache_dir, write_folder
from library.int8 import dequantise, quantise
from library.layout import Layout
from library.peft.provenance import PROVENANCE_FILE, AdapterFiles, Provenance, finish
from library.peft.read import adapter_of
from library.peft.write import lasting_profile, to_peft
from library.store.catalogue import files_of, read_adapter, records
from library.store.folder import ADAPTERS, IMPORTED, MANIFEST, PACKED, RECORDS, LibraryFolder
from library.store.parts import whole_plan
from library.store.plan import JobPlan, Plan
from library.store.records import Record

INDEX, SCALE = "records.jsonl", ".scale"


def pack_library(
    folder: LibraryFolder,
    out: Path,
    tasks: Collection[str] = (),
    *,
    rank: int | None = None,
    overwrite: bool = False,
) -> int:
    """Write the adapters of some tasks (of all, if none is named) as a packed library.

    With `rank` each of a larger one is cut to the best approximation of that rank, which gives it
    factors of its own, and the recipe in the record says so.

    Returns how many. Raises UnknownName for a task that has none, OutputExists; LayoutMismatch for
    an adapter of another base.
    """
    plan = folder.plan()
    selected = [r for r in records(folder) if not tasks or r["task"] in tasks]
    lacking = sorted(set(tasks) - {record["task"] for record in selected})
    if lacking or not selected:
        raise UnknownName(
            f"{folder.location} holds no adapter of {', '.join(lacking) or 'any task'}"
        )
    adapters = [_stored(folder, record, plan) for record in selected]
    if rank is not None:
        adapters = [a.with_rank(rank) if rank < a.layout.rank else a for a in adapters]
        if rank < plan.layout.rank:
            plan = replace(plan, layout=plan.layout.with_rank(rank))
    layouts = [adapter.layout for adapter in adapters]
    selected = list(map(_cut, selected, layouts))
    tensors = _quantised(adapters, plan)
    lines = []
    finished = _files(folder, selected, _dequantised(tensors, layouts, plan))
    for record, layout, files in zip(selected, layouts, finished, strict=True):
        provenance = json.loads(files.files[PROVENANCE_FILE])
        parents = provenance["parents"]
        record = {**record, "id": files.id, "sha256": files.sha256, "parents": parents}
        line = {"record": record, "provenance": provenance}
        own = {} if layout == plan.layout else {"layout": layout.to_dict()}
        lines.append(json.dumps(line | own, sort_keys=True))
    built = [record for record in selected if record.get("shard") is not None]
    jobs = tuple(JobPlan(record["task"], record["variant"]) for record in built)
    rows = whole_plan(folder).tasks
    digests = {record["task"]: rows[record["task"]] for record in built}
    manifest = replace(plan, tasks=digests, shards=(jobs,), skipped={}).to_dict()
    write_folder(
        out,
        {
            MANIFEST: (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
            INDEX: ("\n".join(lines) + "\n").encode(),
            PACKED: save(dict(sorted(tensors.items())), metadata={"format": "pt"}),
        },
        overwrite=overwrite,
    )
    return len(selected)


def unpacked(packed: Path) -> Path:
    """The ordinary library of a packed one, in the cache; made there at the first call.

    Raises:
        MissingPath: there is no packed library.
        AdapterFileError: it is damaged: what comes out is not what its records name.
    """
    try:
        content = {name: (packed / name).read_bytes() for name in (MANIFEST, INDEX, PACKED)}
    except FileNotFoundError as error:
        raise MissingPath(f"there is no packed library at {packed}") from error
    folder = cache_dir() / "libraries" / digest(b"".join(content.values()))[:16]
    if not (folder / MANIFEST).exists():
        try:
            files = _unpack(content)
        except (ValueError, KeyError, SafetensorError) as error:
            raise AdapterFileError(f"the packed library {packed} is damaged: {error}") from error
        write_folder(folder, files, overwrite=True)
    return folder


def _unpack(content: Mapping[str, bytes]) -> dict[str, bytes]:
    plan = Plan.from_dict(json.loads(content[MANIFEST]))
    tensors = load(content[PACKED])
    files: dict[str, bytes] = {MANIFEST: content[MANIFEST]}
    entries = [json.loads(line) for line in content[INDEX].decode().splitlines()]
    layouts = [Layout.from_dict(e["layout"]) if "layout" in e else plan.layout for e in entries]
    for entry, stored in zip(entries, _dequantised(tensors, layouts, plan), strict=True):
        record = entry["record"]
        adapter = _finished(stored, record, entry["provenance"])
        if adapter.id != record["id"]:
            raise ValueError(f"the adapter of {record['task']} is not {record['id']}")
        files |= {f"{ADAPTERS}/{adapter.id}/{name}": data for name, data in adapter.files.items()}
        name = f"{RECORDS}/0000/{JobPlan(record['task'], record['variant']).name}.json"
        if record.get("shard") is None:
            name = f"{RECORDS}/{IMPORTED}/{record['id']}.json"
        files[name] = (json.dumps(record, indent=1) + "\n").encode()
    return files


def _stored(folder: LibraryFolder, record: Record, plan: Plan) -> Adapter:
    """An adapter with its own modules and ranks, in the plan's order where it has no others."""
    base = plan.base["id"]
    if record["base_model"] != base:
        message = f"{record['task']} is for {record['base_model']}, not {base}; name others by task"
        raise LayoutMismatch(message)
    try:
        return read_adapter(folder, record["id"], plan.layout)
    except LayoutMismatch:
        own = adapter_of(files_of(folder, record["id"]))
        return replace(own, layout=replace(plan.layout, sites=own.layout.sites))


def _cut(record: Record, layout: Layout) -> Record:
    """The record of what is packed, which may have less rank."""
    recipe = record["recipe"] if layout.rank == record["rank"] else f"truncated:{record['recipe']}"
    return {**record, "recipe": recipe, "rank": layout.rank, "layout_digest": layout.digest}


def _files(
    folder: LibraryFolder, selected: list[Record], adapters: Iterable[Adapter]
) -> list[AdapterFiles]:
    """The adapters that unpacking will give."""
    files = []
    for record, adapter in zip(selected, adapters, strict=True):
        provenance = json.loads(folder.read(f"{ADAPTERS}/{record['id']}/{PROVENANCE_FILE}"))
        if provenance["details"].get("storage") != "int8":  # a copy's copy names the original
            provenance["parents"] = [record["id"]]
        provenance["layout_digest"] = adapter.layout.digest
        provenance["details"] = {**provenance["details"], "storage": "int8"}
        files.append(_finished(adapter, record, provenance))
    return files


def _finished(adapter: Adapter, record: Record, provenance: Mapping[str, Any]) -> AdapterFiles:
    fields = {k: v for k, v in provenance.items() if k not in ("id", "sha256")}
    profile = lasting_profile(adapter.layout)
    weights = to_peft(adapter, base_name=record["base_model"], profile=profile)
    return finish(weights, Provenance(**fields))


def _quantised(adapters: Sequence[Adapter], plan: Plan) -> dict[str, Tensor]:
    """`A.<group>` [n, sites, rank, in] and `B.<group>` [n, sites, rank, out], with their scales.

    The names of another layout than the plan's begin with a part of its digest.
    """
    tensors = {}
    for layout in dict.fromkeys(adapter.layout for adapter in adapters):
        alike = stack([adapter for adapter in adapters if adapter.layout == layout])
        for group in layout.groups:
            # B (n, sites, out, rank) to (n, sites, rank, out)
            for side, values in (("A", alike.A[group.key]), ("B", alike.B[group.key].mT)):
                key = f"{_prefix(layout, plan)}{side}.{group.key}"
                tensors[key], tensors[key + SCALE] = quantise(values.float())
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def _dequantised(
    tensors: Mapping[str, Tensor], layouts: Sequence[Layout], plan: Plan
) -> Iterator[Adapter]:
    """The adapters of a packed library, each of its layout."""

    def factor(side: str, key: str) -> Tensor:
        name = f"{_prefix(layout, plan)}{side}.{key}"
        return dequantise(tensors[name][[row]], tensors[name + SCALE][[row]])

    rows = Counter[Layout]()
    for layout in layouts:
        row, keys = rows[layout], [group.key for group in layout.groups]
        rows[layout] += 1
        # B (1, sites, rank, out) to (1, sites, out, rank)
        b = {key: factor("B", key).mT for key in keys}
        yield Adapter(layout, {key: factor("A", key) for key in keys}, b)


def _prefix(layout: Layout, plan: Plan) -> str:
    return "" if layout == plan.layout else f"{layout.digest[:12]}."
