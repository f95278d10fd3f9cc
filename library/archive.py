"""Tar archives that depend on their members alone: no owner, no clock, in the order given."""

import tarfile
from collections.abc import Iterable, Iterator

Member = tuple[str, int, Iterable[bytes]]  # name, size in bytes, content in pieces


def tar_parts(members: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of a tar archive, piece by piece; nothing of it is kept."""
    for name, size, content in members:
        member = tarfile.TarInfo(name)  # mode 0644, owner 0, 1970
        member.size = size
        yield member.tobuf(tarfile.USTAR_FORMAT)
        yield from content
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def tar_size(sizes: Iterable[int]) -> int:
    """The size of an archive of files of these sizes, in bytes."""
    block = tarfile.BLOCKSIZE
    return sum(block + size + -size % block for size in sizes) + 2 * block
