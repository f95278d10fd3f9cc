"""POST /v1/adapters/import: what comes in keeps its bytes."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import torch
from jobs import (  # noqa: F401  (fixtures)
    client,
    engine,
    library,
    made,
    send,
    service,
    settings,
    tasks,
)
from mutations import with_header
from rest import assert_problem
from safetensors.torch import load, save
from starlette.testclient import TestClient
from uploads import Files, download, foreign, tar_of, upload  # noqa: F401  (a fixture)

from api.http.schemas import AdapterAnswer
from api.service.service import Service
from api.service.settings import Settings
from library.exchange.importing import imported_files
from library.peft.provenance import PROVENANCE_FILE
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE


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


def test_a_head_comes_along_and_what_would_drop_it_is_refused(
    client: TestClient, foreign: Files
) -> None:
    config = json.loads(foreign[CONFIG_FILE]) | {"modules_to_save": ["norm"]}
    norm = {"base_model.model.model.norm.weight": torch.ones(64)}
    files = {
        CONFIG_FILE: json.dumps(config).encode(),
        WEIGHTS_FILE: save({**load(foreign[WEIGHTS_FILE]), **norm}, metadata={"format": "pt"}),
    }
    answer = upload(client, tar_of(files))
    assert answer.status_code == 201, answer.text
    identity = answer.json()["id"]
    kept = download(client, identity)
    assert load(kept[WEIGHTS_FILE]).keys() == load(files[WEIGHTS_FILE]).keys()
    assert torch.equal(load(kept[WEIGHTS_FILE])[next(iter(norm))], torch.ones(64))
    tar = client.get(f"/v1/adapters/{identity}/archive").content
    assert upload(client, tar).status_code == 200
    rows = [{"input": "a", "output": "b"}]
    chat = {"model": f"generated/{identity}", "messages": [{"role": "user", "content": "a"}]}
    for url, body in (
        ("/v1/adapters/compose", {"adapters": [identity, identity]}),
        (f"/v1/adapters/{identity}/refine", {"examples": rows}),
    ):
        assert_problem(send(client, url, body), 422, "more-than-lora")
    answer = send(client, "/v1/chat/completions", chat)
    assert (answer.status_code, answer.json()["code"]) == (422, "more-than-lora")
