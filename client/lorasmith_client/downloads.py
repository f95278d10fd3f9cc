"""Files of adapters: each is held to its SHA-256, and a folder appears whole or not at all."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from lorasmith_client.answers import Adapter, File
from lorasmith_client.errors import DigestMismatch, UnexpectedAnswer
from lorasmith_client.flow import Flow, Request, ask, get, segment
from lorasmith_client.parsing import parsed

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def get_adapter(adapter: str) -> Flow[Adapter]:
    """An adapter, by its id or a name as `router@v2`."""
    return parsed(Adapter, (yield from get(_path(adapter))))


def read_file(adapter: str, name: str) -> Flow[bytes]:
    """A file of an adapter, held to the SHA-256 that the service sends with it."""
    content = bytearray()
    yield from _checked(f"{_path(adapter)}/files/{segment(name)}", content.extend)
    return bytes(content)


def download(adapter: str, folder: str | Path, files: Collection[str] | None = None) -> Flow[Path]:
    """Put an adapter's files (default: all) into a new folder, which PEFT and vLLM read.

    Raises:
        FileExistsError: there is such a folder, and it is not empty.
        NotFound: there is no such adapter, or it has no such file.
        DigestMismatch: a file is not what the adapter says it is.
    """
    record, target = (yield from get_adapter(adapter)), Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as temporary:
        place = Path(temporary) / "adapter"
        place.mkdir()
        for name in record.files if files is None else files:
            # By the id: a name may mean another adapter by now. The service's own URL is not used.
            path = f"{_path(record.id)}/files/{segment(name)}"
            with (place / _plain(name)).open("xb") as out:
                yield from _checked(path, out.write, record.files.get(name))
        _become(place, target)
    return target


def download_archive(adapter: str, path: str | Path) -> Flow[Path]:
    """Write all files of an adapter as one tar to a path, in place of what is there."""
    target = Path(path)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as temporary:
        place = Path(temporary) / "archive"
        with place.open("xb") as out:
            yield from _checked(f"{_path(adapter)}/archive", out.write)
        os.replace(place, target)
    return target


def _path(adapter: str) -> str:
    return f"/v1/adapters/{segment(adapter)}"


def _plain(name: str) -> str:
    """The name of a file, which leads to no other folder."""
    if not _NAME.fullmatch(name):
        raise UnexpectedAnswer(f"{name!r} is no name of a file")
    return name


def _become(place: Path, target: Path) -> None:
    try:
        place.rename(target)  # also onto an empty folder
    except OSError as error:
        if target.exists():
            raise FileExistsError(f"{target} exists already") from error
        raise


def _checked(
    path: str, write: Callable[[bytes], object], expected: File | None = None
) -> Flow[None]:
    """Write a body as it comes. Raises DigestMismatch, at once if it is longer than expected."""
    sha256, size = hashlib.sha256(), 0

    def sink(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        if expected is not None and size > expected.bytes:
            raise DigestMismatch(f"{path} is longer than {expected.bytes:,} bytes")
        sha256.update(piece)
        write(piece)

    response = yield from ask(Request("GET", path, sink=sink))
    told = response.headers.get("etag", "").strip('"')
    if sha256.hexdigest() != (told if expected is None else expected.sha256):
        raise DigestMismatch(f"the SHA-256 of {path} is not the one that the service tells")
