"""Digests of an adapter's tensors: one each, and a Merkle root over all of them.

Each is the SHA-256 of the tensor's raw bytes, which is what SGLang takes as `expected_checksums`.
The tree is that of RFC 6962, section 2.1 (leaves and nodes are hashed with different prefixes); its
leaves are canonical JSON of [name, dtype, shape, digest], sorted by name.
"""

from collections.abc import Sequence

from library.canonical import canonical_json, digest
from verification.artifact import Artifact


def tensor_digests(subject: Artifact) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, by name, sorted. Raises BadFile."""
    content = memoryview(subject.files[subject.weights])
    return {
        name: digest(content[entry.start : entry.end])
        for name, entry in sorted(subject.header.tensors.items())
    }


def merkle_root(subject: Artifact, digests: dict[str, str]) -> str:
    """The root over all tensors, in hex. Raises BadFile."""
    entries = subject.header.tensors
    leaves = [
        canonical_json([name, entries[name].dtype, list(entries[name].shape), sha256])
        for name, sha256 in sorted(digests.items())
    ]
    return _root(leaves).hex()


def _root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return bytes.fromhex(digest(b"\x00" + leaves[0]))
    half = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below their number
    return bytes.fromhex(digest(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])))
