"""A trained gate as a folder that PEFT's X-LoRA loads, with the logits that it has here."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel, XLoraConfig

from api.cli.main import main
from index import routing
from index.gate.forward import GatedAdapter
from index.gate.learnt import Gate, GateConfig
from library.adapter import Adapter, stack
from library.base.models import load_base, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import UsageError
from library.files import write_folder
from library.layout import layout_of
from library.store.catalogue import read_adapter, records
from library.store.open import open_library

N = 12  # names of two digits too, which must not be sorted as text


def gate_over(name: str, layout: Any, ids: list[str]) -> Gate:
    gate = Gate(GateConfig(name, ids, ids, len(ids), 32), layout)
    tiny.randomise(gate, std=0.5)
    return gate.requires_grad_(False)


def logits_here(model: Any, gate: Gate, adapters: Adapter, ids: Any) -> Any:
    with closing(GatedAdapter(model, gate, gate.system, adapters.layout)) as hooks:
        hooks.set_mixture(adapters, torch.ones(len(ids), len(adapters)))
        return model(ids, use_cache=False).logits


def logits_in_peft(model: Any, folder: Path, ids: Any) -> Any:
    model.config.use_cache = False
    config: Any = XLoraConfig.from_pretrained(str(folder))
    config.adapters = {name: str(folder / path) for name, path in config.adapters.items()}
    loaded = PeftModel.from_pretrained(model, str(folder), config=config)
    return loaded(input_ids=ids).logits


@pytest.mark.filterwarnings("ignore")
def test_peft_answers_as_we_do(
    small_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_library(str(small_library / "lib"))
    config = tiny.config("llama")
    layout = layout_of(config, ["q_proj", "v_proj", "down_proj"], rank=3)
    adapters = tiny.adapter(layout, N).to(dtype=torch.bfloat16).to(dtype=torch.float32)
    gate, ids = gate_over("x-lora", layout, [f"ad_{i}" for i in range(N)]), tiny.tokens(2, 7)
    monkeypatch.setattr(
        routing, "read_adapter", lambda folder, name, layout: adapters[[int(name[3:])]]
    )
    named: Any = [{"id": name, "base_model": "tiny"} for name in gate.config.adapters]
    write_folder(tmp_path / "set", routing.x_lora_set(folder, named, gate))
    ours = logits_here(tiny.model(config), gate, adapters, ids)
    theirs = logits_in_peft(tiny.model(config), tmp_path / "set", ids)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert (ours - tiny.model(config)(ids).logits).abs().max() > 0.1
    with pytest.raises(UsageError, match="the gate is mole"):
        routing.x_lora_set(folder, named, gate_over("mole", layout, ["a", "b"]))


@pytest.mark.filterwarnings("ignore")
def test_a_gate_s_library_is_exported_by_the_command(
    small_library: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = open_library(str(small_library / "lib")), tmp_path / "set"
    names, layout = [r["id"] for r in records(folder)], folder.plan().layout
    gate = gate_over("x-lora", layout, names[::-1])
    save_checkpoint(tmp_path / "gate", gate, CheckpointInfo())
    command = ["route", "export", "--library", str(small_library / "lib"), "--out", str(out)]
    assert main([*command, "--as", "x-lora", "--gate", str(tmp_path / "gate")]) == 0
    assert list(json.loads((out / "adapter_config.json").read_text())["adapters"]) == [
        "0",
        "1",
        "2",
    ]
    base = load_base(resolve_base(str(tiny_base)))
    adapters = stack([read_adapter(folder, name, layout) for name in names[::-1]])
    ids = tiny.tokens(2, 6, vocabulary=4096)
    ours = logits_here(base.model, gate, adapters, ids)
    torch.testing.assert_close(logits_in_peft(base.model, out, ids), ours, rtol=1e-4, atol=1e-4)
    for more, words in (
        (["--as", "x-lora"], "takes its adapters from --gate"),
        (["--gate", str(tmp_path / "gate"), "sum", "sub"], "and Arrow by their names"),
        (["--as", "x-lora", "--gate", str(tmp_path / "gate"), "sum"], "from --gate"),
        (["--as", "x-lora", "--gate", str(tmp_path / "none")], "no checkpoint folder"),
        (["--as", "x-lora", "--gate", str(tmp_path / "gate"), "--seed", "0"], "of Arrow, not of"),
        ([], "at least two adapters"),
    ):
        assert main([*command, "--overwrite", *more]) == 2 and words in capsys.readouterr().err
