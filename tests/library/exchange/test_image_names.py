"""Module paths, alphas and kinds of image models' LoRA files, as diffusers and authors say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import MiniMaxH3LoraLoaderMixin
from round_trip import exported, imported, run, stored
from safetensors.torch import save_file
from torch import Tensor

from library.exchange.image_names import is_guess, module_of

# Modules of Wan 2.1, Z-Image, FLUX, SD 3 and T5, from their models' definitions.
PATHS = (
    "blocks.3.self_attn.norm_q", "blocks.3.cross_attn.v_img", "blocks.3.cross_attn.o",
    "blocks.3.ffn.2", "text_embedding.0", "img_emb.proj.1", "time_projection.1",
    "layers.7.feed_forward.w3", "layers.7.attention.to_out.0", "noise_refiner.1.attention.to_q",
    "context_refiner.0.feed_forward.w2", "double_blocks.4.txt_mod.lin", "single_blocks.9.linear2",
    "joint_blocks.2.context_block.attn.proj", "single_transformer_blocks.5.norm.linear",
)  # fmt: skip


def test_known_words_with_an_underscore_stay_whole() -> None:
    for path in PATHS:
        stem = f"lora_unet_{path.replace('.', '_')}"
        assert (module_of(stem), is_guess(stem)) == (f"unet.{path}", False)
    half_dotted = "lora_unet_blocks_12.cross_attn.some_new"
    assert module_of(half_dotted) == "unet.blocks.12.cross_attn.some_new"
    assert not is_guess(half_dotted)


def pairs(stems: list[str], ends: tuple[str, str] = ("lora_down", "lora_up")) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = dict(zip(ends, ((4, 8), (8, 4)), strict=True))
    return {f"{s}.{end}.weight": torch.randn(shape) for s in stems for end, shape in shapes.items()}


def test_a_path_that_is_a_guess_has_no_peft_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new.safetensors"
    for stems, code in ((["lora_unet_blocks_0_brand_new"], 1), (["lora_unet_blocks_0_ffn_0"], 0)):
        save_file(pairs(stems), file)
        library = tmp_path / f"lib{code}"
        folder = imported(file, library, "--base", "o/b")
        export = ("export", folder.name, "--library", library)
        assert run(*export, "--format", "peft", "--out", tmp_path / f"peft{code}") == code
        assert ("no PEFT form" in capsys.readouterr().err) == bool(code)
        assert run(*export, "--format", "kohya", "--out", tmp_path / f"kohya{code}") == 0


@pytest.mark.parametrize("alpha", ["3", "2.5", "high"])
def test_alpha_in_the_header_is_what_diffusers_reads(alpha: str, tmp_path: Path) -> None:
    file, library = tmp_path / "h3.safetensors", tmp_path / "lib"
    tensors = pairs(["blocks.0.attn.out_proj", "blocks.0.mlp.fc1"], ("lora_A", "lora_B"))
    adapters: list[Any] = []
    for metadata in ({"alpha": alpha}, None):
        save_file(tensors, file, metadata)
        _, said = MiniMaxH3LoraLoaderMixin.lora_state_dict(str(file), return_lora_metadata=True)
        expected = (said or {}).get("transformer.lora_alpha", 4)  # else the rank
        assert expected == (float(alpha) if metadata and alpha != "high" else 4)
        assert run("import", file, "--library", library, "--base", "o/b") == 0
        adapters.append(expected)
    ids = [record["id"] for record in stored(library)]
    assert len(ids) == len(set(adapters))
    configs = [
        json.loads((library / "adapters" / identity / "adapter_config.json").read_text())
        for identity in ids
    ]
    assert {config["lora_alpha"] for config in configs} == set(adapters)
    for place, identity in enumerate(ids):
        exported(library / "adapters" / identity, tmp_path / f"out{place}")


def test_tensors_say_the_alpha_before_the_header_does(tmp_path: Path) -> None:
    tensors = pairs(["lora_unet_blocks_0_ffn_0"]) | {
        "lora_unet_blocks_0_ffn_0.alpha": torch.tensor(1.0)
    }
    save_file(tensors, tmp_path / "a.safetensors", {"alpha": "16"})
    folder = imported(tmp_path / "a.safetensors", tmp_path / "lib", "--base", "o/b")
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 1


def test_sound_files_of_other_kinds_are_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem, one = "lora_unet_blocks_0_ffn_0", torch.ones(2, 2)
    kinds: dict[str, dict[str, Tensor]] = {
        "LoKr": {f"{stem}.lokr_w1": one, f"{stem}.lokr_w2": one},
        "LoHa": {f"{stem}.hada_w1_a": one, f"{stem}.hada_w1_b": one},
        "DoRA": {**pairs([stem]), f"{stem}.dora_scale": torch.ones(8)},
    }
    file = tmp_path / "a.safetensors"
    for kind, tensors in kinds.items():
        save_file({key: value.clone() for key, value in tensors.items()}, file)
        assert run("import", file, "--library", tmp_path / "lib", "--base", "o/b") == 1
        error = capsys.readouterr().err
        assert kind in error and "other-kind" in error and "not read" in error
