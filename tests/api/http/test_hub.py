"""Adapters for the Hub's own clients: they are run as they are, against a real server."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from rest import UNKNOWN_ID, assert_problem, serving
from stored import nothing_made, random_adapters, stored

from api.http.app import create_app
from api.http.hub import commit_of
from api.service.service import Service
from api.service.settings import Settings
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

# HF_ENDPOINT alone, as a user sets it; the rest keeps the test's cache apart.
CLIENT = """
import json, os, sys
port, repository, other, base, cache = sys.argv[1:]
os.environ.pop("HF_HUB_OFFLINE")
os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{port}", HF_HOME=cache)
"""
PEFT = """
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

def weights(model):
    return {n: p.float().sum().item() for n, p in model.named_parameters() if "lora" in n}

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), repository)
first = weights(model)
model.load_adapter(repository, "again", revision=repository.split("ad_")[1])
plain = AutoModelForCausalLM.from_pretrained(base)
plain.load_adapter(repository)
state = get_peft_model_state_dict(model)
from safetensors.torch import save_file
save_file({n: t.contiguous() for n, t in state.items()}, cache + "/loaded.safetensors")
print(json.dumps([sorted(first.values()), sorted(weights(plain).values())]))
"""
HUB = """
import huggingface_hub as hub
from huggingface_hub.errors import (
    EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
)

def raised(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return [k.__name__ for k in type(error).__mro__]

folder = hub.snapshot_download(repository)
info = hub.model_info(repository)
commit = repository.split("ad_")[1]
config = "adapter_config.json"
print(json.dumps({
    "folder": folder,
    "file": hub.hf_hub_download(repository, config),
    "pinned": hub.hf_hub_download(repository, config, revision=commit),
    "files": hub.list_repo_files(repository),
    "exists": [hub.file_exists(repository, f) for f in (config, "config.json")],
    "repositories": [hub.repo_exists(r) for r in (repository, other, "someone/else")],
    "revisions": [hub.revision_exists(repository, r) for r in ("main", commit, "v2", "refs/pr/1")],
    "info": [info.sha, [s.rfilename for s in info.siblings]],
    "verified": hub.HfApi().verify_repo_checksums(repository).mismatches,
    "repository": raised(hub.hf_hub_download, other, config),
    "elsewhere": raised(hub.hf_hub_download, "someone/else", config),
    "entry": raised(hub.hf_hub_download, repository, "model.safetensors"),
    "revision": raised(hub.hf_hub_download, repository, config, revision="v2"),
    "tree": raised(hub.list_repo_files, other),
}))
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(Settings(data=tmp_path_factory.mktemp("hub")), nothing_made())


@pytest.fixture(scope="module")
def identity(service: Service, base: Any) -> str:
    return stored(service, random_adapters(base), base)


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with serving(create_app(service)) as port:
        yield port


@pytest.fixture
def ask(port: int, identity: str, tiny_base: Path, tmp_path: Path) -> Any:
    """Run a client in a process of its own, as the endpoint is read when it is imported."""

    def run(code: str) -> Any:
        names = (f"generated/{identity}", f"generated/{UNKNOWN_ID}", str(tiny_base), str(tmp_path))
        return json.loads(tiny.output_of(tiny.start_python(CLIENT + code, str(port), *names)))

    return run


def test_peft_and_transformers_load_an_adapter_by_its_name(
    ask: Any, service: Service, identity: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    first, plain = ask(PEFT)
    assert first == plain and any(first)
    loaded = load_file(tmp_path / "loaded.safetensors")
    kept = load_file(service.store.path(identity, WEIGHTS_FILE))
    assert {*loaded} == {*kept}
    for name, tensor in kept.items():
        assert tensor.float().equal(loaded[name]), name


def test_the_hubs_own_client_reads_it(ask: Any, service: Service, identity: str) -> None:
    found, commit = ask(HUB), identity.removeprefix("ad_")
    names = sorted(path.name for path in service.store.path(identity).iterdir())
    assert found["files"] == names
    assert found["info"] == [commit, names]
    assert Path(found["folder"]).name == commit
    for name in names:
        content = (Path(found["folder"]) / name).read_bytes()
        assert content == service.store.path(identity, name).read_bytes()
    assert found["file"] == found["pinned"] == f"{found['folder']}/{CONFIG_FILE}"
    assert found["exists"] == [True, False]
    assert found["repositories"] == [True, False, False]
    assert found["revisions"] == [True, True, False, False]
    assert found["verified"] == []
    for call in ("repository", "elsewhere", "tree"):
        assert "RepositoryNotFoundError" in found[call], call
    assert "EntryNotFoundError" in found["entry"]
    assert "RevisionNotFoundError" in found["revision"]


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def test_a_file_has_its_digest_length_and_commit(
    client: httpx.Client, service: Service, identity: str
) -> None:
    content = service.store.path(identity, WEIGHTS_FILE).read_bytes()
    url = f"/generated/{identity}/resolve/main/{WEIGHTS_FILE}"
    head, whole = client.head(url), client.get(url)
    assert whole.content == content and head.content == b""
    for answer in (head, whole):
        assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["x-repo-commit"] == commit_of(identity)
    part = client.get(url, headers={"Range": "bytes=5-"})
    assert (part.status_code, part.content) == (206, content[5:])


def test_what_is_not_there_is_a_problem_with_the_hubs_code(
    client: httpx.Client, identity: str
) -> None:
    wanted = {
        f"/generated/{UNKNOWN_ID}/resolve/main/{CONFIG_FILE}": "RepoNotFound",
        f"/generated/{identity}/x/resolve/main/{CONFIG_FILE}": "RepoNotFound",
        f"/gpt2/resolve/main/{CONFIG_FILE}": "RepoNotFound",
        f"/api/models/generated/{UNKNOWN_ID}": "RepoNotFound",
        f"/generated/{identity}/resolve/v2/{CONFIG_FILE}": "RevisionNotFound",
        f"/api/models/generated/{identity}/revision/v2": "RevisionNotFound",
        f"/api/models/generated/{identity}/tree/v2": "RevisionNotFound",
        f"/generated/{identity}/resolve/main/other/{CONFIG_FILE}": "EntryNotFound",
        f"/generated/{identity}/resolve/main/..%2F..%2Fowners.sqlite3": "EntryNotFound",
    }
    for path, code in wanted.items():
        answer = client.get(path)
        assert_problem(answer, 404, "not-found")
        assert answer.headers["x-error-code"] == code, path


def test_a_deleted_adapter_is_no_repository(
    client: httpx.Client, service: Service, base: Any
) -> None:
    gone = stored(service, random_adapters(base, 2)[1:], base)
    url = f"/generated/{gone}/resolve/main/{CONFIG_FILE}"
    assert client.get(url).status_code == 200
    client.delete(f"/v1/adapters/{gone}")
    assert client.get(url).headers["x-error-code"] == "RepoNotFound"
