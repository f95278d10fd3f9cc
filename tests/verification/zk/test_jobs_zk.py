"""Proofs as jobs: what comes out convinces a verifier, within the limit, and can be stopped."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import zk_world
from jobs import ended, made, verify
from rest import assert_problem, client_of
from starlette.testclient import TestClient

from api.cli.main import main
from api.service.job_store import INTERRUPTED
from api.service.settings import Settings
from generator.engine import Engine
from library.errors import MissingPath
from verification.zk import backend
from verification.zk.backend import Backend, new_srs

pytestmark = pytest.mark.slow
NONCE = "drawn by the verifier"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One SRS and one set of keys for all tests."""
    with zk_world.cached(tmp_path_factory.mktemp("zk") / "cache"):
        yield


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path, small_library: Path) -> Settings:
    bases, library = {"tiny": str(tiny_base)}, str(small_library / "lib")
    return Settings(data=tmp_path / "data", bases=bases, library=library)


@pytest.fixture
def client(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    with client_of(settings, engine) as client:
        yield client


def proved(client: TestClient, adapter: str, **wanted: Any) -> dict[str, Any]:
    asked = verify(client, adapter, {"hooks": ["zk"], "zk": wanted})
    assert asked.status_code == 202, asked.text
    return ended(client, asked.headers["location"])


def test_the_proof_of_a_job_convinces_the_command(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = made(client)
    done = proved(client, adapter, modules=2, nonce=NONCE)
    assert (done["state"], done["result"]["verdict"]) == ("done", "accept")
    (finding,) = done["result"]["findings"]
    evidence = finding["evidence"]
    assert (finding["hook"], finding["code"]) == ("zk", "proved")
    assert len(evidence["says"]) == 3 and len(evidence["proved"]) == 2
    assert evidence["nonce"] == NONCE and evidence["srs_made_here"]
    assert evidence["adapter_sha256"] == client.get(f"/v1/adapters/{adapter}").json()["sha256"]
    manifest, proof = tmp_path / "manifest.json", tmp_path / "proof.json"
    manifest.write_text(json.dumps(evidence["files"][manifest.name]))
    proof.write_text(json.dumps(evidence["files"][proof.name]))
    command = ["verify-proof", str(proof), "--manifest", str(manifest), "--modules", "2", "--json"]
    assert main([*command, "--nonce", NONCE]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("verdict") == "accept" and report.pop("findings")
    assert report == {key: evidence[key] for key in report}
    assert main([*command, "--nonce", "another nonce"]) == 1


def test_the_owner_s_limit_ends_proofs_of_everything(client: TestClient) -> None:
    """Rank 4: three rows a module, whoever asks; and a count that is too large costs none."""
    adapter = made(client, "Something that is proved often.")
    wrong = verify(client, adapter, {"hooks": ["zk"], "zk": {"modules": 99}})
    assert_problem(wrong, 422, "invalid-field")
    assert wrong.json()["detail"] == "the adapter has 4 modules: modules must be 1 to that"
    found = [proved(client, adapter, modules="all") for _ in "1234"]
    assert [job["state"] for job in found] == ["done", "done", "done", "failed"]
    assert "limit" in found[3]["error"]
    every = [job["result"]["findings"][0]["evidence"] for job in found[:3]]
    assert len({told["nonce"] for told in every}) == 3  # drawn anew for each
    assert all(len(told["proved"]) == told["modules"] == 4 for told in every)
    assert len({told["manifest"] for told in every}) == 1


def test_the_configured_srs_is_used_and_has_to_be_there(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "verifier.srs"
    with Backend(1) as prover:
        file.write_bytes(new_srs(prover, 8))
    with client_of(settings.model_copy(update={"zk_srs": file}), engine) as client:
        done = proved(client, made(client, "Under a srs."), modules=1)
        evidence = done["result"]["findings"][0]["evidence"]
        assert not evidence["srs_made_here"]
        assert evidence["srs_sha256"] == backend.read_srs(file).sha256
    with pytest.raises(MissingPath, match="no SRS"):
        client_of(settings.model_copy(update={"zk_srs": tmp_path / "no"}), engine).__enter__()


def test_without_the_extra_nothing_is_queued(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = made(client)
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    answer = verify(client, adapter, {"hooks": ["zk"]})
    assert_problem(answer, 501, "extra-missing")
    assert "pip install 'lorasmith[zk]'" in answer.json()["detail"]


def test_a_stopped_service_leaves_no_process_and_the_loop_is_free_meanwhile(
    settings: Settings, engine: Engine
) -> None:
    with client_of(settings, engine) as client:
        asked = verify(client, made(client, "Stopped."), {"hooks": ["zk"], "zk": {"modules": 4}})
        end = time.monotonic() + 60
        while not (working := tiny.children(b"zk/child.py")):
            assert time.monotonic() < end
        assert client.get("/health/ready").status_code == 200
    assert not working & tiny.children(b"zk/child.py")
    with client_of(settings, engine) as client:
        left = client.get(asked.headers["location"]).json()
    assert (left["state"], left["error"]) == ("interrupted", INTERRUPTED)


class Enough(Exception):
    pass


def test_a_call_that_is_no_longer_wanted_is_killed_in_the_middle() -> None:
    """An SRS of 2^18 points takes minutes; the process that makes it is gone in a second or two."""
    seen: set[int] = set()

    def still() -> None:
        seen.update(tiny.children(b"zk/child.py"))
        raise Enough

    start = time.monotonic()
    with pytest.raises(Enough), Backend(1, still) as prover:
        new_srs(prover, 18)
    assert seen and not seen & tiny.children(b"zk/child.py")
    assert time.monotonic() - start < 20
