"""PEFT adapters from elsewhere: in and out bit for bit; other types become the nearest LoRA."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from peft.tuners.lora.conversion import convert_to_lora
from round_trip import (
    CONFIG,
    Q_AND_V,
    WEIGHTS,
    exported,
    imported,
    randomised,
    same_file,
    stored,
    with_adapter,
)

from library.peft.read import read_peft

IDS = tiny.tokens(3, 9)


PLAIN: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rslora and patterns": {
        "r": 4,
        "lora_alpha": 5,
        "use_rslora": True,
        "rank_pattern": {"v_proj": 2, r"layers\.1\.self_attn\.q_proj": 3},
        "alpha_pattern": {"layers.0.self_attn.v_proj": 7, "q_proj": 1.5},
    },
    "one layer": {"r": 2, "layers_to_transform": [1]},
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_peft_adapter_comes_back_as_it_was(case: str, tmp_path: Path) -> None:
    model = with_adapter(peft.LoraConfig(target_modules=[*Q_AND_V], **PLAIN[case]))
    (model.half() if case == "plain" else model).save_pretrained(tmp_path / "a")
    folder = imported(tmp_path / "a", tmp_path / "lib", "--base", "owner/base")
    for options in ((), ("--profile", "lossless", "--format", "peft")):
        out = exported(folder, tmp_path / f"out{len(options)}", *options)
        assert same_file(out / WEIGHTS, tmp_path / "a" / WEIGHTS)
        assert (out / CONFIG).read_bytes() == (tmp_path / "a" / CONFIG).read_bytes()
    deltas = tiny.deltas(read_peft(folder))
    for name, delta in deltas.items():
        expected = model.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(delta, expected.float(), atol=2e-3 if case == "plain" else 1e-6,
                                   rtol=0)  # fmt: skip
    out = exported(folder, tmp_path / "portable", "--profile", "portable")
    config = json.loads((out / CONFIG).read_text())
    assert config["r"] == config["lora_alpha"] and not config["rank_pattern"]
    assert config["base_model_name_or_path"] == "owner/base"
    base = tiny.model(tiny.config("llama"))
    served: Any = peft.PeftModel.from_pretrained(base, str(out)).eval()
    expected = model.float()(input_ids=IDS).logits
    torch.testing.assert_close(served(input_ids=IDS).logits, expected, atol=0.03, rtol=0)
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["parents"] == [folder.name] and provenance["id"] != folder.name


OTHERS: dict[str, Any] = {
    "dora": peft.LoraConfig(r=4, use_dora=True, target_modules=Q_AND_V),
    "loha": peft.LoHaConfig(r=3, target_modules=Q_AND_V),
    "oft": peft.OFTConfig(oft_block_size=8, target_modules=Q_AND_V),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_become_the_nearest_lora(kind: str, tmp_path: Path, tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    bare: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    model = randomised(peft.get_peft_model(copy.deepcopy(bare), OTHERS[kind]))
    model.save_pretrained(tmp_path / "a")
    expected = model(input_ids=IDS).logits
    whole = copy.deepcopy(model).merge_and_unload()
    errors = []
    for rank in ("3", "32"):
        library = tmp_path / f"lib{rank}"
        folder = imported(tmp_path / "a", library, "--base", tiny_base, "--rank", rank)
        details = json.loads((folder / "provenance.json").read_text())["details"]
        errors.append(details["source"]["conversion"]["relative_error"])
        left = size = 0.0
        for name, delta in tiny.deltas(read_peft(folder)).items():
            true = whole.get_submodule(name).weight - bare.get_submodule(name).weight
            left += (true - delta).square().sum().item()
            size += true.square().sum().item()
        assert errors[-1] == pytest.approx((left / size) ** 0.5, abs=1e-5)
    assert errors[0] > 0.05 and errors[1] < 1e-6
    served: Any = peft.PeftModel.from_pretrained(bare, str(folder)).eval()
    torch.testing.assert_close(served(input_ids=IDS).logits, expected, atol=1e-4, rtol=0)
    if kind == "loha":  # the one of the three that PEFT converts, and rightly
        with torch.no_grad():
            _, theirs = convert_to_lora(model, rank=3)
        (record,) = stored(tmp_path / "lib3")
        ours = read_peft(tmp_path / "lib3" / "adapters" / record["id"])
        for name, delta in tiny.deltas(ours).items():
            a, b = (theirs[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
            torch.testing.assert_close(delta, b @ a, atol=1e-5, rtol=0)


def test_a_conversion_needs_no_tokenizer_and_shows_no_warning_of_peft(tmp_path: Path) -> None:
    tiny.model(tiny.config("llama")).save_pretrained(tmp_path / "base")
    model = with_adapter(peft.LoraConfig(r=2, use_dora=True, target_modules=Q_AND_V))
    model.save_pretrained(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        imported(tmp_path / "a", tmp_path / "lib", "--base", tmp_path / "base")
