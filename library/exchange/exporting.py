"""Taking an adapter out of a library: as it is stored, as its original was, or for any server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load, save

from library.errors import AdapterFileError
from library.exchange.image_lora import restored
from library.layout import REFUSED
from library.peft.provenance import PROVENANCE_FILE, Provenance, finish
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, Profile, as_written, to_peft
from library.store.catalogue import Record, files_of
from library.store.folder import LibraryFolder

Format = Literal["peft", "diffusers", "kohya", "xlabs"]
_IMAGE = ("diffusers", "kohya", "xlabs")


def export_files(
    folder: LibraryFolder,
    record: Record,
    *,
    profile: Profile | None = None,
    format: Format | None = None,
) -> dict[str, bytes]:
    """The files of an exported adapter, by name.

    Args:
        profile: "lossless" gives tensors and config as they came, "portable" what every server
            reads; None: as stored, which is portable for what was built unless ranks differ by
            module, and lossless for that and for imports.
        format: None: that of the original. Only an original can be had in an image model's format.
    Raises:
        AdapterFileError: it is not of that format or cannot be portable, or its files are damaged.
    """
    stored = files_of(folder, record["id"])
    origin = record["recipe"].removeprefix("imported:")
    if format in _IMAGE and format != origin:
        raise AdapterFileError(
            f"{record['id']} did not come as a {format} file: it is {record['recipe']}"
        )
    patterned = json.loads(stored[CONFIG_FILE]).get("rank_pattern")
    if profile == "portable" and (patterned or origin != record["recipe"]):
        return _portable(stored, record, image=origin in _IMAGE)
    if origin not in _IMAGE:
        return stored
    if format != "peft":
        return _original(stored)
    guess = _provenance(stored)["details"]["source"].get("guess")
    if guess is not None:
        raise AdapterFileError(
            f"{guess} does not say which `_` was a dot in its module's path: there is no PEFT form"
        )
    return stored


def _original(stored: dict[str, bytes]) -> dict[str, bytes]:
    """The file that was imported, under its own name, and where it comes from."""
    note = _provenance(stored)["details"]["source"]
    weights = save(restored(load(stored[WEIGHTS_FILE]), note), metadata=note["metadata"])
    return {Path(note["file"]).name: weights, PROVENANCE_FILE: stored[PROVENANCE_FILE]}


def _portable(stored: dict[str, bytes], record: Record, *, image: bool) -> dict[str, bytes]:
    """The same adapter in bf16 and one rank, with its scale in B, and an id of its own."""
    if image:
        raise AdapterFileError("servers of language models do not read an image model's adapter")
    provenance = _provenance(stored)
    adapter = adapter_of(stored)
    for site in adapter.layout.sites:
        if site.kernel > 1 or site.module_type in REFUSED:
            raise AdapterFileError(f"servers refuse an adapter of {site.name}; use lossless")
    fields: dict[str, Any] = provenance["details"]["layout"]
    adapter = replace(adapter, layout=replace(adapter.layout, **fields))
    layout = as_written(adapter, "portable").layout
    files = to_peft(adapter, base_name=record["base_model"])
    inherited = {k: provenance[k] for k in provenance.keys() - {"id", "sha256", "parents"}}
    if layout != adapter.layout:
        inherited["layout_digest"] = layout.digest
    return finish(files, Provenance(**inherited, parents=[record["id"]])).files


def _provenance(stored: dict[str, bytes]) -> dict[str, Any]:
    return json.loads(stored[PROVENANCE_FILE])
