"""Adapters that are sent as a tar: its members, read one by one and never written anywhere.

Only plain headers count. What could mean something else to another reader (links, sparse files,
names or sizes in extended headers) is refused, and so is a member before its content is read.
"""

import re
import tarfile
from typing import IO

from api.errors import MalformedBody, Refused
from library.files import PIECE
from library.peft.folder import MAX_JSON, MAX_WEIGHTS
from library.peft.provenance import PROVENANCE_FILE, README_FILE, SIGNATURE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

FILES = {
    CONFIG_FILE: MAX_JSON,
    WEIGHTS_FILE: MAX_WEIGHTS,
    PROVENANCE_FILE: MAX_JSON,
    SIGNATURE_FILE: MAX_JSON,
    README_FILE: MAX_JSON,
}  # limits in bytes
MAX_HEADERS = 3 * len(FILES)  # each file may have an extended header; a folder, a global header
MAX_EXTENDED = 2**16  # bytes
BLOCK = tarfile.BLOCKSIZE
# Each line is looked at once: a pattern that runs on over lines would take half a second a header.
_MEANINGFUL = re.compile(rb"(?:^|\n)[0-9]+ (?:(?:path|linkpath|size)=|GNU\.sparse)")


def adapter_in(file: IO[bytes]) -> dict[str, bytes]:
    """The files of an adapter by name, from an uncompressed tar that holds them, or their folder.

    Raises:
        MalformedBody: it is no tar, damaged, or ends too early.
        Refused: it holds something else, or lacks config or weights.
    """
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    for _ in range(MAX_HEADERS):
        block = _exactly(file, BLOCK)
        if not any(block):
            _require_end(file)
            break
        member = _header(block)
        content = _exactly(file, member.size)
        _exactly(file, -member.size % BLOCK)
        if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            if _MEANINGFUL.search(content):
                raise Refused("an extended header changes a name or a size")
            continue
        folder, name = _place(member)
        if len(folders | {folder}) > 1 or name in files:
            raise Refused("the archive has more than one folder, or a file twice")
        folders.add(folder)
        if name:
            files[name] = content
    else:
        raise Refused("the archive holds more than the files of an adapter")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in files:
            raise Refused(f"the archive holds no {name}")
    return files


def _header(block: bytes) -> tarfile.TarInfo:
    """A header, once it is known that its member may be read."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise MalformedBody(f"the body is not a tar: {error}") from error
    if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
        limit = MAX_EXTENDED
    elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
        limit = FILES.get(_place(member)[1], 0)
    elif member.type == tarfile.DIRTYPE:
        limit = 0
    else:
        raise Refused("the archive holds something that is neither a file nor a folder")
    if not 0 <= member.size <= limit:
        raise Refused(f"a member of the archive has {member.size} bytes; {limit} are read")
    return member


def _place(member: tarfile.TarInfo) -> tuple[str, str]:
    """A member's folder, or "", and its name, which a folder does not have."""
    path = "" if member.name == "." else member.name.removeprefix("./")
    folder, name = (path, "") if member.isdir() else path.rpartition("/")[::2]
    if path.startswith("/") or "/" in folder or folder == ".." or (name and name not in FILES):
        raise Refused(f"the archive may hold {', '.join(FILES)}, in one folder at most")
    return folder, name


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise MalformedBody("the body is not a whole tar: it ends too early")
    return content


def _require_end(file: IO[bytes]) -> None:
    """Raise MalformedBody unless nothing follows but zeros, one block of them at least."""
    _require_zeros(_exactly(file, BLOCK))
    while piece := file.read(PIECE):
        _require_zeros(piece)


def _require_zeros(piece: bytes) -> None:
    if any(piece):
        raise MalformedBody("the body is not a tar: something follows its end")
