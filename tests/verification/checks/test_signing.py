"""Signatures: who holds the key's other half can check them, and nothing else passes."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keys import write_key

from api.cli.main import main
from library.canonical import json_digest
from library.errors import InputFileError, OutputError, OutputExists
from library.files import write_folder
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, Provenance, finish
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.artifact import SIGNATURE_FILE, Artifact, Context, read_artifact
from verification.checks.digests import merkle_root, tensor_digests
from verification.checks.signing import (
    MERKLE_ROOT,
    PAYLOAD_TYPE,
    code_digest,
    create_key,
    digests_in,
    read_private_key,
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


def pae(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, by its definition."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)


def test_the_envelope_is_one_of_dsse_1_0(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    text = (folder / SIGNATURE_FILE).read_text()
    envelope = json.loads(text)
    key = read_public_key(public)
    assert list(envelope) == ["payload", "payloadType", "signatures"]
    assert text == json.dumps(envelope, indent=2) + "\n"
    (signature,) = envelope["signatures"]
    assert list(signature) == ["keyid", "sig"]
    spki = form.PublicFormat.SubjectPublicKeyInfo
    der = key.public_bytes(form.Encoding.DER, spki)
    assert signature["keyid"] == hashlib.sha256(der).hexdigest()
    payload = base64.b64decode(envelope["payload"], validate=True)
    key.verify(base64.b64decode(signature["sig"], validate=True), pae(PAYLOAD_TYPE, payload))


def test_the_statement_is_slsa_provenance(signed: tuple[Path, Path]) -> None:
    folder, _ = signed
    envelope = json.loads((folder / SIGNATURE_FILE).read_text())
    found = json.loads(base64.b64decode(envelope["payload"]))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert len(found["subject"]) == 3
    details = found["predicate"]["runDetails"]
    assert details["builder"] == {
        "id": "urn:lorasmith:text-to-lora", "version": {"lorasmith": code_digest()},
    }  # fmt: skip
    products = details["byproducts"]
    assert products[0]["name"] == MERKLE_ROOT and len(products) == 1 + 2 * len(LAYOUT.sites)


def hashes(descriptors: list[dict[str, Any]]) -> dict[str, str]:
    """SHA-256 by name, of resource descriptors that hold nothing else."""
    assert all(set(entry) == {"name", "digest"} for entry in descriptors)
    assert all(set(entry["digest"]) == {"sha256"} for entry in descriptors)
    return {entry["name"]: entry["digest"]["sha256"] for entry in descriptors}


def test_the_statement_names_every_file_every_tensor_and_the_request(tmp_path: Path) -> None:
    files = to_peft(tiny.adapter(LAYOUT), base_name="owner/base")
    told = Provenance(
        "compose", "c" * 64, "Add.", 7, "cpu", LAYOUT.digest, {"sha256": "b" * 64}, "e" * 64,
        ["ad_1"],
    )  # fmt: skip
    adapter = finish(files, told)
    subject = Artifact(adapter.files)
    signed = statement(subject)
    contents = {name: hashlib.sha256(data).hexdigest() for name, data in adapter.files.items()}
    assert hashes(signed["subject"]) == contents
    predicate = signed["predicate"]
    assert predicate["buildDefinition"] | {"resolvedDependencies": None} == {
        "buildType": "urn:lorasmith:adapter:v1",
        "externalParameters": {
            "description": "Add.", "examples": "e" * 64, "parents": ["ad_1"], "seed": 7,
        },
        "internalParameters": {"layout_digest": LAYOUT.digest, "numerics": "cpu"},
        "resolvedDependencies": None,
    }  # fmt: skip
    dependencies = hashes(predicate["buildDefinition"]["resolvedDependencies"])
    assert dependencies == {"base-model": "b" * 64, "checkpoint": "c" * 64}
    details = predicate["runDetails"]
    assert details["builder"]["id"] == "urn:lorasmith:compose"
    assert details["metadata"] == {"invocationId": adapter.id}
    products = hashes(details["byproducts"])
    digests = tensor_digests(subject)
    assert products == {MERKLE_ROOT: merkle_root(subject, digests), **digests}
    foreign = statement(Artifact({k: v for k, v in adapter.files.items() if k != PROVENANCE_FILE}))
    definition = foreign["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == []
    assert set(definition["externalParameters"].values()) == {None}
    assert foreign["predicate"]["runDetails"]["metadata"] == {"invocationId": None}


def test_the_code_s_digest_is_over_every_source_by_path() -> None:
    packages = ("api", "generator", "index", "library", "training", "verification")
    sources = {
        path.relative_to(tiny.ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for package in packages
        for path in (tiny.ROOT / package).rglob("*.py")
    }
    assert code_digest() == json_digest(sources)


def test_an_unwritable_folder_is_told_apart_from_a_key_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        create_key(tmp_path / "nowhere" / "key")


def test_neither_half_of_a_key_is_replaced(tmp_path: Path) -> None:
    for name in ("key", "key.pub"):
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        (folder / name).symlink_to(folder / "nowhere")  # a link that leads nowhere counts
        with pytest.raises(OutputExists):
            create_key(folder / "key")
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_key_s_halves_belong_together_and_are_read_as_such(tmp_path: Path) -> None:
    key = tmp_path / "key"
    create_key(key)
    private, public = read_private_key(key), read_public_key(tmp_path / "key.pub")
    raw = (form.Encoding.Raw, form.PublicFormat.Raw)
    assert private.public_key().public_bytes(*raw) == public.public_bytes(*raw)
    for read, other in ((read_private_key, tmp_path / "key.pub"), (read_public_key, key)):
        with pytest.raises(InputFileError):
            read(other)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], []),
        (None, []),
        ({"name": "a", "digest": {"sha256": "1"}}, []),
        ([{"name": "a", "digest": {"sha256": "1"}}, 7], []),
        (
            [{"name": "a", "digest": {"sha256": "1"}}, {"name": "b", "digest": 3}, {"digest": {}}],
            [("a", "1"), (None, None)],
        ),
    ],
)
def test_descriptors_of_a_statement_are_read_whatever_it_holds(
    entries: Any, expected: list[Any]
) -> None:
    assert digests_in(entries) == expected


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


def test_key_ids_decide_nothing(
    signed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DSSE leaves them optional, and nobody signs them: among sixteen signatures one is enough."""
    folder, public = signed
    envelope = json.loads((folder / SIGNATURE_FILE).read_text())
    (signature,) = envelope["signatures"]
    bare = {"sig": signature["sig"]}
    foreign = {"keyid": signature["keyid"], "sig": base64.b64encode(b"s" * 64).decode()}
    for signatures, codes in (
        ([bare], set()),
        ([bare | {"keyid": "another"}], set()),
        ([foreign, foreign, bare], set()),
        ([foreign] * 15 + [bare], set()),
        ([bare, "never read"], set()),
        ([foreign], {"signature-wrong"}),
        ([foreign] * 16 + [bare], {"signature-wrong"}),
    ):
        text = json.dumps(envelope | {"signatures": signatures})
        (folder / SIGNATURE_FILE).write_text(text)
        assert refused_for(capsys, folder, public) == codes, signatures


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
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(key.sign(pae(kind, payload))).decode()}],
        }
        files = {**subject.files, SIGNATURE_FILE: json.dumps(envelope).encode()}
        found = run_hooks(Artifact(files), context(public), Policy(("signature",))).findings
        assert [f.code for f in found] == ([] if code is None else [code]), change


def context(public: Path) -> Context:
    return Context(public_key=read_public_key(public))
