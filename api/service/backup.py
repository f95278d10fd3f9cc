"""Backups: all that a data folder keeps, as of one moment, in one tar, also while it is in use.

The tar begins with a manifest, the SHA-256 of each file by name; a restored folder has these bytes,
or is not there.
"""

import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from sqlalchemy import MetaData

from api.errors import BackupDamaged
from api.service.database import Database
from library.archive import tar_parts
from library.canonical import file_digest
from library.errors import MissingPath, OutputExists
from library.files import PIECE, file_pieces, require_absent, whole_file, whole_folder

MANIFEST = "manifest.json"
MAX_MANIFEST = 2**30  # bytes
ADAPTERS = "owners.sqlite3"
# In this order: what a job has made and what a key owns is there where job and key are.
DATABASES = ("jobs.sqlite3", "replies.sqlite3", ADAPTERS, "keys.sqlite3")
_NAME = re.compile(
    r"[a-z]+\.sqlite3|zk/[0-9a-f]+\.json|adapters/ad_[0-9a-f]{40}/[A-Za-z0-9_][A-Za-z0-9_.-]*"
)


@dataclass(frozen=True)
class BackedUp:
    """What a backup holds: how many adapters, and the bytes of all files."""

    adapters: int
    bytes: int


def back_up(folder: Path, out: Path, *, overwrite: bool = False) -> BackedUp:
    """Write a backup of a data folder to a file, which appears whole and for its owner alone.

    Raises:
        OutputExists: there is something at `out`.
        MissingPath: there is no data folder.
        OutputError, OSError: it cannot be written, or the folder not be read.
        StorageFailed: a database cannot be read.
    """
    require_absent(out, overwrite)
    if not folder.is_dir():
        raise MissingPath(f"there is no data folder at {folder}")
    with _moment(folder) as staged, whole_file(out) as path:
        names = sorted(str(file.relative_to(staged)) for file in staged.rglob("*"))
        digests = {name: file_digest(staged / name) for name in names if _NAME.fullmatch(name)}
        path.touch(mode=0o600)
        with path.open("wb") as file:
            file.writelines(tar_parts(_members(staged, digests)))
        sizes = sum((staged / name).stat().st_size for name in digests)
        return BackedUp(_adapters(digests), sizes)


def restore(source: IO[bytes], folder: Path, *, overwrite: bool = False) -> BackedUp:
    """Make a data folder from a backup; it appears whole, in place of an old one if there is one.

    Raises:
        OutputExists: there are files in the folder, and `overwrite` is false.
        BackupDamaged: it is no backup, or not as it was written.
        OutputError: the folder cannot be written.
    """
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise OutputExists(f"{folder} is not empty; use --overwrite to replace it")
    with whole_folder(folder, overwrite=True) as staging:
        try:
            with tarfile.open(fileobj=source, mode="r|") as archive:
                return _unpacked(archive, staging)
        except tarfile.TarError as error:
            raise BackupDamaged(f"the backup is no whole tar: {error}") from error


@contextmanager
def _moment(folder: Path) -> Iterator[Path]:
    """A folder with what a data folder keeps now: copies of its databases, links to its files.

    Files of adapters are replaced and never changed, so that a link keeps what it has.
    """
    staged = Path(tempfile.mkdtemp(prefix=".backup.", dir=folder))
    try:
        for name in DATABASES:
            if (folder / name).exists():
                database = Database(folder / name, MetaData(), "the data folder")
                with database.transaction():  # nobody stores or deletes meanwhile
                    _copy(database, staged / name)
                    if name == ADAPTERS:
                        _link_adapters(folder, staged)
        for ledger in sorted((folder / "zk").glob("*.json")):
            _link(ledger, staged / "zk" / ledger.name)
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _copy(database: Database, target: Path) -> None:
    """Copy a database as it is; its writer's lock is held by another connection."""
    with database.connection() as rows, closing(sqlite3.connect(target)) as copy:
        driver: Any = rows.connection.driver_connection
        driver.backup(copy)


def _link_adapters(folder: Path, staged: Path) -> None:
    backup = Database(staged / ADAPTERS, MetaData(), "the backup")
    for (identity,) in backup.query("SELECT id FROM adapters ORDER BY id"):
        for file in sorted((folder / "adapters" / identity).glob("*")):
            _link(file, staged / "adapters" / identity / file.name)


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(file, target)


def _members(
    staged: Path, digests: Mapping[str, str]
) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and content of each file, the manifest first."""
    manifest = json.dumps({"schema": 1, "files": digests}).encode()
    yield MANIFEST, len(manifest), iter([manifest])
    for name in digests:
        with (staged / name).open("rb") as file:
            yield name, (staged / name).stat().st_size, file_pieces(file)


def _unpacked(archive: tarfile.TarFile, staging: Path) -> BackedUp:
    """Raises BackupDamaged unless every file of the manifest is there, once, as it was."""
    digests, size = _manifest(archive), 0
    adapters = _adapters(digests)
    while (member := archive.next()) is not None:
        expected = digests.pop(member.name, None)
        content = archive.extractfile(member) if member.isreg() else None
        if expected is None or content is None or _NAME.fullmatch(member.name) is None:
            raise BackupDamaged("the backup holds something that its manifest does not name")
        if _written(content, staging / member.name) != expected:
            raise BackupDamaged(f"{member.name} is not as it was when the backup was made")
        size += member.size
    if digests:
        raise BackupDamaged(f"the backup ends too early: it lacks {next(iter(digests))}")
    return BackedUp(adapters, size)


def _adapters(names: Iterable[str]) -> int:
    """How many adapters there are files of."""
    return len({name.split("/")[1] for name in names if name.startswith("adapters/")})


def _manifest(archive: tarfile.TarFile) -> dict[str, str]:
    """The digests by name. Raises BackupDamaged."""
    member = archive.next()
    if member is None or member.name != MANIFEST or not member.isreg():
        raise BackupDamaged(f"this is no backup of lorasmith: it does not begin with {MANIFEST}")
    content = archive.extractfile(member)
    assert content is not None
    try:
        stated: Any = json.loads(content.read(MAX_MANIFEST))
        if stated["schema"] != 1:
            raise BackupDamaged("the backup was made by a newer lorasmith")
        return {str(name): str(digest) for name, digest in stated["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupDamaged("the manifest of the backup cannot be read") from error


def _written(content: IO[bytes], target: Path) -> str:
    """Write a file; its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = sha256()
    with target.open("wb") as file:
        while piece := content.read(PIECE):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
