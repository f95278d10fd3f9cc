"""Putting an adapter that was made elsewhere into a library, as it is.

Tensors, scale and patterns are stored unrounded (the lossless profile), so that `exporting` gives
the original back. A library that holds imports only has a manifest without a plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from library.base.models import BaseReference, described, load_config, load_model, resolve_base
from library.canonical import json_digest
from library.errors import (
    AdapterFileError,
    BaseModelError,
    LayoutMismatch,
    OutputExists,
    UnsupportedModel,
    UsageError,
)
from library.exchange.convert import class_of_base, convert, require_convertible
from library.exchange.source import Source, find_source, is_plain, peft_source, read_source
from library.layout import REFUSED, Layout, layout_of
from library.peft.config import read_any_config
from library.peft.keys import parted
from library.peft.provenance import AdapterFiles, Provenance, finish
from library.peft.read import layout_in, shape_of
from library.peft.safetensors_file import tensors_in
from library.peft.write import CONFIG_FILE, PREFIX, WEIGHTS_FILE, PeftFiles
from library.progress import Progress, no_progress
from library.store.folder import ADAPTERS, IMPORTED, MANIFEST, RECORDS, LibraryFolder
from library.store.open import require_unpacked
from library.store.plan import LIBRARY_FORMAT
from library.store.records import Record, new_record, write_record


@dataclass(frozen=True)
class ImportRequest:
    """An adapter to import: its location, purpose and licence.

    Attributes:
        source: a folder, a file or a Hub id.
        base: id or folder of the base model; None: what the adapter's config says.
        task: its name in the library; None: the source's own name.
        description: None: the task's name.
        rank: of a conversion from another PEFT type.
    """

    source: str
    base: str | None = None
    task: str | None = None
    description: str | None = None
    license: str | None = None
    license_class: str = ""
    rank: int = 8


@dataclass(frozen=True)
class ImportOutcome:
    """The adapter's record, the source, and whether the library had it already."""

    record: Record
    source: Source
    existed: bool


def import_adapter(
    folder: LibraryFolder,
    request: ImportRequest,
    progress: Progress = no_progress,
    report: Callable[[AdapterFiles], AdapterFiles] = lambda files: files,
) -> ImportOutcome:
    """Check an adapter and store it; one that is there already stays as it is.

    Args:
        report: gives the files that are kept; may refuse them.
    Raises:
        AdapterFileError, MissingPath, BaseModelError: it cannot be read or converted.
        LayoutMismatch: it is not for the base that was named.
        OutputExists, UsageError: the folder holds something that is no library, or a packed one.
    """
    if not folder.exists(MANIFEST) and folder.names(""):
        raise OutputExists(f"{folder.location} is not empty and not a library")
    require_unpacked(folder)
    source, reference = _read(request, progress)
    layout = _layout(source, reference)
    base = _base(source, request, reference)
    task = _task(request)
    files = report(_files(source, base, layout, request.description or task, {"task": task}))
    record = _record(source, request, base, layout, files)
    existing = _same(folder, source, record)
    if existing is not None:
        return ImportOutcome(existing, source, True)
    if not folder.exists(MANIFEST):
        folder.write_json(MANIFEST, {"format": LIBRARY_FORMAT})
    folder.write_adapter(files.id, files.files)
    written = write_record(folder, f"{RECORDS}/{IMPORTED}/{files.id}.json", record)
    return ImportOutcome(written, source, False)


def imported_files(
    config: bytes, weights: bytes, reference: BaseReference | None
) -> tuple[AdapterFiles, Layout]:
    """Files and layout of a plain LoRA of PEFT's from elsewhere, which says nothing of its origin.

    Args:
        config, weights: the content of its two files.
        reference: its base, if that is at hand.
    Raises AdapterFileError; LayoutMismatch if it is not for the base.
    """
    source = peft_source(config, tensors_in(weights, Path(WEIGHTS_FILE)))
    layout = _layout(source, reference)
    name = source.config["base_model_name_or_path"]
    base = {"id": name, "sha256": None, "source": CONFIG_FILE}
    base = base if reference is None else described(reference)
    return _files(source, base, layout, None, {}), layout


def _read(request: ImportRequest, progress: Progress) -> tuple[Source, BaseReference | None]:
    """The adapter, and the base if it was named and is a language model's."""
    path = find_source(request.source)
    if not (path / CONFIG_FILE).is_file():
        return read_source(path, request.base), None
    config = read_any_config(path / CONFIG_FILE)
    reference = resolve_base(request.base) if request.base is not None else None
    if is_plain(config):
        return read_source(path, request.base), reference
    require_convertible(path / CONFIG_FILE, config)
    reference = reference or resolve_base(_base_name(config, request))
    model = load_model(reference, kind=class_of_base(config))
    return convert(path, model, reference.name, rank=request.rank, progress=progress), reference


def _layout(source: Source, reference: BaseReference | None) -> Layout:
    """The adapter's layout, in the base's order where the base is named and its config is there.

    Raises LayoutMismatch: the base has no such modules, or of another shape.
    """
    stored = layout_in(source.config, parted(source.tensors, source.config)[0])
    if reference is None or set(stored.module_types) & set(REFUSED):
        return stored
    if "For" not in class_of_base(source.config):  # a bare model's paths lack the first part
        return stored
    try:
        full = layout_of(load_config(reference), stored.module_types)
    except (BaseModelError, UnsupportedModel):
        return stored
    except UsageError as error:
        raise LayoutMismatch(f"the adapter is not for {reference.name}: {error}") from error
    if {shape_of(s) for s in stored.sites} - {shape_of(s) for s in full.sites}:
        raise LayoutMismatch(
            f"the adapter has {stored.describe()}; {reference.name} has {full.describe()}"
            f"{stored.difference(full)}"
        )
    return full.with_ranks(stored.ranks)


def _files(
    source: Source,
    base: dict[str, Any],
    layout: Layout,
    description: str | None,
    details: dict[str, Any],
) -> AdapterFiles:
    """The three files; the config's bytes are the original's where it had one."""
    weights = save(dict(sorted(source.tensors.items())), metadata={"format": "pt"})
    provenance = Provenance(
        generator=f"imported:{source.format}",
        checkpoint=None,
        description=description,
        seed=0,
        numerics="cpu-f64-torch" if "conversion" in source.note else "as-imported",
        layout_digest=layout.digest,
        base=base,
        details={
            **details,
            "source": source.note,
            "layout": {"model_type": layout.model_type, "depth": layout.depth},
        },
    )
    try:
        files = finish(PeftFiles(source.config, weights), provenance)
    except (TypeError, ValueError) as error:
        raise AdapterFileError(f"the adapter's config cannot be kept: {error}") from error
    if source.config_bytes is None:
        return files
    return replace(files, files={**files.files, CONFIG_FILE: source.config_bytes})


def _base(
    source: Source, request: ImportRequest, reference: BaseReference | None
) -> dict[str, Any]:
    """Id, weights' digest and where they come from; the digest only of a base that was named."""
    if reference is not None:
        return described(reference)
    name = _base_name(source.config, request)
    return {"id": name, "sha256": None, "source": "--base" if request.base else CONFIG_FILE}


def _base_name(config: dict[str, Any], request: ImportRequest) -> str:
    """The base that a config names; `--base` is in the config of an image model's adapter."""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise BaseModelError(f"{request.source} does not name its base model; use --base")
    return name


def _task(request: ImportRequest) -> str:
    return request.task or Path(request.source).resolve().name.removesuffix(".safetensors")


def _record(
    source: Source,
    request: ImportRequest,
    base: dict[str, Any],
    layout: Layout,
    files: AdapterFiles,
) -> Record:
    return new_record(
        task=_task(request),
        description=request.description or _task(request),
        recipe=f"imported:{source.format}",
        base=base,
        id=files.id,
        sha256=files.sha256,
        licenses=[request.license] if request.license else [],
        license_class=request.license_class,
        layout_digest=layout.digest,
        rank=layout.rank,
        extras=[key.removeprefix(PREFIX) for key in parted(source.tensors, source.config)[1]],
    )


def _same(folder: LibraryFolder, source: Source, record: Record) -> Record | None:
    """The record of an import with the same tensors and config, whatever it is called."""
    for name in folder.names(f"{RECORDS}/{IMPORTED}"):
        other = folder.read_json(f"{RECORDS}/{IMPORTED}/{name}")
        if all(other[key] == record[key] for key in ("sha256", "recipe")):
            config = folder.read_json(f"{ADAPTERS}/{other['id']}/{CONFIG_FILE}")
            if json_digest(config) == json_digest(source.config):
                return other
    return None
