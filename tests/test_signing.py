"""Signatures: who holds the key's other half can check them, and nothing else passes."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from api.cli import main
from library.files import write_folder
from library.layout import layout_of
from library.peft_io import CONFIG_FILE, WEIGHTS_FILE, to_peft
from library.provenance import PROVENANCE_FILE, Provenance, finish
from verification.signing import MERKLE_ROOT, code_digest
from verification.subject import SIGNATURE_FILE

LAYOUT = layout_of(tiny.config("llama"), ["q_proj", "v_proj"], rank=4)


def write_key(folder: Path, name: str, key: Any = None) -> tuple[Path, Path]:
    """A pair of PEM files, private and public."""
    key = key or Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub"


def write_adapter(folder: Path, *, seed: int = 0, told: bool = True) -> Path:
    files = to_peft(tiny.adapter(LAYOUT, seed=seed), base_name="owner/base")
    made = finish(files, Provenance("text-to-lora", "c" * 64, "Add.", 0, "cpu", LAYOUT.digest, {}))
    kept = {k: v for k, v in made.files.items() if told or k != PROVENANCE_FILE}
    write_folder(folder, kept)
    return folder


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed adapter and the public key."""
    private, public = write_key(tmp_path, "ours")
    folder = write_adapter(tmp_path / "adapter")
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    private.unlink()
    return folder, public


def refused_for(capsys: pytest.CaptureFixture[str], folder: Path, public: Path) -> set[str]:
    capsys.readouterr()
    code = main(["verify", str(folder), "--public-key", str(public), "--json"])
    answer = json.loads(capsys.readouterr().out)
    found = {f["code"] for f in answer["findings"] if f["severity"] == "refuse"}
    assert code == bool(found)
    return found


def test_the_public_key_is_enough(
    signed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, public = signed
    assert refused_for(capsys, folder, public) == set()
    assert refused_for(capsys, folder, write_key(tmp_path, "theirs")[1]) == {"signature-wrong"}
    (folder / SIGNATURE_FILE).unlink()
    assert refused_for(capsys, folder, public) == {"unsigned"}


def test_other_tools_read_the_envelope(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    envelope = Envelope.from_dict(json.loads((folder / SIGNATURE_FILE).read_text()))
    (signed_by,) = envelope.signatures
    key = SSlibKey(
        signed_by, "ed25519", "ed25519",
        {"public": form.load_pem_public_key(public.read_bytes()).public_bytes(
            form.Encoding.Raw, form.PublicFormat.Raw).hex()},
    )  # fmt: skip
    for signature in envelope.signatures.values():
        key.verify_signature(signature, envelope.pae())
    found = json.loads(envelope.payload)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert len(found["subject"]) == 3
    details = found["predicate"]["runDetails"]
    assert details["builder"] == {
        "id": "urn:lorasmith:text-to-lora", "version": {"lorasmith": code_digest()},
    }  # fmt: skip
    products = details["byproducts"]
    assert products[0]["name"] == MERKLE_ROOT and len(products) == 1 + 2 * len(LAYOUT.sites)


def test_whatever_is_changed_after_signing_is_refused(
    signed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, public = signed
    original = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = {f.name: f.read_bytes() for f in write_adapter(tmp_path / "b", seed=1).iterdir()}
    told = json.loads(original[PROVENANCE_FILE]) | {"report": {"good": True}}
    config = original[CONFIG_FILE].replace(b"\n", b"\n ", 1)
    changes: list[tuple[str, dict[str, bytes]]] = [
        ("signed-otherwise", other),  # a whole adapter, provenance and all
        ("signed-otherwise", {PROVENANCE_FILE: json.dumps(told).encode()}),
        ("signed-otherwise", {CONFIG_FILE: config}),
        ("sha256-differs", {WEIGHTS_FILE: other[WEIGHTS_FILE]}),
    ]
    envelope = json.loads(original[SIGNATURE_FILE])
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["predicate"]["buildDefinition"]["externalParameters"]["description"] = "Subtract."
    forged = base64.b64encode(json.dumps(payload).encode()).decode()
    signature = envelope["signatures"][0]["sig"]
    for change, code in (
        ({"payload": forged}, "signature-wrong"),
        ({"payload": "é"}, "signature"),
        ({"payload": None}, "signature"),
        ({"payloadType": "text/plain"}, "signature"),
        ({"signatures": []}, "signature-wrong"),
        ({"signatures": [7]}, "signature"),
        ({"signatures": {"sig": signature}}, "signature"),
    ):
        text = json.dumps(envelope | change).encode()
        changes.append((code, {SIGNATURE_FILE: text}))
    changes += [("signature", {SIGNATURE_FILE: text}) for text in (b"", b"[" * 10**5, b"[]")]
    for code, change in changes:
        for name, content in {**original, **change}.items():
            (folder / name).write_bytes(content)
        assert code in refused_for(capsys, folder, public), change


def test_a_key_is_made_for_its_owner_alone_and_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = write_adapter(tmp_path / "adapter"), tmp_path / "key.pem"
    sign = ["sign", str(folder), "--key", str(key)]
    assert main([*sign, "--create-key"]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert refused_for(capsys, folder, tmp_path / "key.pem.pub") == set()
    content = key.read_bytes()
    assert main([*sign, "--create-key"]) == 2
    assert main(sign) == 0 and key.read_bytes() == content
    assert main([*sign[:3], str(tmp_path / "none" / "key"), "--create-key"]) == 1
    (folder / WEIGHTS_FILE).write_bytes(b"short")
    assert main(["sign", str(folder), "--key", str(tmp_path / "other"), "--create-key"]) == 1
    assert not (tmp_path / "other").exists()


def test_foreign_adapters_can_be_signed_and_damaged_ones_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_key(tmp_path, "ours")
    folder = write_adapter(tmp_path / "foreign", told=False)
    for _ in range(2):  # signing again changes nothing
        assert main(["sign", str(folder), "--key", str(private)]) == 0
    first = (folder / SIGNATURE_FILE).read_bytes()
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    assert (folder / SIGNATURE_FILE).read_bytes() == first
    assert refused_for(capsys, folder, public) == set()
    write_folder(tmp_path / "empty", {})
    (folder / WEIGHTS_FILE).write_bytes(b"short")
    for damaged in (folder, tmp_path / "empty"):
        assert main(["sign", str(damaged), "--key", str(private)]) == 1
    elliptic = write_key(tmp_path, "ec", generate_private_key(SECP256R1()))
    for key in (elliptic[0], public, tmp_path / "none"):
        assert main(["sign", str(folder), "--key", str(key)]) == 2
    for key in (elliptic[1], private, tmp_path / "none"):
        assert main(["verify", str(folder), "--public-key", str(key)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 8
