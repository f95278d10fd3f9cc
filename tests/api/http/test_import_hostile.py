"""POST /v1/adapters/import: what is hostile or broken does not come in."""

import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from jobs import (  # noqa: F401  (fixtures)
    client,
    engine,
    library,
    service,
    settings,
    stored,
    tasks,
)
from mutations import with_header
from rest import assert_problem
from starlette.testclient import TestClient
from uploads import Files, add, foreign, left, tar_of, upload  # noqa: F401  (a fixture)

from api.service.settings import Settings
from library.base.models import load_config, resolve_base
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft


def special(kind: bytes, name: str = "adapter_model.safetensors") -> Any:
    def change(files: Files) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            add(tar, CONFIG_FILE, files[CONFIG_FILE])
            add(tar, name, type=kind, linkname="/etc/passwd")
        return buffer.getvalue()

    return change


def renamed(name: str) -> Any:
    return lambda files: tar_of({CONFIG_FILE: files[CONFIG_FILE], name: files[WEIGHTS_FILE]})


def beside(name: str, content: bytes = b"x") -> Any:
    return lambda files: tar_of({**files, name: content})


def weights(change: Any) -> Any:
    return lambda files: tar_of({**files, WEIGHTS_FILE: change(files[WEIGHTS_FILE])})


def config(**changes: Any) -> Any:
    def changed(files: Files) -> bytes:
        content = json.loads(files[CONFIG_FILE]) | changes
        return tar_of({**files, CONFIG_FILE: json.dumps(content).encode()})

    return changed


def header(change: Any) -> Any:
    return lambda files: tar_of(with_header(files, change))


def pax(**fields: str) -> Any:
    def change(files: Files) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in files.items():
                add(tar, name, content, pax_headers=fields)
        return buffer.getvalue()

    return change


def claiming(size: int) -> Any:
    """A member whose header claims a size."""

    def change(files: Files) -> bytes:
        member = tarfile.TarInfo(WEIGHTS_FILE)
        member.size = size
        return member.tobuf(tarfile.GNU_FORMAT) + bytes(10240)

    return change


def longest_name(files: Files) -> bytes:
    return tar_of({**files, "x" * 300: b""}, format=tarfile.GNU_FORMAT)


def twice(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in (*files, WEIGHTS_FILE):
            add(tar, name, files[name])
    return buffer.getvalue()


def extended_for_ever(files: Files) -> bytes:
    member = tarfile.TarInfo("x")
    member.type = tarfile.XHDTYPE
    return member.tobuf() * 10_000


def sparse_for_ever(files: Files) -> bytes:
    """Lines that never end a name: a search that runs on over them takes seconds."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 2**16
    return (member.tobuf() + (b"\n1 GNU.sparse" * 2**13)[: 2**16]) * 15 + tar_of(files)


BAD: list[tuple[Any, int, str]] = [
    (lambda files: b"", 400, "ends too early"),
    (lambda files: b"\x1f\x8b" + bytes(2000), 400, "not a tar"),
    (lambda files: b"PK\x03\x04" * 500, 400, "not a tar"),
    (lambda files: tar_of(files, "")[:900], 400, "ends too early"),
    (lambda files: tar_of(files).rstrip(b"\0"), 400, "ends too early"),
    (lambda files: tar_of(files) + b"more", 400, "follows its end"),
    (lambda files: bytes(10240), 422, "no adapter_config.json"),
    (lambda files: tar_of({CONFIG_FILE: b"{}"}), 422, "no adapter_model.safetensors"),
    (special(tarfile.SYMTYPE), 422, "neither a file nor a folder"),
    (special(tarfile.LNKTYPE), 422, "neither a file nor a folder"),
    (special(tarfile.CHRTYPE), 422, "neither a file nor a folder"),
    (special(tarfile.FIFOTYPE), 422, "neither a file nor a folder"),
    (special(tarfile.GNUTYPE_SPARSE), 422, "neither a file nor a folder"),
    (special(tarfile.CONTTYPE), 422, "neither a file nor a folder"),
    (special(tarfile.DIRTYPE, "a/b"), 422, "in one folder at most"),
    (renamed("/adapter_model.safetensors"), 422, "in one folder at most"),
    (renamed("../adapter_model.safetensors"), 422, "in one folder at most"),
    (renamed("a/b/adapter_model.safetensors"), 422, "in one folder at most"),
    (renamed("a/../adapter_model.safetensors"), 422, "in one folder at most"),
    (renamed("a/adapter_model.safetensors"), 422, "more than one folder"),
    (renamed("adapter_model.bin"), 422, "in one folder at most"),
    (beside("adapter_model.bin"), 422, "in one folder at most"),
    (beside("evil.py"), 422, "in one folder at most"),
    (beside(PROVENANCE_FILE, b" " * (2**20 + 1)), 422, "1048576 are read"),
    (longest_name, 422, "neither a file nor a folder"),
    (twice, 422, "a file twice"),
    (pax(path="../../etc/passwd"), 422, "extended header"),
    (pax(size="99999999999"), 422, "extended header"),
    (pax(**{"GNU.sparse.major": "1"}), 422, "extended header"),
    (pax(comment="x" * 2**17), 422, "65536 are read"),
    (extended_for_ever, 422, "more than the files"),
    (sparse_for_ever, 422, "extended header"),
    (claiming(2**40), 422, "are read"),
    (claiming(-1), 422, "are read"),
    (claiming(2**20), 400, "ends too early"),
    (weights(lambda content: pickle.dumps({"a": 1})), 422, "format/not-safetensors"),
    (weights(lambda content: b"PK\x03\x04" + bytes(100)), 422, "format/not-safetensors"),
    (weights(lambda content: b""), 422, "format/truncated"),
    (weights(lambda content: content[:-1]), 422, "format/truncated"),
    (weights(lambda content: content + b"x"), 422, "format/padded"),
    (weights(lambda content: struct.pack("<Q", 2**60) + content[8:]), 422, "header-too-large"),
    (weights(lambda content: struct.pack("<Q", 10**6) + content[8:]), 422, "format/truncated"),
    (weights(lambda content: content[:-2] + b"\xff\x7f"), 422, "format/not-finite"),
    (header(lambda text: text.replace('"shape":[2,', '"shape":[4000000000,')), 422, "format/"),
    (header(lambda text: "[" * 5000), 422, "format/"),
    (header(lambda text: text.replace("layers.0.", "layers.999999999999.")), 422, "refused"),
    (config(r=10**9), 422, "format/rank"),
    (config(r=-1), 422, "format/rank"),
    (config(r=1e400), 422, "format/"),
    (config(lora_alpha=10**300), 422, "format/"),
    (config(use_dora=True), 422, "more than plain LoRA"),
    (config(peft_type="IA3"), 422, "does not describe"),
    (config(target_modules="(a+)+$"), 422, "format/"),
    (config(base_model_name_or_path=None), 422, "must name the base model"),
    (config(base_model_name_or_path="x" * 201), 422, "must name the base model"),
    (config(base_model_name_or_path="\ud800"), 422, "surrogate"),
    (beside(CONFIG_FILE), 422, "adapter_config.json"),
    (beside(CONFIG_FILE, b"[" * 10**5), 422, "nested too deeply"),
    (beside(PROVENANCE_FILE, b"{}"), 422, "integrity/provenance"),
    (beside(PROVENANCE_FILE, b'{"sha256": "", "id": ""}'), 422, "integrity/sha256-differs"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_hostile_or_broken_does_not_come_in(
    client: TestClient, foreign: Files, settings: Settings, number: int
) -> None:
    change, status, reason = BAD[number]
    problem = assert_problem(
        upload(client, change(foreign)), status, {400: "malformed-body", 422: "refused"}[status]
    )
    assert reason in problem["detail"] and str(settings.data) not in problem["detail"]
    assert stored(settings) == [] and left(settings) == []


def test_a_rank_beyond_all_others_is_refused(client: TestClient, tiny_base: Path) -> None:
    layout = layout_of(load_config(resolve_base(str(tiny_base))), ["q_proj"], rank=257)
    files = to_peft(tiny.adapter(layout), base_name="tiny")
    body = tar_of({CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    assert "at most 256" in assert_problem(upload(client, body), 422, "refused")["detail"]


def test_what_an_adapter_names_as_its_base_is_not_fetched(
    client: TestClient, foreign: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda *address: asked.append(address))
    for base in ("http://169.254.169.254/latest", "file:///etc/passwd", "../../etc", "hub/model"):
        body = config(base_model_name_or_path=base)(foreign)
        assert upload(client, body).status_code == 201
    assert asked == []
