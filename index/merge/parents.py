"""The adapters that a merge is made from: folders or adapters of a library, all for one base."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.base.models import (
    BaseReference,
    described,
    of_one_base,
    resolve_base,
    same_base,
)
from library.base.stored_adapters import adapter_for_base
from library.base.usage import Usage, usage_of
from library.canonical import digest
from library.errors import (
    AdapterFileError,
    BaseModelError,
    LayoutMismatch,
    MissingPath,
    UnknownName,
    UnsupportedModel,
)
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE, SIGNATURE_FILE, adapter_id
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.store.catalogue import Catalogue, files_of, find

Gate = Callable[[str, Mapping[str, bytes]], None]  # of a parent's name and files; raises to refuse


@dataclass(frozen=True)
class Parent:
    """An adapter to merge.

    Attributes:
        name: as it was typed.
        id: of its provenance; of an adapter from elsewhere, `sha256:` and its weights' digest.
        base: {"id", "sha256", "source"} of its base model.
        description: of its task, by its provenance; None of an adapter from elsewhere.
        examples: digest of what it was made from or trained on, likewise.
    """

    name: str
    id: str
    base: dict[str, Any]
    files: dict[str, bytes]
    description: str | None = None
    examples: str | None = None


@dataclass(frozen=True)
class Parents:
    """Adapters of one base, each of its own modules and ranks, and what provenance says of it.

    Attributes:
        usages: the prompt that each was made for.
        descriptions: of the task of each, where provenance has one.
        examples: digests of the examples of each, likewise.
    """

    ids: list[str]
    adapters: list[Adapter]
    base: dict[str, Any]
    usages: list[Usage]
    descriptions: list[str | None]
    examples: list[str | None]

    @property
    def plain_usages(self) -> list[Usage]:
        """The usages without the examples that their messages show."""
        pairs = zip(self.usages, self.descriptions, strict=True)
        return [usage.without_examples(description) for usage, description in pairs]


def read_parents(
    names: Sequence[str], catalogue: Catalogue, base: str | None, gate: Gate | None = None
) -> Parents:
    """Read adapters, a folder each or an id or task of the library.

    Args:
        names: what was typed.
        catalogue: of the library that ids and tasks are looked up in.
        base: Hub id or folder of their base; None for what they say themselves.
        gate: called with the name and files of each; raises AdapterRefused.
    Raises:
        AdapterRefused: by the gate.
        MissingPath, UnknownName: there is no such adapter.
        AdapterFileError: damaged, or not a plain LoRA.
        LayoutMismatch: they are for different bases, or not for the one that was named.
    """
    parents = [_parent(name, catalogue) for name in names]
    if gate is not None:
        for parent in parents:
            gate(parent.name, parent.files)
    record = described(resolve_base(base)) if base is not None else parents[0].base
    for other in parents:
        _require_same_base(other, record, parents[0].name if base is None else "--base")
    reference = None if base is None else resolve_base(base)
    adapters = [_adapter(parent, reference) for parent in parents]
    return _parents(parents, adapters, record)


def parents_for(named: Sequence[tuple[str, dict[str, bytes]]], base: BaseReference) -> Parents:
    """Adapters whose files are at hand, for a base.

    Args:
        named: the name and files of each.
    Raises AdapterFileError; LayoutMismatch if one is for another base.
    """
    parents, record = [_named(name, files) for name, files in named], described(base)
    for parent in parents:
        _require_same_base(parent, record, base.name)
    adapters = [adapter_for_base(parent.files, base) for parent in parents]
    return _parents(parents, adapters, record)


def stated_base(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """{"id", "sha256", "source"} of the base that an adapter's files name.

    Raises AdapterFileError; BaseModelError if they name none.
    """
    return _named(name, files).base


def _parents(parents: Sequence[Parent], adapters: list[Adapter], record: dict[str, Any]) -> Parents:
    return Parents(
        [parent.id for parent in parents],
        adapters,
        record,
        [usage_of(parent.files) for parent in parents],
        [parent.description for parent in parents],
        [parent.examples for parent in parents],
    )


def _parent(name: str, catalogue: Catalogue) -> Parent:
    folder = Path(name)
    if not name or not os.path.exists(folder):  # also of a name that is too long for a path
        try:
            identity = find(catalogue, name)["id"]
        except UnknownName as error:
            if folder.name != name:  # it looks like a path
                raise MissingPath(f"there is no adapter folder at {name}") from error
            raise
        return _named(name, files_of(catalogue.folder, identity))
    if not folder.is_dir():
        raise AdapterFileError(f"{name} is not an adapter folder")
    return _named(name, read_adapter_folder(folder, optional=(PROVENANCE_FILE, SIGNATURE_FILE)))


def _named(name: str, files: dict[str, bytes]) -> Parent:
    """The parent with its provenance's identity if that matches the files, else its digest."""
    sha256 = digest(files[WEIGHTS_FILE])
    try:
        config = json.loads(files[CONFIG_FILE])
        provenance = json.loads(files.get(PROVENANCE_FILE, b"null"))
        if provenance is not None and adapter_id(config, sha256, provenance) == provenance["id"]:
            record = {key: provenance["base"][key] for key in ("id", "sha256", "source")}
            known = (provenance["description"], provenance.get("examples"))
            return Parent(name, provenance["id"], record, files, *known)
        base = config["base_model_name_or_path"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterFileError(f"{name} does not say what it is: {error}") from error
    if not isinstance(base, str) or not base:
        raise BaseModelError(f"{name} does not name its base model")
    record = {"id": base, "sha256": None, "source": CONFIG_FILE}
    return Parent(name, f"sha256:{sha256}", record, files)


def _require_same_base(parent: Parent, record: dict[str, Any], other: str) -> None:
    if of_one_base(parent.base, record):
        return
    if same_base(parent.base["id"], record["id"]):
        raise LayoutMismatch(
            f"{parent.name} and {other} are for different weights of {record['id']}"
        )
    raise LayoutMismatch(
        f"{parent.name} is for {parent.base['id']}, and {other} for {record['id']}"
    )


def _adapter(parent: Parent, reference: BaseReference | None) -> Adapter:
    """A parent in the base's order; in the file's if the base's config is not here.

    Raises LayoutMismatch: the base has other modules.
    """
    try:
        return adapter_for_base(parent.files, reference or resolve_base(parent.base["id"]))
    except (BaseModelError, UnsupportedModel, UnknownName, MissingPath):
        if reference is not None:
            raise
        return adapter_of(parent.files)
