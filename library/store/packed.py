"""The packed form of a library, three small files for shipping: int8 factors, records, plan.

Unpacked, it is an ordinary library: each adapter is that of its int8 rows, as an ordinary PEFT
folder with an id of its own and the original as its parent. B is stored by columns, so that a scale
belongs to one rank of one module.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from library.adapter import Adapter, stack
from library.canonical import digest
from library.errors import AdapterFileError, MissingPath, UnknownName
from library.files import cache_dir, write_folder
from library.int8 import dequantise, quantise
from library.layout import Layout
from library.peft.provenance import PROVENANCE_FILE, AdapterFiles, Provenance, finish
from library.peft.write import to_peft
from library.store.catalogue import read_adapter, records
from library.store.folder import ADAPTERS, MANIFEST, PACKED, RECORDS, LibraryFolder
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

    With `rank` each is cut to the best approximation of that rank, which gives it factors of its
    own, and the recipe in the record says so.

    Returns how many. Raises UnknownName for a task that has none, OutputExists.
    """
    plan = folder.plan()
    selected = [r for r in records(folder) if not tasks or r["task"] in tasks]
    lacking = sorted(set(tasks) - {record["task"] for record in selected})
    if lacking or not selected:
        raise UnknownName(
            f"{folder.location} holds no adapter of {', '.join(lacking) or 'any task'}"
        )
    adapters = stack([read_adapter(folder, record["id"], plan.layout) for record in selected])
    if rank is not None and rank < plan.layout.rank:
        adapters = adapters.with_rank(rank)
        plan = replace(plan, layout=adapters.layout)
        selected = [{**record, **_truncated(record, plan.layout)} for record in selected]
    tensors = _quantised(adapters)
    lines = []
    for record, files in zip(selected, _files(folder, selected, tensors, plan), strict=True):
        provenance = json.loads(files.files[PROVENANCE_FILE])
        parents = provenance["parents"]
        record = {**record, "id": files.id, "sha256": files.sha256, "parents": parents}
        lines.append(json.dumps({"record": record, "provenance": provenance}, sort_keys=True))
    jobs = tuple(JobPlan(record["task"], record["variant"]) for record in selected)
    digests = whole_plan(folder).tasks
    digests = {r["task"]: digests[r["task"]] for r in selected if r["task"] in digests}
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
    for row, line in enumerate(content[INDEX].decode().splitlines()):
        entry = json.loads(line)
        record, provenance = entry["record"], entry["provenance"]
        adapter = _finished(tensors, row, provenance, plan)
        if adapter.id != record["id"]:
            raise ValueError(f"the adapter of {record['task']} is not {record['id']}")
        files |= {f"{ADAPTERS}/{adapter.id}/{name}": data for name, data in adapter.files.items()}
        name = JobPlan(record["task"], record["variant"]).name
        files[f"{RECORDS}/0000/{name}.json"] = (json.dumps(record, indent=1) + "\n").encode()
    return files


def _truncated(record: Record, layout: Layout) -> Record:
    return {
        "recipe": f"truncated:{record['recipe']}",
        "rank": layout.rank,
        "layout_digest": layout.digest,
    }


def _files(
    folder: LibraryFolder, selected: list[Record], tensors: dict[str, Tensor], plan: Plan
) -> list[AdapterFiles]:
    """The adapters that unpacking will give."""
    adapters = []
    for row, record in enumerate(selected):
        provenance = json.loads(folder.read(f"{ADAPTERS}/{record['id']}/{PROVENANCE_FILE}"))
        if provenance["details"].get("storage") != "int8":  # a copy's copy names the original
            provenance["parents"] = [record["id"]]
        provenance["layout_digest"] = plan.layout.digest
        provenance["details"] = {**provenance["details"], "storage": "int8"}
        adapters.append(_finished(tensors, row, provenance, plan))
    return adapters


def _finished(
    tensors: Mapping[str, Tensor], row: int, provenance: Mapping[str, Any], plan: Plan
) -> AdapterFiles:
    fields = {k: v for k, v in provenance.items() if k not in ("id", "sha256")}
    weights = to_peft(_dequantised(tensors, row, plan.layout), base_name=plan.base["id"])
    return finish(weights, Provenance(**fields))


def _quantised(adapters: Adapter) -> dict[str, Tensor]:
    """`A.<group>` [n, sites, rank, in] and `B.<group>` [n, sites, rank, out], with their scales."""
    tensors = {}
    for group in adapters.layout.groups:
        # B (n, sites, out, rank) to (n, sites, rank, out)
        for side, values in (("A", adapters.A[group.key]), ("B", adapters.B[group.key].mT)):
            key = f"{side}.{group.key}"
            tensors[key], tensors[key + SCALE] = quantise(values.float())
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def _dequantised(tensors: Mapping[str, Tensor], row: int, layout: Layout) -> Adapter:
    """One adapter of a packed library."""

    def factor(side: str, key: str) -> Tensor:
        name = f"{side}.{key}"
        return dequantise(tensors[name][[row]], tensors[name + SCALE][[row]])

    keys = [group.key for group in layout.groups]
    return Adapter(
        layout,
        {key: factor("A", key) for key in keys},
        # (1, sites, rank, out) to (1, sites, out, rank)
        {key: factor("B", key).mT.to(torch.float32) for key in keys},
    )
