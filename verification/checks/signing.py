"""Signed statements about an adapter: in-toto, SLSA provenance, DSSE, ed25519.

The statement (in-toto v1, https://in-toto.io/Statement/v1) lists the digest of every file; its
predicate has the form of SLSA provenance v1 and says what the adapter was made from, with a digest
for every tensor and the Merkle root over them. It is a function of the files and of the code that
signs: no time, no machine. The envelope is DSSE 1.0, so that other tools can check it.
"""

import base64
import binascii
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.canonical import canonical_json, digest, file_digest, json_digest
from library.errors import InputFileError, OutputError, OutputExists
from library.peft.provenance import PROVENANCE_FILE
from library.peft.safetensors_file import BadFile, parse_object
from library.peft.write import CONFIG_FILE
from verification.artifact import MAX_JSON, Artifact
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
PACKAGES = ("api", "generator", "index", "library", "training", "verification")
MAX_SIGNATURES = 16


def statement(subject: Artifact) -> dict[str, Any]:
    """What a signature covers. Raises BadFile if a file cannot be read."""
    told = subject.provenance or {}
    digests = tensor_digests(subject)
    base = told.get("base") if isinstance(told.get("base"), dict) else {}
    asked = ("description", "examples", "parents", "seed")
    return {
        "_type": STATEMENT_TYPE,
        "predicateType": PREDICATE_TYPE,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in file_digests(subject)],
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {key: told.get(key) for key in asked},
                "internalParameters": {k: told.get(k) for k in ("layout_digest", "numerics")},
                "resolvedDependencies": [
                    {"name": name, "digest": {"sha256": sha256}}
                    for name, sha256 in (
                        ("base-model", (base or {}).get("sha256")),
                        ("checkpoint", told.get("checkpoint")),
                    )
                    if sha256
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:lorasmith:{told.get('generator', 'unknown')}",
                    "version": {"lorasmith": code_digest()},
                },
                "metadata": {"invocationId": told.get("id")},
                "byproducts": [
                    {"name": MERKLE_ROOT, "digest": {"sha256": merkle_root(subject, digests)}},
                    *({"name": n, "digest": {"sha256": d}} for n, d in digests.items()),
                ],
            },
        },
    }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over the sources of the code that signs, by path."""
    root = Path(__file__).resolve().parents[2]
    paths = sorted(path for name in PACKAGES for path in (root / name).rglob("*.py"))
    return json_digest({path.relative_to(root).as_posix(): file_digest(path) for path in paths})


def file_digests(subject: Artifact) -> list[tuple[str, str]]:
    """SHA-256 of the weights, the config and the provenance, as far as there are, by name."""
    others = {CONFIG_FILE, PROVENANCE_FILE} & set(subject.files)
    found = {name: digest(subject.files[name]) for name in others}
    return sorted({**found, subject.weights: subject.sha256}.items())


def sign_artifact(subject: Artifact, key: "Ed25519PrivateKey") -> bytes:
    """A DSSE envelope of the statement; ed25519 signs without chance, so its bytes are fixed.

    Raises BadFile, ValueError (a provenance with numbers that canonical JSON cannot hold).
    """
    payload = canonical_json(statement(subject))
    signature = {
        "keyid": key_id(key.public_key()),
        "sig": base64.b64encode(key.sign(encoded(payload))).decode(),
    }
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [signature],
    }
    return (json.dumps(envelope, indent=2) + "\n").encode()


def opened(content: bytes, key: "Ed25519PublicKey") -> dict[str, Any]:
    """The statement in an envelope, once one signature is found to be the key's.

    Raises BadFile: `signature` if it is no envelope, `signature-wrong` if none is the key's,
    `signed-as-other` if it is one, but not under a statement of the form of ours.
    """
    from cryptography.exceptions import InvalidSignature

    envelope = parse_object(content, "the envelope", "signature")
    signatures = envelope.get("signatures")
    if envelope.get("payloadType") != PAYLOAD_TYPE or not isinstance(signatures, list):
        raise BadFile("signature", "the envelope is not one of an in-toto statement")
    payload = _decoded(envelope.get("payload"))
    for entry in signatures[:MAX_SIGNATURES]:
        given = _decoded(entry.get("sig") if isinstance(entry, dict) else None)
        try:
            key.verify(given, encoded(payload))
        except InvalidSignature:
            continue
        return _ours(parse_object(payload, "the statement", "signature"))
    raise BadFile("signature-wrong", "no signature is that of the public key")


def _ours(found: dict[str, Any]) -> dict[str, Any]:
    """A signed statement, if it says what `sign` says: one of another kind means another thing."""
    predicate = found.get("predicate")
    definition = predicate.get("buildDefinition") if isinstance(predicate, dict) else None
    kind = definition.get("buildType") if isinstance(definition, dict) else None
    said = (found.get("_type"), found.get("predicateType"), kind)
    if said != (STATEMENT_TYPE, PREDICATE_TYPE, BUILD_TYPE):
        raise BadFile("signed-as-other", "the key signed a statement of another kind than sign's")
    return found


def encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(key: "Ed25519PublicKey") -> str:
    """SHA-256 of the key's DER (SubjectPublicKeyInfo), in hex."""
    from cryptography.hazmat.primitives import serialization as form

    spki = form.PublicFormat.SubjectPublicKeyInfo
    return digest(key.public_bytes(form.Encoding.DER, spki))


def create_key(path: Path) -> None:
    """Make an ed25519 key: private in `path`, for its owner only, public in `path`.pub.

    Raises OutputExists, as no key is ever replaced; OutputError.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    spki, pkcs8 = form.PublicFormat.SubjectPublicKeyInfo, form.PrivateFormat.PKCS8
    halves = (
        (path, key.private_bytes(form.Encoding.PEM, pkcs8, form.NoEncryption()), 0o600),
        (public, key.public_key().public_bytes(form.Encoding.PEM, spki), 0o644),
    )
    require_no_key(path)
    try:
        for target, content, mode in halves:
            place = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(place, "wb") as file:
                file.write(content)
    except OSError as error:
        raise OutputError(f"cannot write the key {path}: {error.strerror or error}") from error


def require_no_key(path: Path) -> None:
    """Raise OutputExists if either half of a key at `path` is there."""
    for target in (path, path.with_name(f"{path.name}.pub")):
        if os.path.lexists(target):
            raise OutputExists(f"{target} already exists, and a key is never replaced")


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """An unencrypted ed25519 key in PEM. Raises InputFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_pem(path), None)
    except (ValueError, TypeError) as error:
        raise InputFileError(f"{path} holds no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputFileError(f"{path} holds a key that is not ed25519")
    return key


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """An ed25519 key in PEM. Raises InputFileError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(path))
    except ValueError as error:
        raise InputFileError(f"{path} holds no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputFileError(f"{path} holds a key that is not ed25519")
    return key


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_JSON)
    except OSError as error:
        raise InputFileError(f"the key {path} cannot be read: {error.strerror}") from error


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadFile("signature", "the envelope holds text that is not base64") from error


def digests_in(entries: Any) -> Sequence[tuple[Any, Any]]:
    """Name and SHA-256 of each of a statement's resource descriptors; empty if they are none."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return []
    found = [(entry.get("name"), entry.get("digest")) for entry in entries]
    return [(name, d.get("sha256")) for name, d in found if isinstance(d, dict)]
