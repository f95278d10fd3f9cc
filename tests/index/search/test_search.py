"""`index build`, `search` and `GET /v1/search`, with the real encoder and the shipped sample."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from building import built, tasks  # noqa: F401  (fixtures)
from rest import LOCALHOST, engine_of
from starlette.testclient import TestClient

from api.cli.library_list import SHIPPED_LIBRARY
from api.cli.main import main
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from index.encoders.descriptions import DescriptionEncoder
from index.search.confidence import margins, shipped_confidence
from library.base import packaged
from library.store.catalogue import records
from library.store.open import open_library

pytestmark = pytest.mark.slow
LEAP = "Decide whether a given year is a leap year."


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache without indexes, with the converted base of the ordinary one."""
    before, base = os.environ.get("LORASMITH_CACHE"), packaged.ensure_converted()
    os.environ["LORASMITH_CACHE"] = str(cache := tmp_path_factory.mktemp("cache"))
    (cache / "base-models").mkdir()
    (cache / "base-models" / base.name).symlink_to(base)
    yield cache
    if before is None:
        del os.environ["LORASMITH_CACHE"]
    else:
        os.environ["LORASMITH_CACHE"] = before


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped sample, indexed."""
    library = tmp_path_factory.mktemp("sample") / "library"
    shutil.copytree(SHIPPED_LIBRARY, library, ignore=shutil.ignore_patterns("index"))
    assert main(["index", "build", "--library", str(library)]) == 0
    return library


def searched(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["search", *arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["results"]
    assert all(list(r) == ["id", "task", "score", "confidence", "by"] for r in answer["results"])
    assert all(0 <= r["confidence"] <= 1 for r in answer["results"])
    scores = [r["score"] for r in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    return answer["results"]


def alike(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    """The same adapters in the same order, with scores that differ by rounding alone."""
    close = [
        a["score"] == pytest.approx(b["score"], abs=1e-5)
        for a, b in zip(first, second, strict=True)
    ]
    return [r["id"] for r in first] == [r["id"] for r in second] and all(close)


def test_every_adapter_is_found_by_its_description(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list((sample / "index").glob("*.faiss"))) == 1
    results = searched(capsys, LEAP, "--library", str(sample), "-k", "3")
    assert len(results) == 3 and results[0]["task"] == "task1332_check_leap_year"
    assert results[0]["confidence"] > 0.9 > 0.1 > results[1]["confidence"]
    for record in records(open_library(str(sample)))[:4]:
        first, *_ = searched(capsys, record["description"], "--library", str(sample))
        assert first["id"] == record["id"] and first["score"] == pytest.approx(1, abs=1e-5)


def test_a_tampered_faiss_file_is_made_again(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = (sample / "index").glob("*.faiss")
    before, written = searched(capsys, LEAP, "--library", str(sample)), file.read_bytes()
    file.write_bytes(written[:-8] + b"tampered")
    assert searched(capsys, LEAP, "--library", str(sample)) == before
    assert file.read_bytes() == written


def test_without_an_index_one_is_kept_in_the_cache_or_in_memory(
    built: Path, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    bare, indexed = tmp_path / "library", tmp_path / "indexed"
    for copy in (bare, indexed):
        shutil.copytree(built, copy)
    assert main(["index", "build", "--library", str(indexed)]) == 0
    expected = searched(capsys, LEAP, "--library", str(indexed))
    files = sorted(bare.rglob("*"))
    assert alike(searched(capsys, LEAP, "--library", str(bare)), expected)
    (cached,) = (own_cache / "indexes").iterdir()
    stamp = (cached / "current.json").stat().st_mtime_ns
    assert alike(searched(capsys, LEAP, "--library", str(bare)), expected)
    assert (cached / "current.json").stat().st_mtime_ns == stamp
    shutil.rmtree(own_cache / "indexes")
    (own_cache / "indexes").write_text("in the way")
    assert alike(searched(capsys, LEAP, "--library", str(bare)), expected)
    (own_cache / "indexes").unlink()
    assert sorted(bare.rglob("*")) == files


def test_filters(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--library", str(sample), "-k", "50")
    by_id = {r["id"]: r for r in records(open_library(str(sample)))}
    assert {r["id"] for r in searched(capsys, LEAP, *where)} == set(by_id)
    tagged = searched(capsys, LEAP, *where, "--tag", "Program Execution")
    assert {r["id"] for r in tagged} == {
        i for i, r in by_id.items() if "Program Execution" in r["categories"]
    }
    assert len(searched(capsys, LEAP, *where, "--license", "permissive")) == len(by_id)
    layout = next(iter(by_id.values()))["layout_digest"]
    assert len(searched(capsys, LEAP, *where, "--layout", layout)) == len(by_id)
    both = ("--tag", "Program Execution", "--tag", "Text Categorization")
    assert searched(capsys, LEAP, *where, *both) == []
    assert main(["search", LEAP, *where, *both]) == 0
    assert "note: " in capsys.readouterr().err


def test_the_index_follows_the_library(
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is imported, removed or described anew is so in the next search, and in the index."""
    library = tmp_path / "library"
    shutil.copytree(built, library)
    where, query = ("--library", str(library)), "Translate English into Finnish."
    assert main(["index", "build", *where]) == 0
    assert {r["task"] for r in searched(capsys, query, *where)} == {f"task{n}" for n in range(5)}
    out = tmp_path / "adapter"
    assert main(["library", "export", "task2", *where, "--out", str(out)]) == 0
    assert main(["library", "remove", "task2", *where]) == 0
    assert {r["task"] for r in searched(capsys, query, *where)} == {
        f"task{n}" for n in (0, 1, 3, 4)
    }
    described = ("--task", "finnish", "--description", query)
    assert main(["library", "import", str(out), *where, *described]) == 0
    first, *others = searched(capsys, query, *where)
    assert first["task"] == "finnish" and first["score"] > 0.99 and len(others) == 4
    (record,) = (r for r in records(open_library(str(library))) if r["task"] == "task1")
    (file,) = (f for f in library.glob("records/*/*.json") if record["id"] in f.read_text())
    texts = ["Name the capital of a country.", "Which town rules a country?"]
    file.write_text(json.dumps({**record, "descriptions": texts}))
    for text in texts:
        assert searched(capsys, text, *where)[0]["task"] == "task1"
    assert main(["index", "build", *where]) == 0
    assert "5 adapters, " in capsys.readouterr().out
    assert not list((library / "index").glob(".*"))
    assert alike(searched(capsys, query, *where)[:1], [first])


def test_by_adapter_and_by_both(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--library", str(sample))
    out = tmp_path / "adapter"
    task = "task1332_check_leap_year"
    assert main(["library", "export", task, *where, "--out", str(out)]) == 0
    for path in (out, out / "adapter_model.safetensors"):
        first = searched(capsys, str(path), *where)[0]
        assert (first["task"], first["by"]) == (task, "weights") and first["confidence"] > 0.9
        first = searched(capsys, str(path), *where, "--by", "description")[0]
        assert (first["task"], first["by"]) == (task, "description")
    text = "Find the names of people and places in a sentence."
    by = {}
    for how in ("description", "weights"):
        alone = searched(capsys, text, *where, "-k", "24", "--by", how)
        both = searched(capsys, text, *where, "-k", "24", "--by", how, "--adapter", str(out))
        score = [{r["task"]: r["score"] for r in results}[task] for results in (alone, both)]
        assert score[1] > score[0]
        by[how] = both
    assert searched(capsys, text, *where, "-k", "24", "--adapter", str(out)) == by["weights"]
    (out / "provenance.json").unlink()
    assert searched(capsys, str(out), *where)[0]["task"] == task
    assert main(["search", str(out), *where, "--by", "description"]) == 1
    assert "holds no description" in capsys.readouterr().err


def test_a_description_finds_an_adapter_by_its_weights(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--library", str(sample), "--by", "weights")
    results = searched(capsys, LEAP, *where, "-k", "24")
    assert results[0]["task"] == "task1332_check_leap_year"
    assert len(results) == 24 and {r["by"] for r in results} == {"weights"}
    assert (sample / "index" / "weights" / "current.json").exists()
    assert main(["search", LEAP, *where, "-k", "1"]) == 0
    assert "  weights  " in capsys.readouterr().out
    assert len(searched(capsys, LEAP, *where, "--tag", "Program Execution")) < 10


def test_a_text_may_come_through_a_pipe(
    sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--library", str(sample), "-k", "3")
    expected = searched(capsys, LEAP, *where)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{LEAP}\n"))
    assert searched(capsys, "-", *where) == expected
    reader, writer = os.pipe()
    os.write(writer, LEAP.encode())
    os.close(writer)
    assert searched(capsys, f"/dev/fd/{reader}", *where) == expected
    os.close(reader)


WRONG = [
    ([""], 2, "the description is empty"),
    (["x" * 8193], 2, "8,193 characters"),
    (["x", "-k", "0"], 2, "k must be from 1 to 1,000, not 0"),
    (["x", "-k", "1001"], 2, "k must be from 1 to 1,000"),
    (["x", "-k", "many"], 2, "-k"),
    (["./no-such-adapter"], 2, "no adapter at ./no-such-adapter"),
    (["no-such.safetensors"], 2, "no adapter at no-such.safetensors"),
    (["x", "--adapter", "no"], 2, "no adapter at no"),
    ([".", "--adapter", "."], 2, "not a second adapter"),
    (["."], 1, "holds no adapter: there is no adapter_config.json"),
    (["x", "--by", "magic"], 2, "--by"),
    (["x", "--by", "weights", "--weight-encoder", "no"], 2, "no"),
    (["x", "--recipe", "magic"], 2, "no adapter with recipe 'magic'; known: lora"),
    (["x", "--tag", "Poker"], 2, "no adapter with tag 'Poker'; known: "),
    (["x", "--library", "no"], 2, "no library at no"),
    (["x", "--encoder", "./no"], 2, "no encoder folder at ./no"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=lambda v: str(v)[:30])
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str],
    code: int,
    words: str,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    complete = arguments if "--library" in arguments else [*arguments, "--library", str(sample)]
    capsys.readouterr()
    assert main(["search", *complete]) == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_another_encoder_is_refused_until_it_is_made_again(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    shutil.copytree(built, library)
    other = tmp_path / "encoder"
    shutil.copytree(packaged.encoder_folder(), other)
    build = ["index", "build", "--library", str(library)]
    assert main(build) == 0
    assert main([*build, "--encoder", str(other)]) == 0
    assert "it is replaced" in capsys.readouterr().err
    assert main(["search", LEAP, "--library", str(library)]) == 1
    error = capsys.readouterr().err
    assert f"made with encoder {other} " in error and "not sentence-transformers/all" in error
    assert main(["search", LEAP, "--library", str(library), "--encoder", str(other)]) == 0
    assert main(build) == 0
    assert main(["search", LEAP, "--library", str(library)]) == 0
    capsys.readouterr()
    assert main([*build, "--library", str(tmp_path / "no")]) == 2


def test_over_http(
    sample: Path, checkpoint: Path, encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = searched(capsys, LEAP, "--library", str(sample), "-k", "4")
    settings = Settings(data=tmp_path / "data", library=str(sample))
    engine = engine_of(settings, checkpoint, encoder)
    with TestClient(create_app(Service(settings, engine)), LOCALHOST) as client:
        answer = client.get("/v1/search", params={"q": LEAP, "k": 4})
        assert answer.status_code == 200 and answer.json() == {"results": expected}
        tagged = client.get("/v1/search", params={"q": LEAP, "tag": "Program Execution"}).json()
        assert 0 < len(tagged["results"]) < 10
        weights = client.get("/v1/search", params={"q": LEAP, "k": 4, "by": "weights"}).json()
        assert weights["results"][0]["task"] == expected[0]["task"]
        created = client.post("/v1/adapters", json={"description": LEAP, "generator": "nearest"})
        identity = created.json()["id"]
        for params, by in (
            ({}, "weights"),
            ({"by": "description"}, "description"),
            ({"q": LEAP}, "weights"),
        ):
            query = {"adapter": identity, "k": 4, **params}
            results = client.get("/v1/search", params=query).json()["results"]
            assert [results[0]["task"], results[0]["by"]] == [expected[0]["task"], by]
        answer = client.get("/v1/search", params={"adapter": "ad_" + "0" * 40})
        assert answer.status_code == 404 and answer.json()["code"] == "not-found"
        for params, code in (
            ({}, "invalid-field"),
            ({"q": "x", "by": "magic"}, "invalid-field"),
            ({"q": " "}, "invalid-description"),
            ({"q": "x" * 8193}, "invalid-description"),
            ({"q": "x", "k": 0}, "invalid-field"),
            ({"q": "x", "k": 1001}, "invalid-field"),
            ({"q": "x", "k": "many"}, "invalid-field"),
            ({"q": "x", "base": "no"}, "unknown-name"),
        ):
            answer = client.get("/v1/search", params=params)
            assert answer.status_code == 422 and answer.json()["code"] == code
            assert answer.headers["content-type"] == "application/problem+json"
    settings = Settings(data=tmp_path / "data")  # not loaded yet
    app = create_app(Service(settings))
    assert TestClient(app, LOCALHOST).get("/v1/search", params={"q": "x"}).status_code == 503


def test_vectors_are_those_of_encode(encoder: DescriptionEncoder) -> None:
    """Many at once, short ones beside long ones, as each alone."""
    texts = ["Yes or no?", "word " * 700, LEAP, "é" * 300]
    torch.testing.assert_close(
        encoder.vectors(texts), encoder.encode(texts).pooled, atol=1e-9, rtol=0
    )
    single = DescriptionEncoder(dtype=torch.float32)
    assert single.identity == encoder.identity and len(single.identity.revision) == 64
    torch.testing.assert_close(
        single.vectors(texts).double(), encoder.vectors(texts), atol=1e-5, rtol=0
    )


def test_confidence_rises_with_score_and_margin() -> None:
    calibration = shipped_confidence()
    grid = np.linspace(-1, 1, 41)
    for fixed in (-0.5, 0.0, 0.3, 0.9):
        for values in (
            [calibration.confidence(x, fixed) for x in grid],
            [calibration.confidence(fixed, x) for x in grid],
        ):
            assert values == sorted(values) and values[0] >= 0 and values[-1] <= 1
    assert margins([0.9, 0.9, 0.5], ["a", "a", "b"]) == pytest.approx([0.4, 0.4, -0.4])
    assert margins([0.9], ["a"]) == [0.9]
