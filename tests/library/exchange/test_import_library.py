"""What an import does to a library, and what never gets into one."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from round_trip import CONFIG, Q_AND_V, WEIGHTS, imported, randomised, run, stored, with_adapter
from safetensors.torch import load_file, save

from api.cli.main import main
from library.peft.read import read_peft
from library.store.folder import LibraryFolder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A sound PEFT adapter."""
    model = with_adapter(peft.LoraConfig(r=2, target_modules=Q_AND_V))
    model.save_pretrained(tmp_path / "sound")
    return tmp_path / "sound"


def header_twice(content: bytes) -> bytes:
    """The same file with its first tensor's entry repeated."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    text = (json.dumps(header)[:-1] + f', "{name}": {json.dumps(header[name])}}}').encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_damaged_adapters_are_refused_in_one_sentence(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    tensors = load_file(adapter / WEIGHTS)
    first = next(iter(tensors))
    nan = tensors[first].clone()
    nan[0, 0] = torch.nan
    torch.save(tensors, tmp_path / "pickled")
    bad_weights: dict[str, bytes] = {
        "truncated": content[:-10],
        "a header that is too long": struct.pack("<Q", 1 << 60) + content[8:],
        "empty": b"",
        "is there twice": header_twice(content),
        "NaN": save({**tensors, first: nan}),
        "dtype I32": save({**tensors, first: tensors[first].int()}),
        "not a pair": save({k: v for k, v in tensors.items() if k != first}),
        "safetensors only": (tmp_path / "pickled").read_bytes(),
    }
    bad_configs: dict[str, dict[str, Any]] = {
        "rank 3": {"r": 3},
        "does not target": {"target_modules": ["q_proj"]},
        "changes the base": {"init_lora_weights": "pissa"},
        "linear layers": {"peft_type": "PREFIX_TUNING"},
        "use --base": {"base_model_name_or_path": None},
    }
    said = {**json.loads((adapter / CONFIG).read_text()), "base_model_name_or_path": "o/b"}
    sources = [({WEIGHTS: made}, said, why) for why, made in bad_weights.items()]
    sources += [
        ({WEIGHTS: content}, {**said, **change}, why) for why, change in bad_configs.items()
    ]
    sources.append(
        ({"adapter_model.bin": bad_weights["safetensors only"]}, said, "safetensors only")
    )
    for place, (files, config, why) in enumerate(sources):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / CONFIG).write_text(json.dumps(config))
        for name, made in files.items():
            (folder / name).write_bytes(made)
        assert run("import", folder, "--library", tmp_path / "lib") == 1, why
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("lorasmith: ") and "unexpected" not in error
        assert why in error or why in ("truncated", "a header that is too long", "empty")
    assert run("import", tmp_path / "nowhere", "--library", tmp_path / "lib") == 2
    assert not (tmp_path / "lib").exists()


def test_twice_is_once_and_another_base_is_refused(
    adapter: Path, tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = peft.get_peft_model(
        tiny.model(tiny.config("llama", hidden_size=24)), peft.LoraConfig(target_modules=Q_AND_V)
    )
    model.save_pretrained(tmp_path / "narrow")
    library = tmp_path / "lib"
    assert run("import", tmp_path / "narrow", "--library", library, "--base", tiny_base) == 1
    assert "24" in capsys.readouterr().err
    folder = imported(adapter, library, "--base", "o/b", "--license", "MIT")
    assert json.loads((library / "library.json").read_text()) == {"format": 1}
    shutil.copytree(adapter, tmp_path / "again")
    capsys.readouterr()
    assert run("import", tmp_path / "again", "--library", library, "--base", "o/b") == 0
    assert f"{folder.name}  sound  was there already" in capsys.readouterr().out
    assert len(stored(library)) == 1


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder of one task."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [json.dumps({"input": f"red {i}", "output": f"blue {i % 5}"}) for i in range(66)]
    (folder / "colour.jsonl").write_text("\n".join(rows))
    (folder / "colour.txt").write_text("Name a colour.")
    return folder


def test_a_library_of_imports_can_be_built_on(
    colours: Path, tmp_path: Path, tiny_base: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    from generator.engine import Engine
    from generator.request import Request
    from generator.resources import Resources
    from index.search.retriever import Retriever
    from library.base.models import resolve_base
    from library.tasks.files import read_tasks
    from training.evaluation.library_methods import LibraryMethods

    library = tmp_path / "lib"
    for rank in (2, 4):  # the library's adapters have rank 4
        bare: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
        settings = peft.LoraConfig(r=rank, target_modules=Q_AND_V)
        randomised(peft.get_peft_model(bare, settings)).save_pretrained(tmp_path / f"r{rank}")
        imported(tmp_path / f"r{rank}", library, "--base", tiny_base)
    measure = ["evaluate", "--tasks", colours, "--methods", "nearest", "--base", tiny_base,
               "--library", library, "--out", tmp_path / "report.json"]  # fmt: skip
    assert main([str(word) for word in measure]) == 2
    assert "has no plan" in capsys.readouterr().err
    assert run("build", "--tasks", colours, "--out", library, "--base", tiny_base, "--resume",
               "--steps", "2", "--rank", "4") == 0  # fmt: skip
    assert [r["task"] for r in stored(library)] == ["colour", "r2", "r4"]
    folder = LibraryFolder(library)
    base, (task,) = resolve_base(str(tiny_base)), read_tasks(colours)
    shelf = Retriever(folder, base, encoder)
    methods, engine = LibraryMethods(shelf, shelf), Engine([], Resources(folder))
    nearest = engine.propose("nearest", Request(task.definition), base, without=task.name).adapter
    expected = tiny.deltas(read_peft(library / "adapters" / stored(library)[2]["id"]))
    assert all(torch.equal(delta, expected[name]) for name, delta in tiny.deltas(nearest).items())
    (soup,) = methods.adapters("soup", [task])
    assert soup is not None and soup.layout.rank == 6  # the mean of ΔW asks for no common A
    parts = [
        tiny.deltas(read_peft(library / "adapters" / stored(library)[i]["id"])) for i in (1, 2)
    ]
    for name, delta in tiny.deltas(soup).items():
        torch.testing.assert_close(delta, (parts[0][name] + parts[1][name]) / 2)
