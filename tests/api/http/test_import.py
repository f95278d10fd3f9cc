"""POST /v1/adapters/import: what comes in keeps its bytes, and what is hostile does not come in."""

import io
import json
import pickle
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from jobs import (  # noqa: F401  (fixtures)
    TASK,
    client,
    engine,
    library,
    made,
    send,
    service,
    settings,
    stored,
    tasks,
)
from mutations import with_header
from rest import assert_problem, client_of, use
from starlette.testclient import TestClient

from api.http.schemas import AdapterAnswer
from api.service.service import UPLOADS, Service
from api.service.settings import Settings
from generator.engine import Engine
from library.base.models import load_config, resolve_base
from library.exchange.importing import imported_files
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE, README_FILE, adapter_id
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft

URL = "/v1/adapters/import"
TAR = {"Content-Type": "application/x-tar"}

Files = dict[str, bytes]


def tar_of(files: Files, folder: str = "", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in files.items():
            add(tar, f"{folder}{name}", content)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def upload(client: TestClient, body: Any, **headers: str) -> Any:
    return client.post(URL, content=body, headers={**TAR, **headers})


def download(client: TestClient, identity: str) -> Files:
    body = client.get(f"/v1/adapters/{identity}").json()
    return {name: client.get(file["url"]).content for name, file in body["files"].items()}


def left(settings: Settings) -> list[str]:
    """What a service has put on the disk beside its databases."""
    return [path.name for path in settings.data.iterdir() if ".sqlite3" not in path.name]


@pytest.fixture
def foreign(tiny_base: Path) -> Files:
    """An adapter of PEFT's for the tiny base, of which nobody says where it is from."""
    layout = layout_of(load_config(resolve_base(str(tiny_base))), ["q_proj", "v_proj"], rank=2)
    files = to_peft(tiny.adapter(layout, seed=5), base_name="tiny")
    return {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}


def test_an_archive_comes_back_as_it_was(client: TestClient, service: Service) -> None:
    identity = made(client)
    tar = client.get(f"/v1/adapters/{identity}/archive").content
    body = client.get(f"/v1/adapters/{identity}").json()
    assert upload(client, tar).status_code == 200  # it is there
    assert client.get(f"/v1/adapters/{identity}").json() == body  # as it was made
    assert client.delete(f"/v1/adapters/{identity}").status_code == 204
    answer = upload(client, tar)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/adapters/{identity}"
    assert "signature;dur=" in answer.headers["server-timing"]
    again = answer.json()
    assert list(again) == list(AdapterAnswer.model_fields)
    AdapterAnswer.model_validate(again, strict=True)
    for name in ("id", "sha256", "generator", "base_model", "layout_digest", "rank", "seed"):
        assert again[name] == body[name]
    assert (again["usage"], again["files"]) == (body["usage"], body["files"])
    assert again["chosen"]["strategy"] == "import" and again["expected"] is None
    assert client.get(f"/v1/adapters/{identity}/archive").content == tar
    once_more = upload(client, tar)
    assert (once_more.status_code, once_more.content) == (200, answer.content)


def test_an_adapter_from_elsewhere_gets_a_provenance(
    client: TestClient, foreign: Files, tiny_base: Path, settings: Settings
) -> None:
    answer = upload(client, tar_of(foreign))
    assert answer.status_code == 201, answer.text
    body = answer.json()
    AdapterAnswer.model_validate(body, strict=True)
    assert (body["generator"], body["base_model"], body["rank"]) == ("imported:peft", "tiny", 2)
    expected, _ = imported_files(foreign[CONFIG_FILE], foreign[WEIGHTS_FILE], settings.base("tiny"))
    assert (body["id"], body["sha256"]) == (expected.id, expected.sha256)
    files = download(client, body["id"])
    assert {*files} == {CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE}
    assert files[CONFIG_FILE] == foreign[CONFIG_FILE]
    told = json.loads(files[PROVENANCE_FILE])
    assert told["details"]["source"]["sha256"] == body["sha256"]
    assert told["report"] == body["report"] and told["description"] is None
    assert (upload(client, tar_of(foreign, "any/")).status_code) == 200
    merge = send(client, "/v1/adapters/compose", {"adapters": [body["id"], body["id"]]})
    assert merge.status_code == 201
    assert merge.json()["rank"] == 4


def test_tars_of_common_programs_are_read(
    client: TestClient, foreign: Files, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    packed = []
    for where, what in ((tmp_path, "adapter"), (folder, "."), (folder, CONFIG_FILE)):
        for kind in ("gnu", "posix", "ustar"):
            more = [WEIGHTS_FILE] if what == CONFIG_FILE else []
            command = ["tar", f"--format={kind}", "-C", str(where), "-cf", "-", what, *more]
            packed.append(subprocess.run(command, check=True, capture_output=True).stdout)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, "adapter")
    answers = [upload(client, body) for body in [*packed, buffer.getvalue()]]
    assert [answer.status_code for answer in answers] == [201] + [200] * 9
    assert len({answer.content for answer in answers}) == 1


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


def test_a_million_tiny_members_are_not_read(client: TestClient, settings: Settings) -> None:
    member = tarfile.TarInfo(README_FILE).tobuf()
    read: list[int] = []

    def members() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield member * 1000

    problem = assert_problem(upload(client, members()), 413)
    assert "exceeds" in problem["detail"]
    assert_problem(upload(client, member * 10_000), 422, "refused")
    assert left(settings) == []


def test_a_rank_beyond_all_others_is_refused(client: TestClient, tiny_base: Path) -> None:
    layout = layout_of(load_config(resolve_base(str(tiny_base))), ["q_proj"], rank=257)
    files = to_peft(tiny.adapter(layout), base_name="tiny")
    body = tar_of({CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    assert "at most 256" in assert_problem(upload(client, body), 422, "refused")["detail"]


def test_another_base_s_modules_are_refused(
    client: TestClient, foreign: Files, settings: Settings
) -> None:
    """Names that no module of the base has, and so many layers that nobody should count them."""
    content = {**foreign, CONFIG_FILE: foreign[CONFIG_FILE].replace(b'"tiny"', b'"owner/other"')}
    far = with_header(content, lambda text: text.replace("layers.1.", "layers.999999999999."))
    assert upload(client, tar_of(content)).status_code == 201  # of a base that is not here
    assert upload(client, tar_of(far)).status_code == 201
    far = with_header(foreign, lambda text: text.replace("layers.1.", "layers.9."))
    assert "base/wrong-base" in assert_problem(upload(client, tar_of(far)), 422)["detail"]


@pytest.fixture
def small(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings.model_copy(update={"import_bytes": 4096}), engine) as client:
        yield client


def test_the_body_is_limited_while_it_comes(
    small: TestClient, settings: Settings, foreign: Files
) -> None:
    body = tar_of(foreign)
    assert len(body) > 4096
    for content in (body, iter([body[:4000], body[4000:]])):
        problem = assert_problem(upload(small, content), 413, "body-too-large")
        assert problem["detail"] == "the body exceeds 4,096 bytes"
    assert left(settings) == []


def test_what_an_adapter_names_as_its_base_is_not_fetched(
    client: TestClient, foreign: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda *address: asked.append(address))
    for base in ("http://169.254.169.254/latest", "file:///etc/passwd", "../../etc", "hub/model"):
        body = config(base_model_name_or_path=base)(foreign)
        assert upload(client, body).status_code == 201
    assert asked == []


def test_other_content_types_are_415(client: TestClient, foreign: Files) -> None:
    body = tar_of(foreign)
    for kind in ("application/json", "application/gzip", "multipart/form-data", ""):
        problem = assert_problem(upload(client, body, **{"Content-Type": kind}), 415, "not-tar")
        assert "application/x-tar" in problem["detail"]
    answer = upload(client, body, **{"Content-Type": "Application/X-Tar; charset=binary"})
    assert answer.status_code == 201


def restated(files: Files, **changes: Any) -> Files:
    """The files with another provenance that has a true id."""
    said = json.loads(files[PROVENANCE_FILE]) | changes
    said["id"] = adapter_id(json.loads(files[CONFIG_FILE]), said["sha256"], said)
    return {**files, PROVENANCE_FILE: json.dumps(said).encode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"base": None},
        {"base": {"id": "another", "sha256": None, "source": ""}},
        {"base": {"id": "tiny", "sha256": 1, "source": ""}},
        {"generator": 1},
        {"description": ["x"]},
        {"seed": True},
        {"seed": -1},
        {"usage": {"mode": "loud", "template": ""}},
        {"usage": 3},
        {"expected": "fine"},
        {"layout_digest": None},
    ],
)
def test_a_provenance_that_is_none_of_ours_is_refused(
    client: TestClient, settings: Settings, changes: dict[str, Any]
) -> None:
    identity = made(client)
    files = restated(download(client, identity), **changes)
    assert_problem(upload(client, tar_of(files)), 422, "refused")
    assert stored(settings) == [identity]


def test_what_is_only_stated_gives_way_to_what_is_made(
    client: TestClient, service: Service
) -> None:
    (_, ann), (_, ben), (_, cid) = (service.keys.create(name) for name in ("ann", "ben", "cid"))
    use(client, ann)
    identity = made(client)
    true = download(client, identity)
    client.delete(f"/v1/adapters/{identity}")
    expected = {"score": 100, "low": 100, "high": 100, "calibration": "trust me"}
    forged = {**restated(true, expected=expected), README_FILE: b"# Buy this\n"}
    body = upload(client, tar_of(forged)).json()
    assert body["id"] == identity and body["expected"] is None
    readme = download(client, identity)[README_FILE]
    assert b"Buy" not in readme and b"trust me" in readme  # written again from what is stated
    use(client, cid)
    assert_problem(upload(client, tar_of(true)), 409, "conflict")
    assert client.get(f"/v1/adapters/{identity}").status_code == 404
    use(client, ben)
    assert made(client, TASK) == identity
    for key in (ben, ann):
        use(client, key)
        assert download(client, identity) == true


def test_only_so_many_are_received_at_once(
    client: TestClient, service: Service, foreign: Files
) -> None:
    for _ in range(UPLOADS):
        service.uploads.enter()
    problem = upload(client, tar_of(foreign))
    assert_problem(problem, 429, "overloaded")
    assert problem.headers["retry-after"] == "7"
    service.uploads.leave()
    assert upload(client, tar_of(foreign)).status_code == 201
