"""Adapters that others' code wrote, and what each server makes of them."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from vllm_loader import load

from api.cli.main import main
from library.peft.readers import SERVERS, scale

# What each server says: nothing if it loads the adapter rightly, else the reasons.
ALL = dict.fromkeys(SERVERS, "")
OTHERS = [server for server in SERVERS if server != "peft"]
Expected = dict[str, str]

PEFT_WRITTEN: dict[str, tuple[dict[str, Any], Expected]] = {
    "plain": ({}, ALL),
    "every linear": ({"target_modules": "all-linear"}, ALL),
    "an expression": (
        {"target_modules": r".*\.[qv]_proj"},
        ALL | {"sglang": "target-expression"},
    ),
    "rslora": (
        {"use_rslora": True},
        ALL | dict.fromkeys(["sglang", "llama.cpp", "ollama"], "wrong-strength"),
    ),
    "dora": ({"use_dora": True}, ALL | dict.fromkeys(OTHERS, "dora")),
    "alora": (
        {"alora_invocation_tokens": [3, 4], "task_type": "CAUSAL_LM"},
        ALL | dict.fromkeys(["vllm", "sglang", "ollama"], "alora"),
    ),
    "rank_pattern": (
        {"rank_pattern": {"v_proj": 2}},
        ALL | {"vllm": "", "sglang": "wrong-strength"},
    ),
    "alpha_pattern": (
        {"alpha_pattern": {"v_proj": 16}},
        ALL | dict.fromkeys(["sglang", "llama.cpp", "ollama"], "wrong-strength"),
    ),
    "modules_to_save": (
        {"modules_to_save": ["lm_head"]},
        ALL | dict.fromkeys(OTHERS, "more-than-lora"),
    ),
    "bias": ({"bias": "lora_only"}, ALL | dict.fromkeys(OTHERS, "more-than-lora")),
    "a trained norm": (
        {"modules_to_save": ["input_layernorm"]},
        ALL | dict.fromkeys(OTHERS, "more-than-lora"),
    ),
    "trained tokens": (
        {"trainable_token_indices": [1, 2]},
        ALL | dict.fromkeys(OTHERS, "more-than-lora"),
    ),
    "lora_bias": ({"lora_bias": True}, ALL | dict.fromkeys(OTHERS, "more-than-lora")),
    "an embedding": (
        {"target_modules": ["embed_tokens", "q_proj", "v_proj"]},
        ALL | dict.fromkeys(OTHERS, "embedding"),
    ),
    "pissa": ({"init_lora_weights": "pissa"}, ALL | dict.fromkeys(OTHERS, "changes-base")),
    "q alone": ({"target_modules": ["q_proj"]}, ALL | {"sglang": "q-without-v"}),
    "half an alpha": ({"lora_alpha": 2.5}, ALL | {"ollama": "alpha-not-natural"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.config("llama").save_pretrained(folder)
    return folder


def written(folder: Path, *, family: str = "llama", **changes: Any) -> Path:
    """An adapter that PEFT makes and saves."""
    config: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    model = tiny.model(tiny.config(family)).requires_grad_(True)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**config | changes))
    adapted.peft_config["default"].base_model_name_or_path = "owner/base"
    tiny.randomise(torch.nn.ModuleList(m for n, m in adapted.named_modules() if "lora_" in n))
    adapted.save_pretrained(str(folder))
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[str, list[Any]]:
    """Verdict and findings of `lorasmith verify`, whose exit code fits."""
    code = main(["verify", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    answer = json.loads(captured.out)
    assert code == (1 if answer["verdict"] == "refuse" else 0)
    return answer["verdict"], answer["findings"]


@pytest.mark.parametrize("name", PEFT_WRITTEN)
def test_what_servers_make_of_an_adapter(
    name: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = PEFT_WRITTEN[name]
    folder = written(tmp_path / "adapter", **changes)
    found = {}
    for server in SERVERS:
        verdict, findings = said(capsys, folder, "--target", server, "--base", base)
        refusing = {f["code"] for f in findings if f["severity"] == "refuse"}
        found[server] = ",".join(sorted(refusing))
        assert (verdict == "refuse") == bool(refusing)
        assert all(len(f["message"]) > 20 for f in findings)
    assert found == expected
    verdict, findings = said(capsys, folder, "--base", base)
    assert verdict == "accept"  # PEFT reads it; the others are named in passing
    named = {s for f in findings if f["code"] == "servers" for s in f["evidence"]["servers"]}
    assert named == {server for server, reasons in expected.items() if reasons}


@pytest.mark.parametrize("name", PEFT_WRITTEN)
def test_vllm_itself_says_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    changes, expected = PEFT_WRITTEN[name]
    folder = str(written(tmp_path / "adapter", **changes))
    if expected["vllm"]:
        with pytest.raises(ValueError, match=r"\w+ .*\w+"):
            load(folder)
    else:
        load(folder)


def test_who_drops_what_was_trained_beside_the_lora_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "adapter", modules_to_save=["input_layernorm"])
    told = {f["code"]: f for f in said(capsys, folder)[1]}
    assert told["extras"]["evidence"]["tensors"][0] == "model.layers.0.input_layernorm.weight"
    by_server = told["servers"]["evidence"]["servers"]
    silent = {name for name, (why, *_) in by_server.items() if "says nothing" in why}
    assert silent == {"sglang", "llama.cpp"} and set(by_server) == set(OTHERS)


def test_the_manual_has_this_table() -> None:
    manual = (tiny.ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    for name, (_, expected) in PEFT_WRITTEN.items():
        cells = [f"`{expected[server]}`" if expected[server] else "yes" for server in SERVERS]
        assert f"| {name} | {' | '.join(cells)} |\n" in manual


def test_the_scale_is_what_peft_applies(tmp_path: Path) -> None:
    for use_rslora in (False, True):
        config = peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], use_rslora=use_rslora,
            rank_pattern={r"0\.self_attn\.v_proj": 2}, alpha_pattern={"v_proj": 16, "q_proj": 3},
        )  # fmt: skip
        adapted: Any = peft.get_peft_model(tiny.model(tiny.config("llama")), config)
        checked = 0
        for path, module in adapted.base_model.model.named_modules():
            if hasattr(module, "lora_A"):
                rank = module.r["default"]
                found = scale("peft", config.to_dict(), path, rank)
                assert found == pytest.approx(module.scaling["default"])
                checked += 1
        assert checked == 4


def test_a_rank_above_a_servers_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank, wanted in ((32, "warn"), (513, "refuse")):
        verdict, findings = said(capsys, written(tmp_path / f"{rank}", r=rank), "--target", "vllm")
        assert verdict == wanted
        assert [f["severity"] for f in findings if f["code"] == "rank-limit"] == [wanted]


def test_a_wrong_base_is_named(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    tiny.config("llama", num_key_value_heads=4).save_pretrained(other)
    deeper = tmp_path / "shallow"
    tiny.config("llama", num_hidden_layers=1).save_pretrained(deeper)
    gpt = tmp_path / "gpt2"
    tiny.config("gpt2").save_pretrained(gpt)
    folder = written(tmp_path / "adapter")
    assert said(capsys, folder, "--base", base)[0] == "accept"
    for wrong in (other, deeper, gpt):
        verdict, findings = said(capsys, folder, "--base", wrong)
        refusing = [f for f in findings if f["severity"] == "refuse"]
        assert verdict == "refuse" and [f["code"] for f in refusing] == ["wrong-base"]
        assert str(wrong) in refusing[0]["message"]
    assert "base-not-checked" in {f["code"] for f in said(capsys, folder)[1]}


def test_ollama_imports_some_families_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for family, wanted in (("qwen2", "refuse"), ("gemma2", "accept")):
        base = tmp_path / family
        tiny.config(family).save_pretrained(base)
        folder = written(tmp_path / f"{family} adapter", family=family)
        assert said(capsys, folder, "--target", "ollama", "--base", base)[0] == wanted
    assert said(capsys, folder, "--target", "ollama")[0] == "warn"


def test_pickles_are_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    folder = written(tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    torch.save(Bomb(), folder / "adapter_model.bin")
    assert {f["code"] for f in said(capsys, folder)[1]} >= {"pickle-beside"}
    weights.unlink()
    for path in (folder, folder / "adapter_model.bin"):
        verdict, findings = said(capsys, path, "--target", "vllm")
        assert verdict == "refuse" and findings[0]["code"] == "pickle"
        assert "adapter_model.bin" in findings[0]["message"]
    (folder / "adapter_model.bin").rename(weights)  # a pickle under a better name
    assert "not-safetensors" in {f["code"] for f in said(capsys, folder)[1]}
    assert not (tmp_path / "exploded").exists()


def test_image_models_files_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2,
    )  # fmt: skip
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=7, target_modules=["to_q", "to_v"]))
    layers: Any = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(tmp_path / "diffusers", unet_lora_layers=layers)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {"lora_down.weight": torch.ones(4, 8), "lora_up.weight": torch.ones(8, 4)}
    tensors = {f"{name}.{key}": value for key, value in factors.items()}
    save_file(tensors | {f"{name}.alpha": torch.tensor(2.0)}, tmp_path / "kohya.safetensors")
    for path, kind in (
        (tmp_path / "diffusers", "diffusers"),
        (tmp_path / "kohya.safetensors", "kohya"),
    ):
        verdict, findings = said(capsys, path)
        told = [f["evidence"] for f in findings if f["code"] == "image-lora"]
        assert verdict == "warn" and told == [{"format": kind}]
        assert said(capsys, path, "--target", "vllm")[0] == "refuse"
    save_file({f"{name}.lora_down.weight": torch.ones(4, 8)}, tmp_path / "half.safetensors")
    assert said(capsys, tmp_path / "half.safetensors")[0] == "refuse"


def test_other_types_of_peft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = peft.get_peft_model(
        tiny.model(tiny.config("llama")), peft.LoHaConfig(r=4, target_modules=["q_proj"])
    )
    model.save_pretrained(str(tmp_path / "loha"))
    verdict, findings = said(capsys, tmp_path / "loha")
    assert verdict == "warn" and any("LOHA" in f["message"] for f in findings)
    assert said(capsys, tmp_path / "loha", "--target", "vllm")[0] == "refuse"
