"""Stored adapters in the order of a base's layout."""

from collections.abc import Mapping
from pathlib import Path

from library.adapter import Adapter
from library.base.models import BaseModel, BaseReference, base_layout
from library.peft.read import adapter_of, read_peft


def adapter_for_base(files: Mapping[str, bytes], base: BaseReference | BaseModel) -> Adapter:
    """One adapter (n = 1) from the content of its files, by name.

    Raises as library.peft.read.adapter_of does; LayoutMismatch or UnsupportedModel if it is not for
    this base.
    """
    return adapter_of(files, base_layout(base, adapter_of(files).layout))


def read_for_base(folder: Path, base: BaseReference) -> Adapter:
    """The same from its folder. Raises MissingPath as well."""
    return read_peft(folder, base_layout(base, read_peft(folder).layout))
