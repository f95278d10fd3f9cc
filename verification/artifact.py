"""An adapter under verification: its files' bytes, read within limits, and what they parse to."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.adapter import Adapter
from library.base.models import BaseReference
from library.canonical import digest
from library.errors import AdapterFileError
from library.exchange.source import DIFFUSERS_FILE
from library.files import require_present
from library.peft.folder import MAX_JSON, MAX_WEIGHTS, PICKLES, UnreadableFile, read_adapter_file
from library.peft.keys import Shape, is_whole_embedding, pairs_of
from library.peft.provenance import PROVENANCE_FILE, SIGNATURE_FILE
from library.peft.read import adapter_of
from library.peft.safetensors_file import BadFile, Header, parse_object, read_header
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.tasks.files import Example

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_NAMES = 10_000

ShareProgress = Callable[[float], None]  # called with the share that is done, from 0 to 1


@dataclass(frozen=True)
class Artifact:
    """One adapter. Parsed parts are read when first asked for and may raise BadFile.

    Attributes:
        files: content by name; the weights, the config and the provenance, as far as they exist.
        weights: name of the weights among them.
        names: of everything in the folder, sorted; empty for a single file.
        folder: whether it came as a folder, which has to have a config.
        stated: the provenance of a new adapter, which is not encoded yet.
    """

    files: Mapping[str, bytes]
    weights: str = WEIGHTS_FILE
    names: tuple[str, ...] = ()
    folder: bool = True
    stated: dict[str, Any] | None = None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return digest(self.files[self.weights])

    @cached_property
    def header(self) -> Header:
        return read_header(self.files[self.weights])

    @cached_property
    def config(self) -> dict[str, Any] | None:
        return self._json(CONFIG_FILE, "config")

    @cached_property
    def provenance(self) -> dict[str, Any] | None:
        return self.stated or self._json(PROVENANCE_FILE, "provenance")

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every tensor, by name."""
        return {name: entry.shape for name, entry in self.header.tensors.items()}

    @cached_property
    def pairs(self) -> dict[str, tuple[Shape, Shape]]:
        """Shapes of A and B of every module of a LoRA, as `pairs_of` gives them."""
        return pairs_of(self.shapes, self.config or {})

    @cached_property
    def whole_embedding(self) -> str | None:
        """The name of a tensor that is a whole embedding; None if there is none."""
        return next((key for key in self.shapes if is_whole_embedding(key)), None)

    @cached_property
    def adapter(self) -> Adapter:
        """The factors. Raises AdapterFileError unless it is a plain LoRA with its config."""
        if CONFIG_FILE not in self.files or self.weights != WEIGHTS_FILE:
            raise AdapterFileError(f"it has no {CONFIG_FILE} beside an {WEIGHTS_FILE}")
        return adapter_of(self.files)

    def recorded(self, *members: str) -> str | None:
        """The text recorded in a member of the provenance, or a member of one; else None."""
        value: Any = self.provenance
        for name in members:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None

    def _json(self, name: str, reason: str) -> dict[str, Any] | None:
        content = self.files.get(name)
        return None if content is None else parse_object(content, name, reason)


@dataclass(frozen=True)
class Context:
    """The circumstances that an adapter is checked under.

    Attributes:
        target: the server that is to load it; None: none in particular.
        base: the base model; None: the one that the config names, if that is the packaged one.
        public_key: whose holder has to have signed it; None: anyone or no one.
        examples: of its task, for the behaviour hook.
        progress: called with the share that is done, often; what it raises ends the check,
            and it has to raise it at every further call.
    """

    target: str | None = None
    base: BaseReference | None = None
    public_key: "Ed25519PublicKey | None" = None
    examples: Sequence[Example] = ()
    progress: ShareProgress = lambda share: None


def read_artifact(path: Path, provenance: Path | None = None) -> Artifact:
    """Read a folder or a single safetensors file; nothing is unpickled or followed further.

    Args:
        provenance: stands in for the folder's own provenance.json.
    Raises:
        MissingPath: `path` or `provenance` does not exist.
        BadFile: it cannot be read, is too large, or holds no safetensors file.
    """
    require_present(path, provenance)
    if path.is_dir():
        names = _names(path)
        weights = _weights_among(names)
        files = {weights: _read(path / weights, MAX_WEIGHTS)}
        for name in (CONFIG_FILE, PROVENANCE_FILE, SIGNATURE_FILE):
            if name in names:
                files[name] = _read(path / name, MAX_JSON)
    else:
        names, weights = (), path.name
        if path.suffix in PICKLES:
            raise BadFile("pickle", f"{path.name} is a pickle: safetensors only")
        files = {weights: _read(path, MAX_WEIGHTS)}
    if provenance is not None:
        files[PROVENANCE_FILE] = _read(provenance, MAX_JSON)
    return Artifact(files, weights, names, bool(path.is_dir()))


def _names(folder: Path) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry in islice(listing, MAX_NAMES + 1)]
    except OSError as error:
        raise BadFile("unreadable", f"the folder cannot be read: {error.strerror}") from error
    if len(names) > MAX_NAMES:
        raise BadFile("too-many", f"the folder holds more than {MAX_NAMES} files")
    return tuple(sorted(names))


def _weights_among(names: tuple[str, ...]) -> str:
    tensors = [name for name in names if name.endswith(".safetensors")]
    for name in (WEIGHTS_FILE, DIFFUSERS_FILE):
        if name in tensors:
            return name
    if len(tensors) == 1 and CONFIG_FILE not in names:
        return tensors[0]
    pickle = next((name for name in names if name.endswith(PICKLES)), None)
    if pickle is not None:
        raise BadFile("pickle", f"{pickle} is a pickle, which can run code: safetensors only")
    raise BadFile("no-weights", f"there is no {WEIGHTS_FILE}")


def _read(path: Path, limit: int) -> bytes:
    """A regular file's content, as `read_adapter_file` reads it. Raises BadFile."""
    try:
        return read_adapter_file(path, limit)
    except UnreadableFile as error:
        evidence = {} if error.limit is None else {"limit": error.limit}
        raise BadFile(error.reason, f"{path.name} {error.fault}", **evidence) from error
