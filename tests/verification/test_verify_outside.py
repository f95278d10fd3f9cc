"""Adapters as people have them: what PEFT, vLLM and SGLang load or do not load, told rightly."""

import json
import time
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from folders import Files, bare, with_config
from mutations import checked, codes, ours  # noqa: F401  (a fixture)
from safetensors.torch import load, load_file, save
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from api.cli.main import main
from library.base.models import DEFAULT_BASE
from library.files import write_folder
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE

PREFIX = "base_model.model."


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def test_look_around_is_bounded_and_taken(ours: Files) -> None:
    """As ms-swift and Unsloth write it; PEFT runs such expressions with the same engine."""
    for pattern in (
        r"^(?:model)(?=\.layers).*\.(?:v_proj|q_proj)$",
        r"(?!.*(?:vision|audio)_tower).*\.(?:q_proj|v_proj)",
        r"(?:(?!experts).)*\.(?:q|v)_proj",
        r"model\.layers\.\d+(?<!\.99)\..*(?:q|v)_proj",
    ):
        assert not codes(bare(with_config(ours, target_modules=pattern))), pattern
    for pattern in (r"(?!(a+)+b).*_proj", r"(?=(.*.*)*!).*", r"(b\(a|b)*_proj", r"(?i).*_proj"):
        assert codes(bare(with_config(ours, target_modules=pattern))) == {"too-costly"}, pattern


def test_targets_that_the_model_lacks_are_a_remark(ours: Files) -> None:
    files = bare(with_config(ours, target_modules=["q_proj", "v_proj", "c_attn"]))
    remarks = [f for f in checked(files, target="vllm") if f.code == "targets-unused"]
    assert not codes(files, target="vllm")
    assert [(f.severity, f.evidence) for f in remarks] == [("info", {"targets": ["c_attn"]})]


def test_stacks_of_matrices_are_what_peft_loads(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        hidden_size=16, intermediate_size=24, moe_intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, vocab_size=32, num_experts=3,
        num_experts_per_tok=2,
    )  # fmt: skip
    lora = peft.LoraConfig(
        r=2, target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    )  # fmt: skip
    model: Any = peft.get_peft_model(Qwen3MoeForCausalLM(config), lora)
    tiny.randomise(torch.nn.ModuleList(m for n, m in model.named_modules() if "lora_" in n))
    model.save_pretrained(str(tmp_path))
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    assert not codes(files)
    assert codes(files, target="vllm") == codes(files, target="sglang") - {"q-without-v"}
    assert codes(files, target="vllm") == {"more-than-lora"}
    assert codes(with_config(files, target_parameters=["mlp.experts.other.x"])) == {"targets"}
    assert codes(with_config(files, r=4)) == {"rank"}


WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", PREFIX, "module._orig_mod.")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_a_wrapper_left_is_named_and_removed_by_importing(
    wrapper: str, ours: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEFT finds no module of such a name and applies nothing."""
    tensors = load(ours[WEIGHTS_FILE])
    wrapped = {key.replace(PREFIX, PREFIX + wrapper, 1): value for key, value in tensors.items()}
    names = sorted({key.removeprefix(PREFIX).split(".lora_")[0] for key in wrapped})
    config = json.loads(ours[CONFIG_FILE]) | {"layers_to_transform": None}
    for place, targets in enumerate((["q_proj", "v_proj"], names)):
        files = {
            CONFIG_FILE: json.dumps(config | {"target_modules": targets}).encode(),
            WEIGHTS_FILE: save(wrapped),
        }
        assert codes(files) == {"wrapped-names"}
        folder, library = tmp_path / f"{place}", tmp_path / f"lib{place}"
        write_folder(folder, files)
        assert run("compose", folder, folder, "--out", tmp_path / "both") == 1
        assert "wrapped-names" in capsys.readouterr().err
        assert run("library", "import", folder, "--library", library) == 0
        (stored,) = (library / "adapters").iterdir()
        assert load_file(stored / WEIGHTS_FILE).keys() == tensors.keys()
        assert run("verify", stored) == 0


def test_a_classifier_s_head_is_loaded_by_vllm(tmp_path: Path) -> None:
    model: Any = tiny.model(tiny.config("llama")).requires_grad_(True)
    model.score = torch.nn.Linear(32, 3)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    adapted: Any = peft.get_peft_model(model, lora)
    adapted.save_pretrained(str(tmp_path))
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    assert any(key.endswith("score.weight") for key in load(files[WEIGHTS_FILE]))
    for saved in (["classifier", "score"], ["score"]):
        assert not codes(with_config(files, modules_to_save=saved), target="vllm")
        assert "more-than-lora" in codes(with_config(files, modules_to_save=saved), target="sglang")
    assert codes(with_config(files, modules_to_save=["score", "lm_head"]), target="vllm")


def test_sglang_takes_a_list_of_targets(ours: Files) -> None:
    for targets, refused in ((r".*\.[qv]_proj", True), ("all-linear", False)):
        files = bare(with_config(ours, target_modules=targets))
        assert ("target-expression" in codes(files, target="sglang")) == refused
        assert not codes(files, target="vllm")


def test_an_expression_that_never_finishes_is_one_sentence_everywhere(
    ours: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, changes in enumerate(
        ({"target_modules": r"(([a-z_.0-9]+)+)+Z"}, {"alpha_pattern": {r"(\w+\.?)*Z": 1}})
    ):
        folder = tmp_path / f"{place}"
        write_folder(
            folder, bare(with_config(ours, base_model_name_or_path=DEFAULT_BASE, **changes))
        )
        start = time.process_time()
        for words in (("compose", folder, folder, "--out", tmp_path / "x"), ("search", folder)):
            assert run(*words) == 1
            captured = capsys.readouterr()
            assert "may never finish" in captured.err and captured.err.count("\n") == 1
        assert time.process_time() - start < 20
