"""An adapter in a folder, of one base model, which is read when it is first needed."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from generator.refine.limits import UNDESCRIBED
from generator.resources import Fit
from index.merge.parents import stated_base
from library.adapter import Adapter
from library.base.models import BaseReference, base_layout, described, of_one_base, same_base
from library.canonical import digest
from library.errors import AdapterFileError, LayoutMismatch, UsageError
from library.layout import Layout
from library.peft.folder import read_adapter_folder
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import adapter_of
from library.peft.write import WEIGHTS_FILE


class StoredAdapter:
    """A stored adapter (n = 1) of one base model.

    Args:
        folder: of the adapter; an installation may lack it.
        name: what it is, for errors.

    What reads its files raises AdapterFileError if they are damaged or hold no plain LoRA.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._fit = Fit(self._require_same_base)
        self._adapted: dict[BaseReference, Adapter] = {}

    def unavailable(self, base: BaseReference) -> str:
        """The reason why it cannot serve a base; empty if it can."""
        if not self.folder.exists():
            return f"this installation has no {self.name} adapter"
        return self._fit.misfit(base)

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of its weights' file."""
        return digest(self._files[WEIGHTS_FILE])

    @property
    def trained_on(self) -> list[str] | None:
        """Names of its real training tasks; None if its provenance does not say."""
        return self._details.get("tasks")

    @property
    def tasks_seen(self) -> int | None:
        """Number of its real and authored training tasks; None if its provenance does not say."""
        if self.trained_on is None:
            return None
        return len(self.trained_on) + self._details.get("authored_tasks", 0)

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
    def _details(self) -> dict[str, Any]:
        return json.loads(self._files.get(PROVENANCE_FILE, b"{}")).get("details") or {}

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return read_adapter_folder(self.folder)

    @cached_property
    def _stored(self) -> Adapter:
        files = self._files
        try:
            return adapter_of(files)
        except AdapterFileError as error:
            raise AdapterFileError(f"{self.folder} cannot be used: {error}") from error

    def _require_same_base(self, base: BaseReference) -> None:
        """By name; else by modules and then, as hashing a large base takes seconds, by weights."""
        made_for = stated_base(str(self.folder), self._files)
        if any(same_base(made_for["id"], known) for known in (base.name, base.path)):
            return
        modules = {*base_layout(base, self._stored.layout).sites}
        if modules != {*self._stored.layout.sites} or not of_one_base(made_for, described(base)):
            raise LayoutMismatch(
                f"the {self.name} adapter is for {made_for['id']}, not for {base.name}"
            )


def to_read(description: str | None, missing: str, what: str) -> str:
    """The description that a stored adapter is to read.

    Args:
        missing: the reason why there is no adapter that can; empty if there is.
        what: nothing can do without it.
    Raises UsageError without a description; LayoutMismatch if something is missing.
    """
    if description is None:
        raise UsageError(UNDESCRIBED)
    if missing:
        raise LayoutMismatch(f"nothing can {what}: {missing}")
    return description
