"""Every strategy behind the one door: what it makes and says, and always the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from api.cli.main import main
from generator.engine import Engine
from generator.models.base import registered
from generator.package import Packaged
from generator.request import Request
from index.encoders.descriptions import DescriptionEncoder
from index.search.retriever import Neighbour, Retriever, softmax_weights
from library.base.models import BaseReference, resolve_base
from library.errors import LayoutMismatch, UnknownName, UsageError
from library.peft.provenance import PROVENANCE_FILE, adapter_id
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from library.store.catalogue import records
from library.store.open import open_library
from library.tasks.files import Example

ADD = tiny.LIBRARY_TASKS["sum"]
NEW = "Multiply the two numbers."
NAMES = ("auto", "text-to-lora", "nearest", "compose")


def one(engine: Engine, name: str, base: BaseReference, **request: Any) -> Packaged:
    return engine.generate(name, Request(**{"description": NEW, **request}), base)


def provenance(made: Packaged) -> dict[str, Any]:
    return json.loads(made.files.files[PROVENANCE_FILE])


def test_nearest_is_the_library_s_own_file(
    engine: Engine, base: BaseReference, small_library: Path
) -> None:
    own = {r["task"]: r for r in records(open_library(str(small_library / "lib")))}
    made = one(engine, "nearest", base, description=ADD)
    assert made.files.sha256 == own["sum"]["sha256"]
    assert made.summary["chosen"]["neighbours"][0] == {
        "id": own["sum"]["id"],
        "task": "sum",
        "similarity": 1,
    }
    said = provenance(made)
    assert said["parents"] == [own["sum"]["id"]] and said["checkpoint"] is None
    assert said["generator"] == "nearest" and made.files.id != own["sum"]["id"]
    without = engine.propose("nearest", Request(ADD), base, without="sum")
    assert without.parents == [own["sub"]["id"]]
    assert "sum" not in [near.task for near in without.chosen.neighbours]


def test_compose_is_the_weighted_sum_of_the_products(
    engine: Engine, base: BaseReference, small_library: Path
) -> None:
    made = one(engine, "compose", base, profile="lossless")
    retriever = engine.resources.retriever(base)
    near = retriever.nearest(retriever.embed(NEW), 4)
    assert [n.to_dict() for n in near] == made.summary["chosen"]["neighbours"] and len(near) == 3
    assert [n.similarity for n in near] == sorted((n.similarity for n in near), reverse=True)
    weights = softmax_weights(near)
    assert sum(weights) == pytest.approx(1) and weights == sorted(weights, reverse=True)
    stored = [read_peft(small_library / "lib" / "adapters" / n.id) for n in near]
    parts = [tiny.deltas(adapter.to(dtype=torch.float64)) for adapter in stored]
    assert made.adapter.layout.rank == 12
    for name, delta in tiny.deltas(made.adapter).items():
        expected = sum(w * part[name] for w, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(delta, expected, rtol=1e-9, atol=1e-12)
    assert provenance(made)["parents"] == [n.id for n in near]
    narrow = tiny.deltas(one(engine, "compose", base, rank=2).adapter)
    for name, delta in tiny.deltas(made.adapter).items():
        lost = torch.linalg.matrix_norm(delta - narrow[name])
        torch.testing.assert_close(lost, torch.linalg.svdvals(delta)[2:].norm(), rtol=1e-6, atol=0)


def test_text_to_lora_is_what_the_generator_makes_and_says_what_is_near(
    engine: Engine, alone: Engine, base: BaseReference
) -> None:
    single = one(alone, "text-to-lora", base)
    made = one(engine, "text-to-lora", base)
    assert (made.files.id, made.files.sha256) == (single.files.id, single.files.sha256)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert made.files.files[name] == single.files.files[name]
    assert made.summary["chosen"]["neighbours"] == provenance(made)["neighbours"] != []
    assert single.summary["chosen"]["neighbours"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_whatever_else_is_asked_for_and_with_any_threads(
    name: str, engine: Engine, base: BaseReference
) -> None:
    first = one(engine, name, base).files
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert one(engine, name, base).files == first
            one(engine, name, base, description=f"Task {threads}. " * threads, rank=2)
            assert one(engine, name, base).files == first
    finally:
        torch.set_num_threads(before)


def test_vectors_come_from_the_cache_or_anew(
    small_library: Path, base: BaseReference, encoder: DescriptionEncoder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    folder = open_library(str(small_library / "lib"))

    def nearest() -> list[Neighbour]:
        retriever = Retriever(folder, base, encoder)
        return retriever.nearest(retriever.embed(NEW), 3)

    first = nearest()
    (file,) = (tmp_path / "cache" / "vectors").iterdir()
    assert nearest() == first
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert nearest() == first and file.read_bytes() == whole
    monkeypatch.setenv("LORASMITH_CACHE", "/dev/null")  # nothing can be kept there
    assert nearest() == first


def test_the_id_follows_from_the_files_and_tells_requests_apart(
    engine: Engine, base: BaseReference
) -> None:
    ids = set()
    for name in NAMES:
        for request in ({}, {"seed": 1}, {"rank": 2}, {"strength": 0.5}):
            made = one(engine, name, base, **request)
            config = json.loads(made.files.files[CONFIG_FILE])
            assert adapter_id(config, made.files.sha256, provenance(made)) == made.files.id
            ids.add(made.files.id)
    assert len(ids) == 16


def test_what_cannot_be_made_is_said(
    engine: Engine, alone: Engine, base: BaseReference, tmp_path: Path
) -> None:
    known = f"known: auto, multi-task, {', '.join(registered())}, nearest, compose, fresh"
    with pytest.raises(UnknownName, match=known):
        engine.propose("best", Request(NEW), base)
    untrained = Request(NEW, examples=(Example.pair("1 2", "2"),), refine=0)
    for name in ("text-to-lora", "nearest", "compose", "fresh"):
        with pytest.raises(UsageError, match=f"{name} cannot use examples without training"):
            engine.propose(name, untrained, base)
    with pytest.raises(UsageError, match="fresh needs examples"):
        engine.propose("fresh", Request(NEW), base)
    with pytest.raises(LayoutMismatch, match="no multi-task adapter is for"):
        engine.propose("multi-task", Request(NEW), base)
    trained = Request(None, examples=(Example.pair("1 2", "2"),))
    for name in ("text-to-lora", "nearest", "compose"):
        with pytest.raises(UsageError, match="a description is needed"):
            engine.propose(name, trained, base)
    for name in ("nearest", "compose"):
        with pytest.raises(UsageError, match="there is no library"):
            alone.propose(name, Request(NEW), base)
    assert one(alone, "auto", base).summary["chosen"]["strategy"] == "text-to-lora"
    tiny.model(tiny.config("llama", num_hidden_layers=3)).save_pretrained(tmp_path / "deeper")
    deeper = resolve_base(str(tmp_path / "deeper"))
    for name, side in (("nearest", "the library"), ("text-to-lora", "the text-to-lora checkpoint")):
        with pytest.raises(LayoutMismatch, match=rf"{tmp_path}.*{side}"):
            engine.propose(name, Request(NEW), deeper)
    for wrong in ({"input": "\ud800", "output": ""}, {"input": "", "output": "\udfff"}):
        with pytest.raises(UsageError, match="UTF-8"):
            Request(NEW, examples=(Example.pair(**wrong),))
    with pytest.raises(UsageError, match="at most 200 examples"):
        Request(NEW, examples=(Example.pair("", ""),) * 201)


def test_the_command(
    small_library: Path,
    small_checkpoint: Path,
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["generate", NEW, "--base", str(tiny_base), "--checkpoint", str(small_checkpoint)]
    library = ["--library", str(small_library / "lib")]
    for name in NAMES:
        out = ["--out", str(tmp_path / name), "--generator", name, "--json"]
        assert main([*command, *library, *out]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["generator"] == name and len(shown["chosen"]["neighbours"]) == 3
        assert read_peft(tmp_path / name).layout.rank == shown["rank"]
    assert main([*command, "--out", str(tmp_path / "shipped"), "--generator", "nearest"]) == 1
    assert "the library" in capsys.readouterr().err  # the shipped one is for another base
    assert main([*command, "--out", str(tmp_path / "shipped")]) == 0
    assert "no library holds an adapter for this base model" in capsys.readouterr().out
