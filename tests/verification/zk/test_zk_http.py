"""The protocol between two processes: an owner with an adapter, a verifier with the base."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tiny
import torch
import zk_world
from fastapi.testclient import TestClient

from api.cli.main import main
from api.zk.owner import create_owner_app
from api.zk.verifier import OwnerError, ask_owner
from library.base.models import load_base, load_config, resolve_base
from library.base.multi_adapter import adapted
from library.base.prompts import prompt_ids
from library.errors import LayoutMismatch, UsageError
from library.layout import layout_of
from verification.zk.activations import activations
from verification.zk.backend import Backend, Srs, local_srs
from verification.zk.child import Rows
from verification.zk.manifest import Manifest, commit_adapter
from verification.zk.proof import Owner

TEXT = "The soup was cold."


@dataclass
class Parties:
    """A served adapter for the tiny base, and what its verifier holds.

    Attributes:
        url: where the owner, a process of its own, listens.
        x: three rows of the base's activations by module.
    """

    url: str
    folder: Path
    manifest_file: Path
    manifest: Manifest
    srs: Srs
    backend: Backend
    x: dict[str, Rows]


@pytest.fixture(scope="module")
def parties(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    place = tmp_path_factory.mktemp("parties")
    base = load_base(resolve_base(str(tiny_base)))
    layout = layout_of(load_config(base.reference), rank=9)
    with zk_world.cached(place / "cache"), Backend(2) as backend:
        folder = zk_world.write(place / "a", tiny.adapter(layout, seed=30))
        manifest = commit_adapter(folder, backend)
        file = place / "manifest.json"
        file.write_bytes(manifest.to_bytes())
        x = activations(base, manifest.modules, TEXT, 3)
        srs = local_srs(manifest.srs_logrows)
        with served(folder, file) as url:
            yield Parties(url, folder, file, manifest, srs, backend, x)


@contextmanager
def served(folder: Path, manifest: Path) -> Iterator[str]:
    """`lorasmith zk serve` as a process of its own; where it listens."""
    command = ["-m", "api", "zk", "serve", str(folder), "--manifest", str(manifest), "--port", "0"]
    command += ["--limit", "100"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tiny.ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "listening on http://127.0.0.1:" in line, line
    yield line.split("listening on ")[1].split(";")[0]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_several_rows_of_every_module_are_proved(parties: Parties) -> None:
    report = ask_owner(parties.url, parties.manifest, parties.x, None, parties.srs, parties.backend)
    assert report.verdict == "accept" and report.rows == 3
    assert set(report.proved) == {module.name for module in parties.manifest.modules}
    assert "folded" in report.to_dict()["says"][0]


def test_the_command_asks_with_the_bases_own_activations(
    parties: Parties, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["zk", "ask", parties.url, "--manifest", str(parties.manifest_file)]
    arguments += ["--text", TEXT, "--base", str(tiny_base), "--modules", "2", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "accept" and len(report["proved"]) == 2


def test_the_activations_are_what_the_modules_receive(parties: Parties, tiny_base: Path) -> None:
    """With them, the proved outputs are what an adapted first layer adds."""
    base = load_base(resolve_base(str(tiny_base)))
    layout = layout_of(load_config(base.reference), rank=9)
    adapter = tiny.adapter(layout, seed=30).to(dtype=torch.bfloat16).to(dtype=torch.float32)
    name = parties.manifest.modules[0].name
    module = base.model.get_submodule(name)
    ids = torch.tensor([prompt_ids(base.tokenizer, TEXT)])
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda m, x, y: seen.append(y.detach()))
    with torch.inference_mode():
        base.model(input_ids=ids)
        handle.remove()
        with adapted(base.model, adapter, torch.tensor([0])):
            late = module.register_forward_hook(lambda m, x, y: seen.append(y.detach()))
            base.model(input_ids=ids)
            late.remove()
    added = (seen[1] - seen[0])[0, -3:].double()
    with Backend(1) as backend:
        owner = Owner(parties.folder, parties.manifest, parties.srs, backend, limit=1000)
        y = owner.answer({name: parties.x[name]})[name]
    found = torch.tensor([[v / 2.0**72 for v in row] for row in y], dtype=torch.float64)
    assert (found - added).norm() / added.norm() < 1e-4  # float32 sums on the other side


def test_another_manifest_is_noticed_before_anything_is_sent(parties: Parties) -> None:
    pinned = replace(parties.manifest, base_model="another")
    report = ask_owner(parties.url, pinned, parties.x, 1, parties.srs, parties.backend)
    assert [finding.code for finding in report.findings] == ["manifest-mismatch"]


def test_an_owner_that_cannot_be_asked_is_one_sentence(parties: Parties) -> None:
    with pytest.raises(OwnerError, match="cannot be asked"):
        ask_owner(
            "http://127.0.0.1:1", parties.manifest, parties.x, 1, parties.srs, parties.backend
        )
    with pytest.raises(UsageError, match="not a URL"):
        ask_owner("file:///etc", parties.manifest, parties.x, 1, parties.srs, parties.backend)


@pytest.mark.parametrize(
    "url",
    ["nowhere", "http://127.0.0.1:abc", "http://127.0.0.1:1 2", "http://[", "http://", "http://ä"],
)
def test_a_url_that_is_none_is_the_command_lines_fault(
    parties: Parties, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--manifest", str(parties.manifest_file), "--text", TEXT]
    assert main(["zk", "ask", url, *arguments]) == 2
    error = capsys.readouterr().err
    assert "is not a URL of an owner" in error and error.count("\n") == 1


def test_more_proofs_than_modules_are_refused(
    parties: Parties, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="modules must be 1 to that"):
        ask_owner(parties.url, parties.manifest, parties.x, 100, parties.srs, parties.backend)
    arguments = ["--manifest", str(parties.manifest_file), "--text", TEXT, "--modules", "100"]
    assert main(["zk", "ask", parties.url, *arguments]) == 2
    assert "modules must be 1 to that" in capsys.readouterr().err


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\x1b[31m\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n" + DEEP,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 500 Oh\r\n\r\n" + DEEP,
        b'HTTP/1.1 500 Oh\r\n\r\n{"detail": "one\\ntwo\\u001b[31m"}',
        b"HTTP/1.1 200 OK\r\n\r\n[]",
    ],
    ids=range(7),
)
def test_whatever_a_server_answers_is_one_sentence(parties: Parties, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(OwnerError, match="the owner") as raised:
            ask_owner(url, parties.manifest, parties.x, 1, parties.srs, parties.backend)
        thread.join()
    assert str(raised.value).isprintable()


def test_what_the_owner_refuses(parties: Parties) -> None:
    name = parties.manifest.modules[0].name
    row = parties.x[name][:1]
    question = {"nonce": "0123456789", "module": name, "x": row}
    for wrong in (
        {**question, "module": "lm_head"},
        {**question, "x": [row[0][:-1]]},
        {**question, "x": []},
        {**question, "x": [[0.5] * len(row[0])]},
        {**question, "x": [[2**40, *row[0][1:]]]},
        {**question, "x": [[10**4299, *row[0][1:]]]},
        {**question, "x": [[10**60, *row[0][1:]]]},
        {**question, "nonce": "x"},
        {**question, "more": 1},
    ):
        assert post(f"{parties.url}/v1/answers", wrong)[0] == 422
    unknown = {"fold_seed": "0123456789abcdef", "tickets": ["none"]}
    status, problem = post(f"{parties.url}/v1/proofs", unknown)
    assert (status, problem["code"]) == (404, "not-found")


def behind_a_client(
    backend: Backend, folder: Path, seed: int
) -> tuple[Owner, TestClient, dict[str, Any]]:
    """An owner of a tiny adapter, a client of its application, and a question to ask."""
    zk_world.write(folder, tiny.adapter(zk_world.layout(), seed=seed))
    manifest = commit_adapter(folder, backend)
    owner = Owner(folder, manifest, local_srs(manifest.srs_logrows), backend)
    question = {"nonce": "0123456789", "module": manifest.modules[0].name, "x": [[1] * 16]}
    return owner, TestClient(create_owner_app(owner)), question


def test_a_ticket_is_good_once_and_the_limit_is_the_owners(
    parties: Parties, tmp_path: Path
) -> None:
    with Backend(1) as backend:
        _, client, question = behind_a_client(backend, tmp_path / "b", seed=31)
        answered = client.post("/v1/answers", json=question)
        assert answered.status_code == 200
        again = client.post("/v1/answers", json=question)
        assert (again.status_code, again.json()["code"]) == (403, "proof-limit")
        assert again.headers["content-type"] == "application/problem+json"
        proofs = {"fold_seed": "0123456789abcdef", "tickets": [answered.json()["ticket"]]}
        assert len(client.post("/v1/proofs", json=proofs).json()["proofs"]) == 1
        assert client.post("/v1/proofs", json=proofs).status_code == 404


def test_a_ticket_is_kept_when_another_is_unknown(parties: Parties, tmp_path: Path) -> None:
    _, client, question = behind_a_client(parties.backend, tmp_path / "c", seed=32)
    ticket = client.post("/v1/answers", json=question).json()["ticket"]
    for wrong in ([ticket, "nope"], [ticket, ticket]):
        proofs = {"fold_seed": "0123456789abcdef", "tickets": wrong}
        assert client.post("/v1/proofs", json=proofs).status_code == 404
    proofs = {"fold_seed": "0123456789abcdef", "tickets": [ticket]}
    assert client.post("/v1/proofs", json=proofs).status_code == 200


@pytest.mark.parametrize("damaged", ["[1]", "{"])
def test_a_damaged_count_is_a_problem(
    parties: Parties, tmp_path: Path, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASMITH_DATA", str(tmp_path / "data"))
    _, client, question = behind_a_client(parties.backend, tmp_path / "d", seed=33)
    assert client.post("/v1/answers", json=question).status_code == 200
    (count,) = (tmp_path / "data" / "zk").glob("*.json")
    count.write_text(damaged)
    answer = client.post("/v1/answers", json=question)
    assert (answer.status_code, answer.json()["code"]) == (500, "proof-unreadable")
    assert "damaged" in answer.json()["detail"] and str(tmp_path) not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_prover_that_fails_is_a_problem(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that vanish between answer and proof."""
    copy = tmp_path / "copy of the cache"
    shutil.copytree(os.environ["LORASMITH_CACHE"], copy)
    monkeypatch.setenv("LORASMITH_CACHE", str(copy))
    _, client, question = behind_a_client(parties.backend, tmp_path / "e", seed=34)
    ticket = client.post("/v1/answers", json=question).json()["ticket"]
    shutil.rmtree(copy / "zk" / "keys")
    proofs = {"fold_seed": "0123456789abcdef", "tickets": [ticket]}
    answer = client.post("/v1/proofs", json=proofs)
    assert (answer.status_code, answer.json()["code"]) == (500, "prover-failed")


def test_the_service_and_the_client_never_hold_a_weight(parties: Parties) -> None:
    """What goes over the wire: the manifest's members, outputs, tickets and proofs."""
    name = parties.manifest.modules[0].name
    question = {"nonce": "0123456789", "module": name, "x": parties.x[name][:1]}
    status, answer = post(f"{parties.url}/v1/answers", question)
    assert status == 200 and set(answer) == {"ticket", "y"}
    request = {"fold_seed": "0123456789abcdef", "tickets": [answer["ticket"]]}
    status, proofs = post(f"{parties.url}/v1/proofs", request)
    assert status == 200 and set(proofs) == {"proofs"}


def test_a_base_without_the_modules_is_named(parties: Parties, tiny_base: Path) -> None:
    base = load_base(resolve_base(str(tiny_base)))
    module = parties.manifest.modules[0]
    with pytest.raises(LayoutMismatch, match="no module named nowhere"):
        activations(base, [replace(module, name="nowhere")], TEXT, 1)
    with pytest.raises(LayoutMismatch, match="takes 32 numbers"):
        activations(base, [replace(module, in_features=31)], TEXT, 1)
    with pytest.raises(UsageError, match="tokens of the prompt"):
        activations(base, [module], TEXT, 10_000)
