"""The Python face: the same functions that the command line calls, light to import, typed."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import lorasmith
from api.cli.main import main
from library.base.models import base_layout, resolve_base
from library.base.usage import BARE
from library.errors import MissingPath, OutputExists, UnknownName, UsageError
from library.peft.read import read_peft
from lorasmith.loading import Mode

ABOUT = "Say whether the text is about love."


@pytest.fixture(scope="module")
def options(small_checkpoint: Path, small_library: Path, tiny_base: Path) -> dict[str, Any]:
    return {
        "base": str(tiny_base),
        "checkpoints": [small_checkpoint],
        "library": str(small_library / "lib"),
    }


@pytest.fixture(scope="module")
def folder(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("face") / "adapter"
    return lorasmith.generate(ABOUT, generator="text-to-lora", **options).save(target)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "transformers", "peft", "faiss", "fastapi", "pydantic")
    script = f"import lorasmith, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tiny.ROOT, capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_what_it_exports_is_typed_and_described() -> None:
    for name in lorasmith.__all__:
        exported = getattr(lorasmith, name)
        assert inspect.getdoc(exported), name
        if inspect.isfunction(exported):
            hints = exported.__annotations__
            assert {*hints} == {*inspect.signature(exported).parameters, "return"}, name
            assert "Raises" in (exported.__doc__ or ""), name


def test_the_command_line_gives_the_same_bytes(
    options: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input": "a", "output": "yes"}\n{"input": "b", "output": "no"}\n')
    adapter = lorasmith.generate(ABOUT, examples=[("a", "yes"), ("b", "no")], seed=3, **options)
    same = lorasmith.generate(ABOUT, examples=rows, seed=3, **options)
    command = ["generate", ABOUT, "--examples", str(rows), "--seed", "3", "--json"]
    command += ["--base", options["base"], "--checkpoint", str(options["checkpoints"][0])]
    command += ["--library", options["library"], "--out", str(tmp_path / "typed")]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {k: printed[k] for k in adapter.summary} == adapter.summary == same.summary
    written = {path.name: path.read_bytes() for path in (tmp_path / "typed").iterdir()}
    assert written == adapter.files == same.files
    assert printed["milliseconds"].keys() == adapter.milliseconds.keys()


def test_saving_replaces_nothing_unless_told(folder: Path, options: dict[str, Any]) -> None:
    adapter = lorasmith.generate("Something else.", generator="text-to-lora", **options)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputExists):
        adapter.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    report = lorasmith.verify(adapter.save(folder.with_name("other")))
    assert [f.code for f in report.findings if f.severity != "info"] == ["expected-unknown"]


def test_verify_and_answer_take_the_folder(folder: Path, options: dict[str, Any]) -> None:
    assert lorasmith.verify(folder, target="vllm").verdict in ("accept", "warn")
    adapter = lorasmith.generate(ABOUT, generator="text-to-lora", **options)
    inputs, base = ["1 2 3", "love"], options["base"]
    adapted = lorasmith.answer(inputs, folder, base=base)
    assert adapted == lorasmith.answer(inputs, adapter, base=base)
    # An adapter that changes nothing is asked with the prompt that it was made for.
    plain = lorasmith.answer(inputs, base=base)
    asked = lorasmith.answer([f"{ABOUT}\n\n{text}" for text in inputs], base=base)
    modes: dict[Mode, list[str]] = {"bare": plain, "prompted": asked, "best": asked}
    for mode, expected in modes.items():
        zero = lorasmith.generate(
            ABOUT, generator="text-to-lora", strength=1e-9, mode=mode, **options
        )
        assert lorasmith.answer(inputs, zero, base=base) == expected
        assert lorasmith.answer(inputs, zero, base=base, usage=BARE) == plain
        read = lorasmith.answer(inputs, zero.save(folder.with_name(f"zero-{mode}")), base=base)
        assert read == expected


def test_composing_is_the_exact_sum(folder: Path, options: dict[str, Any]) -> None:
    library = lorasmith.load_library(options["library"])
    name = library.adapters(limit=1)[0].task
    merged = lorasmith.compose(
        [folder, name], weights=[0.5, 2.0], library=options["library"], profile="lossless"
    )
    assert merged.summary["report"]["verdict"] == "accept"
    assert len(merged.summary["parents"]) == 2
    saved = merged.save(folder.with_name("merged"))
    other = folder.with_name("parent")
    other.mkdir()
    for file, content in library.files(name).items():
        (other / file).write_bytes(content)
    layout = base_layout(resolve_base(options["base"]), read_peft(folder).layout)

    def delta(path: Path, factor: float) -> dict[str, Any]:
        updates = tiny.deltas(read_peft(path, layout))
        return {site: factor * update for site, update in updates.items()}

    first, second, both = delta(folder, 0.5), delta(other, 2), delta(saved, 1)
    for site, update in both.items():
        assert (update - first[site] - second[site]).abs().max() < 1e-5


def test_a_merged_adapter_is_for_the_prompt_that_all_its_parents_are_for(
    folder: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    def merged(*others: Any) -> Any:
        return lorasmith.compose([folder, *others], library=options["library"])

    def made(name: str, **more: Any) -> Path:
        adapter = lorasmith.generate(ABOUT, generator="text-to-lora", **more, **options)
        return adapter.save(tmp_path / name)

    prompted = {"mode": "prompted", "template": f"{ABOUT}\n\n{{input}}"}
    alike = merged(made("alike", seed=5, strength=2.0))
    assert alike.summary["usage"] == prompted == json.loads(alike.files["provenance.json"])["usage"]
    task = lorasmith.load_library(options["library"]).adapters(limit=1)[0].task
    for other in (made("bare", mode="bare"), task):  # those of a library state none
        assert merged(other).summary["usage"] == BARE.to_dict()
    # What goes on from an adapter is for its prompt too; nothing is for the input alone.
    further = lorasmith.refine([("a", "yes")], folder, base=options["base"], steps=1)
    assert further.summary["usage"] == prompted
    fresh = lorasmith.refine([("a", "yes")], base=options["base"], steps=1)
    assert fresh.summary["usage"] == BARE.to_dict()


def test_examples_alone_make_an_adapter(options: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    adapter = lorasmith.generate(
        None, examples=[("a", "yes"), ("b", "no")], refine=2, budget=30.0,
        progress=lambda *done: seen.append(done), **options,
    )  # fmt: skip
    assert adapter.summary["usage"] == BARE.to_dict() and seen[-1] == (2, 2)
    said = json.loads(adapter.files["provenance.json"])
    assert said["description"] is None and said["examples"] and said["details"]["refine"]
    assert "examples alone" in adapter.files["README.md"].decode()
    for wrong in ({}, {"refine": 0, "examples": [("a", "yes")]}, {"mode": "prompted", "examples": [
        ("a", "yes")]}):  # fmt: skip
        with pytest.raises(UsageError, match="description"):
            lorasmith.generate(None, **wrong, **options)


def test_search_finds_by_text_and_by_adapter(folder: Path, options: dict[str, Any]) -> None:
    library = options["library"]
    tasks = [entry.task for entry in lorasmith.load_library(library).adapters()]
    hits = lorasmith.search(ABOUT, library=library, k=2)
    assert len(hits) == 2 and hits[0].score >= hits[1].score
    assert {hit.task for hit in hits} <= {*tasks}


def test_bad_arguments_are_errors_of_one_kind(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        lorasmith.generate(ABOUT, generator="text-to-lore", **options)
    with pytest.raises(MissingPath):
        lorasmith.generate(ABOUT, **{**options, "checkpoints": [tmp_path / "none"]})
    with pytest.raises(MissingPath):
        lorasmith.verify(tmp_path / "none")
    with pytest.raises(UsageError):
        lorasmith.answer("one text, not a list")
    with pytest.raises(lorasmith.LorasmithError):
        lorasmith.load_library(tmp_path / "none")
    with pytest.raises(UsageError):
        lorasmith.search(library=options["library"])
