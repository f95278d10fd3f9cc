"""Signatures: who holds the key's other half can check them, and nothing else passes."""

import base64
import json
from pathlib import Path

import pytest
import tiny
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keys import write_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from api.cli.main import main
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, Provenance, finish
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.artifact import SIGNATURE_FILE, Artifact, Context, read_artifact
from verification.checks.signing import (
    MERKLE_ROOT,
    PAYLOAD_TYPE,
    code_digest,
    read_public_key,
    statement,
)
from verification.run import Policy, read_policy, run_hooks

LAYOUT = layout_of(tiny.config("llama"), ["q_proj", "v_proj"], rank=4)


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
    nothing = tmp_path / "none"
    for key in (elliptic[0], public, nothing):
        assert main(["sign", str(folder), "--key", str(key)]) == 1 + (key == nothing)
    for key in (elliptic[1], private, nothing):
        assert main(["verify", str(folder), "--public-key", str(key)]) == 1 + (key == nothing)
    assert len(capsys.readouterr().err.splitlines()) == 8


@pytest.mark.parametrize("hooks", [["signature"], ["statistics", "signature", "integrity"]])
def test_no_policy_lets_a_damaged_or_changed_file_pass(
    signed: tuple[Path, Path], tmp_path: Path, hooks: list[str]
) -> None:
    folder, public = signed
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"hooks": hooks, "signed": True}))
    options = ["--policy", str(policy), "--public-key", str(public)]
    original = {file.name: file.read_bytes() for file in folder.iterdir()}
    weights, config = original[WEIGHTS_FILE], original[CONFIG_FILE]
    rank = json.dumps(json.loads(config) | {"r": 9}).encode()
    assert main(["verify", str(folder), *options]) == 0
    for change in (
        {WEIGHTS_FILE: weights[:-2] + b"\xff\x7f"},
        {WEIGHTS_FILE: weights[:-4]},
        {CONFIG_FILE: rank},
    ):
        for name, content in {**original, **change}.items():
            (folder / name).write_bytes(content)
        found = run_hooks(read_artifact(folder), context(public), read_policy(policy)).findings
        assert {"format", "signature"} <= {f.hook for f in found if f.severity == "refuse"}
        assert main(["verify", str(folder), *options]) == 1
        out = str(tmp_path / "merged")
        assert main(["compose", str(folder), str(folder), *options, "--out", out]) == 1


@pytest.mark.parametrize("refuse", [["warn"], ["refuse"], ["warn", "refuse"], None])
def test_signed_refuses_whatever_severities_the_policy_lists(
    tmp_path: Path, refuse: list[str] | None
) -> None:
    _, public = write_key(tmp_path, "ours")
    folder, policy = write_adapter(tmp_path / "adapter"), tmp_path / "policy.json"
    listed = {} if refuse is None else {"refuse": refuse}
    policy.write_text(json.dumps({"signed": True} | listed))
    options = ["--policy", str(policy), "--public-key", str(public)]
    assert main(["verify", str(folder), *options]) == 1


def test_the_same_key_under_another_statement_is_refused(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    _, public = write_key(tmp_path, "ours", key)
    subject = read_artifact(write_adapter(tmp_path / "adapter"))
    ours = statement(subject)
    predicate = ours["predicate"]
    other = predicate["buildDefinition"] | {"buildType": "urn:other"}
    plain = "text/plain"
    for change, kind, code in (
        ({}, PAYLOAD_TYPE, None),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, PAYLOAD_TYPE, "signed-as-other"),
        ({"predicateType": "https://example.org/revoked"}, PAYLOAD_TYPE, "signed-as-other"),
        ({"predicate": predicate | {"buildDefinition": other}}, PAYLOAD_TYPE, "signed-as-other"),
        ({"predicate": None}, PAYLOAD_TYPE, "signed-as-other"),
        ({}, plain, "signature"),
    ):
        payload = json.dumps(ours | change).encode()
        pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(key.sign(pae)).decode()}],
        }
        files = {**subject.files, SIGNATURE_FILE: json.dumps(envelope).encode()}
        found = run_hooks(Artifact(files), context(public), Policy(("signature",))).findings
        assert [f.code for f in found] == ([] if code is None else [code]), change


def context(public: Path) -> Context:
    return Context(public_key=read_public_key(public))
