"""An OCI image layout, read as the specification has it."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from folders import sound

from api.cli.main import main
from library.archive import tar_parts, tar_size
from library.exchange.oci import oci_layout
from library.files import write_folder


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """What a descriptor describes; its digest and size are recomputed."""
    algorithm, _, encoded = descriptor["digest"].partition(":")
    assert algorithm == "sha256"
    content = files[f"blobs/sha256/{encoded}"]
    assert hashlib.sha256(content).hexdigest() == encoded
    assert len(content) == descriptor["size"]
    return content


def unpacked(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that `oras pull` would write, by their titles."""
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files["index.json"])
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    (entry,) = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    manifest = json.loads(blob(files, entry))
    assert manifest["schemaVersion"] == 2 and manifest["mediaType"] == entry["mediaType"]
    assert manifest["artifactType"] == entry["artifactType"]
    assert manifest["artifactType"] == "application/vnd.lorasmith.adapter.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert blob(files, manifest["config"]) == b"{}"
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in
              manifest["layers"]]  # fmt: skip
    assert titles == sorted(titles)
    blobs = {entry["digest"], manifest["config"]["digest"]}
    blobs |= {layer["digest"] for layer in manifest["layers"]}
    paths = {f"blobs/sha256/{d.removeprefix('sha256:')}" for d in blobs}
    assert {*files} == paths | {"oci-layout", "index.json"}
    return {t: blob(files, layer) for t, layer in zip(titles, manifest["layers"], strict=True)}


def in_tar(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        assert all(m.isfile() and (m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644)
                   for m in members)  # fmt: skip
        return {m.name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def in_folder(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_digest_and_size_is_right() -> None:
    files = sound()
    layout = oci_layout(files)
    assert unpacked(layout.files) == files
    (entry,) = json.loads(layout.files["index.json"])["manifests"]
    assert layout.digest == entry["digest"]
    manifest = json.loads(blob(layout.files, entry))
    kinds = {x["annotations"]["org.opencontainers.image.title"]: x["mediaType"]
             for x in manifest["layers"]}  # fmt: skip
    assert kinds["adapter_config.json"] == "application/json"
    assert kinds["adapter_model.safetensors"] == "application/vnd.safetensors"


def test_the_order_of_the_files_does_not_matter() -> None:
    files = sound()
    assert oci_layout(files) == oci_layout(dict(reversed(files.items())))


def test_folder_and_tar_hold_the_same(tmp_path: Path, capsys: Any) -> None:
    write_folder(tmp_path / "adapter", {**sound(), "README.md": b"# Read me\n", "x.bin": b"other"})
    outs = [tmp_path / name for name in ("folder", "one.tar", "other.tar")]
    told = []
    for out in outs:
        command = ["export", str(tmp_path / "adapter"), "--as", "oci", "--out", str(out)]
        assert main([*command, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
        assert main([*command, "--overwrite"]) == 0
        capsys.readouterr()
    assert len({each["digest"] for each in told}) == 1
    assert [each["bytes"] for each in told] == [
        sum(map(len, in_folder(outs[0]).values())), *(out.stat().st_size for out in outs[1:]),
    ]  # fmt: skip
    one, other = outs[1].read_bytes(), outs[2].read_bytes()
    assert one == other
    assert in_tar(one) == in_folder(outs[0])
    assert {*unpacked(in_tar(one))} == {*sound(), "README.md"}


def test_a_damaged_adapter_is_not_packed(tmp_path: Path, capsys: Any) -> None:
    files = sound()
    weights = bytearray(files["adapter_model.safetensors"])
    weights[-1] ^= 1
    write_folder(tmp_path / "a", {**files, "adapter_model.safetensors": bytes(weights)})
    assert main(["export", str(tmp_path / "a"), "--as", "oci", "--out", str(tmp_path / "o")]) == 1
    assert "integrity" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("sizes", [[], [0], [1, 512, 513, 10240]])
def test_the_size_of_a_tar_is_known_before(sizes: list[int]) -> None:
    members = [(f"m{i}", size, [bytes(size)]) for i, size in enumerate(sizes)]
    content = b"".join(tar_parts(members))
    assert len(content) == tar_size(sizes)
    assert [len(part) for part in in_tar(content).values()] == sizes
