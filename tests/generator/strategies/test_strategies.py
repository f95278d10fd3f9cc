"""Every strategy behind the one door: what it makes and says, and always the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from api.cli.main import main
from generator.generate import Generator
from generator.request import Generated, Request
from generator.strategies.strategies import GENERATORS, Strategies
from index.encoders.descriptions import DescriptionEncoder
from index.search.retriever import Retriever, softmax_weights
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


def one(strategies: Strategies, name: str, base: BaseReference, **request: Any) -> Generated:
    return strategies.generate(name, [Request(**{"description": NEW, **request})], base)[0]


def provenance(made: Generated) -> dict[str, Any]:
    return json.loads(made.files.files[PROVENANCE_FILE])


def test_nearest_is_the_library_s_own_file(
    strategies: Strategies, base: BaseReference, small_library: Path
) -> None:
    own = {r["task"]: r for r in records(open_library(str(small_library / "lib")))}
    made = one(strategies, "nearest", base, description=ADD)
    assert made.files.sha256 == own["sum"]["sha256"]
    assert made.chosen["neighbours"][0] == {"id": own["sum"]["id"], "task": "sum", "similarity": 1}
    said = provenance(made)
    assert said["parents"] == [own["sum"]["id"]] and said["checkpoint"] is None
    assert said["generator"] == "nearest" and made.files.id != own["sum"]["id"]
    without = strategies.propose("nearest", ADD, base, without="sum")
    assert without.parents == [own["sub"]["id"]]
    assert "sum" not in [near.task for near in without.chosen.neighbours]


def test_compose_is_the_weighted_sum_of_the_products(
    strategies: Strategies, base: BaseReference, small_library: Path
) -> None:
    made = one(strategies, "compose", base, profile="lossless")
    near = strategies.shelf(base).nearest(NEW, 4)
    assert [n.to_dict() for n in near] == made.chosen["neighbours"] and len(near) == 3
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
    narrow = tiny.deltas(one(strategies, "compose", base, rank=2).adapter)
    for name, delta in tiny.deltas(made.adapter).items():
        lost = torch.linalg.matrix_norm(delta - narrow[name])
        torch.testing.assert_close(lost, torch.linalg.svdvals(delta)[2:].norm(), rtol=1e-6, atol=0)


def test_text_to_lora_is_what_the_generator_makes_and_says_what_is_near(
    strategies: Strategies, generator: Generator, base: BaseReference
) -> None:
    alone = generator.generate([Request(NEW)], base)[0]
    made = one(strategies, "text-to-lora", base)
    assert (made.files.id, made.files.sha256) == (alone.files.id, alone.files.sha256)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert made.files.files[name] == alone.files.files[name]
    assert made.chosen["neighbours"] == provenance(made)["neighbours"] != []
    assert alone.chosen["neighbours"] == []


@pytest.mark.parametrize("name", GENERATORS)
def test_the_same_bytes_in_any_batch_and_with_any_threads(
    name: str, strategies: Strategies, base: BaseReference
) -> None:
    alone = one(strategies, name, base).files
    others = [Request(f"Task {i}. " * (1 + i % 3), rank=2) for i in range(7)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert one(strategies, name, base).files == alone
            pair = strategies.generate(name, [Request(ADD), Request(NEW)], base)
            assert pair[1].files == alone
        crowd = strategies.generate(name, [*others[:4], Request(NEW), *others[4:]], base)
        assert crowd[4].files == alone
    finally:
        torch.set_num_threads(before)


def test_vectors_come_from_the_cache_or_anew(
    small_library: Path, base: BaseReference, encoder: DescriptionEncoder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    folder = open_library(str(small_library / "lib"))
    first = Retriever(folder, base, encoder).nearest(NEW, 3)
    (file,) = (tmp_path / "cache" / "vectors").iterdir()
    assert Retriever(folder, base, encoder).nearest(NEW, 3) == first
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert Retriever(folder, base, encoder).nearest(NEW, 3) == first and file.read_bytes() == whole
    monkeypatch.setenv("LORASMITH_CACHE", "/dev/null")  # nothing can be kept there
    assert Retriever(folder, base, encoder).nearest(NEW, 3) == first


FRESH = """
import json, sys, torch
from generator.generate import Generator
from generator.request import Request
from generator.strategies.strategies import Strategies
from library.base.models import resolve_base
from library.store.open import open_library
from library.canonical import digest
from pathlib import Path
checkpoint, library, base, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
made = Strategies(Generator(Path(checkpoint)), open_library(library))
for name in ("auto", "compose", "nearest"):
    files = made.generate(name, [Request("Multiply the two numbers.")], resolve_base(base))[0].files
    print(files.id, digest(files.files["provenance.json"]))
"""


@pytest.mark.slow
def test_the_same_bytes_in_any_process(
    strategies: Strategies, base: BaseReference, small_checkpoint: Path, small_library: Path
) -> None:
    given = (str(small_checkpoint), str(small_library / "lib"), base.path)
    started = [tiny.start_python(FRESH, *given, str(1 + n), hash_seed=n) for n in (0, 1)]
    found = [tiny.output_of(process).split() for process in started]
    assert found[0] == found[1] and found[0][0] == one(strategies, "auto", base).files.id


def test_the_id_follows_from_the_files_and_tells_requests_apart(
    strategies: Strategies, base: BaseReference
) -> None:
    ids = set()
    for name in GENERATORS:
        for request in ({}, {"seed": 1}, {"rank": 2}, {"strength": 0.5}):
            made = one(strategies, name, base, **request)
            config = json.loads(made.files.files[CONFIG_FILE])
            assert adapter_id(config, made.files.sha256, provenance(made)) == made.files.id
            ids.add(made.files.id)
    assert len(ids) == 16


def test_what_cannot_be_made_is_said(
    strategies: Strategies, generator: Generator, base: BaseReference, tmp_path: Path
) -> None:
    with pytest.raises(UnknownName, match="known: auto, text-to-lora, nearest, compose"):
        strategies.propose("best", NEW, base)
    for name in ("text-to-lora", "nearest", "compose"):
        with pytest.raises(UsageError, match=f"{name} cannot use examples"):
            strategies.propose(name, NEW, base, [Example.pair("1 2", "2")])
    alone = Strategies(generator)
    for name in ("nearest", "compose"):
        with pytest.raises(UsageError, match="there is no library"):
            alone.propose(name, NEW, base)
    assert one(alone, "auto", base).chosen["strategy"] == "text-to-lora"
    tiny.model(tiny.config("llama", num_hidden_layers=3)).save_pretrained(tmp_path / "deeper")
    deeper = resolve_base(str(tmp_path / "deeper"))
    for name, side in (("nearest", "the library"), ("text-to-lora", "the text-to-lora checkpoint")):
        with pytest.raises(LayoutMismatch, match=rf"{tmp_path}.*{side}"):
            strategies.propose(name, NEW, deeper)
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
    for name in GENERATORS:
        out = ["--out", str(tmp_path / name), "--generator", name, "--json"]
        assert main([*command, *library, *out]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["generator"] == name and len(shown["chosen"]["neighbours"]) == 3
        assert read_peft(tmp_path / name).layout.rank == shown["rank"]
    assert main([*command, "--out", str(tmp_path / "shipped"), "--generator", "nearest"]) == 1
    assert "the library" in capsys.readouterr().err  # the shipped one is for another base
    assert main([*command, "--out", str(tmp_path / "shipped")]) == 0
    assert "no adapter was near" in capsys.readouterr().out
