"""Adapters of nn.MultiheadAttention: PEFT takes in_proj as one module, and out_proj inside it."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from round_trip import CONFIG, WEIGHTS, exported, imported, randomised, same_file
from torch import Tensor, nn

from api.cli.main import main
from library.peft.read import read_peft

X = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


class Encoder(nn.Module):
    """Two layers, each of attention and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2), "lin": nn.Linear(16, 16)})
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            part: Any = layer
            x = x + part["lin"](part["attn"](x, x, x)[0])
        return x


def encoder() -> Any:
    torch.manual_seed(0)
    return Encoder().eval()


SETTINGS: dict[str, dict[str, Any]] = {
    "names": {"target_modules": ["attn", "lin"], "lora_alpha": 3},
    "an expression": {"target_modules": r".*\.attn"},
    "patterns": {
        "target_modules": ["attn", "lin"],
        "rank_pattern": {"attn": 3},
        "alpha_pattern": {r"layers\.0\.attn": 5},
    },
    "one layer": {"target_modules": ["layers.1.attn"]},
}


def written(folder: Path, settings: dict[str, Any], seed: int = 0) -> Any:
    config = peft.LoraConfig(r=2, **settings)
    model: Any = randomised(peft.get_peft_model(encoder(), config), seed)
    model.peft_config["default"].base_model_name_or_path = "owner/encoder"
    model.save_pretrained(str(folder))
    return model


def served(folder: Path) -> Tensor:
    model: Any = peft.PeftModel.from_pretrained(encoder(), str(folder)).eval()
    return model(X)


@pytest.mark.parametrize("case", SETTINGS)
def test_it_comes_back_and_its_deltas_are_peft_s(case: str, tmp_path: Path) -> None:
    model = written(tmp_path / "a", SETTINGS[case])
    folder = imported(tmp_path / "a", tmp_path / "lib")
    out = exported(folder, tmp_path / "out")
    assert same_file(out / WEIGHTS, tmp_path / "a" / WEIGHTS)
    assert (out / CONFIG).read_bytes() == (tmp_path / "a" / CONFIG).read_bytes()
    torch.testing.assert_close(served(out), model(X))
    deltas = tiny.deltas(read_peft(folder))
    assert {tuple(delta.shape) for name, delta in deltas.items() if "attn" in name} == {
        (48, 16),
        (16, 16),
    }
    for name, delta in deltas.items():
        expected = model.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(delta, expected, atol=1e-6, rtol=0)


def test_peft_reads_a_merge_of_two_as_their_mean(tmp_path: Path) -> None:
    for seed in (1, 2):
        written(tmp_path / f"{seed}", SETTINGS["patterns"], seed)
    folders = [str(imported(tmp_path / f"{seed}", tmp_path / "lib")) for seed in (1, 2)]
    out = tmp_path / "merged"
    weights = ["--weights", "0.5", "0.5", "--profile", "lossless"]
    assert main(["compose", *folders, *weights, "--out", str(out)]) == 0
    config = json.loads((out / CONFIG).read_text())
    assert config["target_modules"] == [
        f"layers.{i}.{name}" for i in range(2) for name in ("attn", "lin")
    ]
    assert config["task_type"] is None  # no language model's
    first, second = (tiny.deltas(read_peft(Path(folder))) for folder in folders)
    # PEFT 0.21.2 applies out_proj's ΔW twice (huggingface/peft#3774), so its ΔW are compared.
    model: Any = peft.PeftModel.from_pretrained(encoder(), str(out))
    for name in first:
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(theirs, (first[name] + second[name]) / 2, atol=1e-6, rtol=0)
