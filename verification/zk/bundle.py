"""Proofs in a file, for a check that takes no conversation: inputs come from a hash.

The verifier gives a nonce; each module's input row, and which modules are proved, follow from it
and from the manifest. The file holds outputs and proofs, and no inputs: the verifier has its own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from library.canonical import canonical_json
from library.errors import MissingPath, UsageError
from verification.artifact import ShareProgress
from verification.zk.backend import Backend, Srs
from verification.zk.integers import PROTOCOL, hashed_row, sampled
from verification.zk.manifest import STRICT, Manifest, Sha256, parse_strictly, require_distinct
from verification.zk.proof import Owner, Statement
from verification.zk.report import Report, proof_refusal
from verification.zk.verify import verify_proofs


def integers(texts: Sequence[str]) -> list[int]:
    """Decimal integers of at most 40 digits. Raises ValueError."""
    if any(len(text) > 41 or not text.removeprefix("-").isdecimal() for text in texts):
        raise ValueError("an output is not a decimal integer")
    return [int(text) for text in texts]


def _decimal(texts: list[str]) -> list[str]:
    integers(texts)
    return texts


@dataclass(frozen=True)
class ModuleProof:
    """One module's output row, as decimal integers (times 2⁻⁷²), and its proof in hex."""

    __pydantic_config__ = STRICT

    name: str
    y: Annotated[list[str], AfterValidator(_decimal)]
    proof: str


@dataclass(frozen=True)
class Bundle:
    """Proofs for one manifest and one nonce."""

    __pydantic_config__ = STRICT

    protocol: Annotated[str, Field(pattern=f"^{PROTOCOL}$")]
    manifest: Sha256
    nonce: str
    modules: Annotated[list[ModuleProof], AfterValidator(require_distinct)]

    def to_bytes(self) -> bytes:
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Bundle":
        """A bundle, read strictly; see `parse_strictly`. Raises ProofFileError."""
        return parse_strictly(cls, content, f"{where} is not a proof")


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file. Raises MissingPath, ProofFileError."""
    if not path.is_file():
        raise MissingPath(f"there is no proof at {path}")
    return Bundle.from_bytes(path.read_bytes(), str(path))


def prove_hashed(
    owner: Owner,
    nonce: str,
    count: int | None,
    progress: ShareProgress = lambda share: None,
) -> Bundle:
    """Prove `count` modules that the nonce selects (all if None), one row each.

    `progress` is called with the share that is proved. Raises UsageError, ProofLimit, ProverError.
    """
    manifest = owner.manifest
    names = selected(manifest, nonce, count)
    x = {name: [_row(manifest, name, nonce)] for name in names}
    y = owner.answer(x, hashed=True)
    statements = [Statement(manifest.digest, name, nonce, "", x[name], y[name]) for name in names]
    proofs = owner.prove(statements, progress)
    return Bundle(
        protocol=PROTOCOL,
        manifest=manifest.digest,
        nonce=nonce,
        modules=[
            ModuleProof(name, [str(value) for value in y[name][0]], proof)
            for name, proof in zip(names, proofs, strict=True)
        ],
    )


def verify_hashed(
    manifest: Manifest, bundle: Bundle, nonce: str, count: int | None, srs: Srs, backend: Backend
) -> Report:
    """Check a bundle for a nonce of the verifier's; modules beyond those selected count too."""

    def refuse(code: str, message: str) -> Report:
        return Report(manifest, [proof_refusal(code, message)], [], 1)

    if bundle.manifest != manifest.digest:
        return refuse("manifest-mismatch", "the proof was made for another manifest")
    if bundle.nonce != nonce:
        return refuse("challenge-mismatch", "the proof was made for another nonce")
    names = [module.name for module in bundle.modules]
    unknown = [name for name in names if name not in manifest.by_name]
    missing = [name for name in selected(manifest, nonce, count) if name not in names]
    if unknown:
        return refuse("module-unknown", f"{unknown[0]} is not in the manifest")
    if missing:
        return refuse("module-missing", f"{missing[0]} is not proved")
    statements = [
        Statement(
            manifest.digest, m.name, nonce, "", [_row(manifest, m.name, nonce)], [integers(m.y)]
        )
        for m in bundle.modules
    ]
    return verify_proofs(manifest, statements, [m.proof for m in bundle.modules], srs, backend)


def selected(manifest: Manifest, nonce: str, count: int | None) -> list[str]:
    """The modules that a nonce selects. Raises UsageError for a nonce or count that will not do."""
    require_nonce(nonce)
    names = [module.name for module in manifest.modules]
    if count is None:
        return names
    require_count(len(names), count)
    return sampled(manifest.digest, nonce, names, count)


def require_count(modules: int, count: int | None) -> None:
    """Raise UsageError unless `count` of the modules can be proved (all if None)."""
    if count is not None and not 1 <= count <= modules:
        raise UsageError(f"the adapter has {modules} modules: modules must be 1 to that")


def require_nonce(nonce: str) -> None:
    """Raise UsageError for a nonce that will not do."""
    if not 8 <= len(nonce) <= 200 or not nonce.isprintable():
        raise UsageError("a nonce is 8 to 200 printable characters, drawn by the verifier")


def _row(manifest: Manifest, name: str, nonce: str) -> list[int]:
    return hashed_row(manifest.digest, name, nonce, manifest.by_name[name].in_features)
