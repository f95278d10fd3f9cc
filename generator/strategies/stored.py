"""An adapter in a folder, of one base model, which is read when it is first needed."""

import json
from functools import cached_property
from pathlib import Path

from generator.refine.limits import UNDESCRIBED
from generator.resources import Fit
from library.adapter import Adapter
from library.base.models import BaseReference, base_layout, described, of_one_base, same_base
from library.canonical import digest
from library.errors import LayoutMismatch, UsageError
from library.layout import Layout
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE


class StoredAdapter:
    """A stored adapter (n = 1) of one base model.

    Args:
        folder: of the adapter; an installation may lack it.
        name: what it is, for errors.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self.name = folder, name
        self._fit = Fit(self._require_same_base)
        self._adapted: dict[BaseReference, Adapter] = {}

    def unavailable(self, base: BaseReference) -> str:
        """The reason why it cannot serve a base; empty if it can."""
        if not self._folder.is_dir():
            return f"this installation has no {self.name} adapter"
        return self._fit.misfit(base)

    def required(self, description: str | None, base: BaseReference, what: str) -> str:
        """The description that it is to read, where it can serve the base.

        Raises UsageError without a description; LayoutMismatch, by what nothing can do then.
        """
        if description is None:
            raise UsageError(UNDESCRIBED)
        missing = self.unavailable(base)
        if missing:
            raise LayoutMismatch(f"nothing can {what}: {missing}")
        return description

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of its weights' file."""
        return digest(self._files[WEIGHTS_FILE])

    @property
    def trained_on(self) -> list[str] | None:
        """Names of its training tasks; None if its provenance does not say."""
        provenance = json.loads(self._files.get(PROVENANCE_FILE, b"{}"))
        return (provenance.get("details") or {}).get("tasks")

    @property
    def layout(self) -> Layout:
        """The modules that it changes."""
        return self._stored.layout

    def adapter_for(self, base: BaseReference) -> Adapter:
        """The adapter in the order of a base's layout, read once.

        Raises LayoutMismatch, UnsupportedModel: it is not for this base.
        """
        self._fit.require(base)
        if base not in self._adapted:
            layout = base_layout(base, self._stored.layout)
            self._adapted[base] = adapter_of(self._files, layout)
        return self._adapted[base]

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return read_adapter_folder(self._folder)

    @cached_property
    def _stored(self) -> Adapter:
        return adapter_of(self._files)

    def _require_same_base(self, base: BaseReference) -> None:
        """By name; else by modules and then, as hashing a large base takes seconds, by weights."""
        named = json.loads(self._files[CONFIG_FILE])["base_model_name_or_path"]
        if same_base(named, base.name):
            return
        made_for = json.loads(self._files.get(PROVENANCE_FILE, b"{}")).get("base")
        modules = {*base_layout(base, self._stored.layout).sites}
        if (
            made_for is None
            or modules != {*self._stored.layout.sites}
            or not of_one_base(made_for, described(base))
        ):
            raise LayoutMismatch(f"the {self.name} adapter is for {named}, not for {base.name}")
