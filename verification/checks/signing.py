"""Signed statements about an adapter: in-toto, SLSA provenance, DSSE, ed25519.

The statement (in-toto v1, https://in-toto.io/Statement/v1) lists the digest of every file; its
predicate has the form of SLSA provenance v1 and says what the adapter was made from, with a digest
for every tensor and the Merkle root over them. It is a function of the files and of the code that
signs: no time, no machine. The envelope is DSSE 1.0, so that other tools can check it.
"""

import base64
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from library.canonical import canonical_json, digest, file_digest, json_digest
from library.errors import InputFileError, OutputError, OutputExists
from library.peft.folder import MAX_JSON
from library.peft.provenance import PROVENANCE_FILE
from library.peft.safetensors_file import BadFile, parse_object
from library.peft.write import CONFIG_FILE
from verification.artifact import Artifact
from verification.checks.digests import merkle_root, tensor_digests

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:lorasmith:adapter:v1"
MERKLE_ROOT = "merkle-root"
CODE_FOLDERS = ("api", "generator", "index", "library", "training", "verification")
MAX_SIGNATURES = 16
Key = TypeVar("Key")


def statement(subject: Artifact) -> dict[str, Any]:
    """The in-toto statement that a signature covers. Raises BadFile if a file cannot be read."""
    provenance = subject.provenance or {}
    digests = tensor_digests(subject)
    base = provenance.get("base") if isinstance(provenance.get("base"), dict) else {}
    external = ("description", "examples", "parents", "seed")
    dependencies = {
        "base-model": (base or {}).get("sha256"),
        "checkpoint": provenance.get("checkpoint"),
    }
    return {
        "_type": STATEMENT_TYPE,
        "predicateType": PREDICATE_TYPE,
        "subject": _descriptors(file_digests(subject)),
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {key: provenance.get(key) for key in external},
                "internalParameters": {k: provenance.get(k) for k in ("layout_digest", "numerics")},
                "resolvedDependencies": _descriptors(
                    (name, sha256) for name, sha256 in dependencies.items() if sha256
                ),
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:lorasmith:{provenance.get('generator', 'unknown')}",
                    "version": {"lorasmith": code_digest()},
                },
                "metadata": {"invocationId": provenance.get("id")},
                "byproducts": _descriptors(
                    [(MERKLE_ROOT, merkle_root(subject, digests)), *digests.items()]
                ),
            },
        },
    }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over the sources of the code that signs, by path."""
    root = Path(__file__).resolve().parents[2]
    paths = sorted(path for name in CODE_FOLDERS for path in (root / name).rglob("*.py"))
    return json_digest({path.relative_to(root).as_posix(): file_digest(path) for path in paths})


def file_digests(subject: Artifact) -> list[tuple[str, str]]:
    """SHA-256 of the weights, the config and the provenance, as far as there are, by name."""
    others = {CONFIG_FILE, PROVENANCE_FILE} & set(subject.files)
    digests = {name: digest(subject.files[name]) for name in others}
    return sorted({**digests, subject.weights: subject.sha256}.items())


def sign_artifact(subject: Artifact, key: "Ed25519PrivateKey") -> bytes:
    """A DSSE envelope of the statement; ed25519 is deterministic, so its bytes are fixed.

    Raises BadFile, ValueError (a provenance with numbers that canonical JSON cannot hold).
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import (
        CryptoSigner,  # pyright: ignore[reportPrivateImportUsage]
        SSlibKey,  # pyright: ignore[reportPrivateImportUsage]
    )

    envelope = Envelope(canonical_json(statement(subject)), PAYLOAD_TYPE, {})
    public = key.public_key()
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(public, key_id(public))))
    return (json.dumps(envelope.to_dict(), indent=2) + "\n").encode()


def signed_statement(content: bytes, key: "Ed25519PublicKey") -> dict[str, Any]:
    """The statement in an envelope that the key has signed.

    Raises BadFile: `signature` if it is no envelope, `signature-wrong` if no signature is the
    key's, `signed-as-other` if one is, but of a statement of another kind than `sign` writes.
    """
    from cryptography.exceptions import InvalidSignature
    from securesystemslib.dsse import Envelope

    # Not Envelope.from_dict and verify: they refuse signatures without a key id, which DSSE leaves
    # optional, and take that id, which nobody signed, for the choice of the key.
    envelope = parse_object(content, "the envelope", "signature")
    signatures = envelope.get("signatures")
    if envelope.get("payloadType") != PAYLOAD_TYPE or not isinstance(signatures, list):
        raise BadFile("signature", "the envelope is not one of an in-toto statement")
    payload = _decoded(envelope.get("payload"))
    message = Envelope(payload, PAYLOAD_TYPE, {}).pae()
    for entry in signatures[:MAX_SIGNATURES]:
        signature = _decoded(entry.get("sig") if isinstance(entry, dict) else None)
        with suppress(InvalidSignature):
            key.verify(signature, message)
            return _require_kind(parse_object(payload, "the statement", "signature"))
    raise BadFile("signature-wrong", "no signature was made with this key")


def _require_kind(signed: dict[str, Any]) -> dict[str, Any]:
    """A signed statement of the kind that `sign` writes: one of another kind has another meaning.

    Raises BadFile.
    """
    predicate = signed.get("predicate")
    definition = predicate.get("buildDefinition") if isinstance(predicate, dict) else None
    build_type = definition.get("buildType") if isinstance(definition, dict) else None
    kind = (signed.get("_type"), signed.get("predicateType"), build_type)
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE, BUILD_TYPE):
        raise BadFile("signed-as-other", "the key signed a statement of another kind")
    return signed


def key_id(key: "Ed25519PublicKey") -> str:
    """SHA-256 of the key's DER (SubjectPublicKeyInfo), in hex."""
    from cryptography.hazmat.primitives import serialization as form

    spki = form.PublicFormat.SubjectPublicKeyInfo
    return digest(key.public_bytes(form.Encoding.DER, spki))


def create_key(path: Path) -> None:
    """Write a new ed25519 key: the private half to `path`, for its owner only; the public half to
    `path`.pub.

    Raises OutputExists, as no key is ever replaced; OutputError.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    spki, pkcs8 = form.PublicFormat.SubjectPublicKeyInfo, form.PrivateFormat.PKCS8
    halves = (
        (path, key.private_bytes(form.Encoding.PEM, pkcs8, form.NoEncryption()), 0o600),
        (_public(path), key.public_key().public_bytes(form.Encoding.PEM, spki), 0o644),
    )
    require_no_key(path)
    try:
        for target, content, mode in halves:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write the key {path}: {error.strerror or error}") from error


def require_no_key(path: Path) -> None:
    """Raise OutputExists if either half of a key at `path` is there."""
    for target in (path, _public(path)):
        if os.path.lexists(target):
            raise OutputExists(f"{target} already exists, and a key is never replaced")


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """An unencrypted ed25519 key in PEM. Raises InputFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    load = partial(load_pem_private_key, password=None)
    return _read_key(path, load, Ed25519PrivateKey, "private key in PEM without a password")


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """An ed25519 key in PEM. Raises InputFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return _read_key(path, load_pem_public_key, Ed25519PublicKey, "public key in PEM")


def _read_key(path: Path, load: Callable[[bytes], Any], kind: type[Key], description: str) -> Key:
    try:
        with path.open("rb") as file:
            key = load(file.read(MAX_JSON))
    except OSError as error:
        raise InputFileError(f"the key {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise InputFileError(f"{path} holds no {description}") from error
    if not isinstance(key, kind):
        raise InputFileError(f"{path} holds a key that is not ed25519")
    return key


def _public(path: Path) -> Path:
    """The file of the public half of the key at `path`."""
    return path.with_name(f"{path.name}.pub")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:  # binascii.Error is a ValueError
        raise BadFile("signature", "the envelope holds text that is not base64") from error


def _descriptors(digests: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """in-toto's resource descriptors of names and their SHA-256."""
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in digests]


def digests_in(entries: Any) -> Sequence[tuple[Any, Any]]:
    """Name and SHA-256 of each of a statement's resource descriptors; empty if they are none."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return []
    pairs = [(entry.get("name"), entry.get("digest")) for entry in entries]
    return [(name, digests.get("sha256")) for name, digests in pairs if isinstance(digests, dict)]
