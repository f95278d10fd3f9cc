"""LoRA files of image models: in and out bit for bit, and read as diffusers reads them."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from round_trip import exported, imported, randomised, run, same_file, stored
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.peft.read import read_peft


@pytest.fixture(scope="module")
def unet() -> Any:
    """A UNet of SDXL's kind with adapters on attention and on convolutions, of two ranks."""
    model: Any = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=16,
    )
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_shortcut"]
    patterns = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"conv1": 3.5}}
    model.add_adapter(peft.LoraConfig(r=4, lora_alpha=7, target_modules=targets, **patterns))
    return randomised(model)


def test_a_diffusers_lora_comes_back_as_it_was(unet: Any, tmp_path: Path) -> None:
    for name, metadata in (("bare", None), ("told", unet.peft_config["default"].to_dict())):
        StableDiffusionXLPipeline.save_lora_weights(
            tmp_path / name,
            unet_lora_layers=get_peft_model_state_dict(unet),
            unet_lora_adapter_metadata=metadata,
        )
        folder = imported(tmp_path / name, tmp_path / "lib", "--base", "owner/sdxl")
        out = exported(folder, tmp_path / f"{name} out")
        file = "pytorch_lora_weights.safetensors"
        assert same_file(out / file, tmp_path / name / file)
    adapter = read_peft(folder)  # the one whose header tells the scale
    kernels = {site.kernel for site in adapter.layout.sites}
    assert kernels == {1, 9} and {site.rank for site in adapter.layout.sites} == {2, 4}
    for name, delta in tiny.deltas(adapter).items():
        expected = unet.get_submodule(name.removeprefix("unet.")).get_delta_weight("default")
        torch.testing.assert_close(delta, expected.flatten(1), atol=1e-5, rtol=1e-5)
    assert run("export", folder.name, "--library", tmp_path / "lib", "--out", tmp_path / "x",
               "--profile", "portable") == 1  # fmt: skip


def kohya(modules: dict[str, tuple[int, int]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Factors under kohya's names, each module with a rank and most with an alpha of their own."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for place, (name, (rows, columns)) in enumerate(modules.items()):
        rank, conv = 2 + place % 3, "conv" in name
        down = torch.randn(rank, columns, *(3, 3) if conv else ())
        up = torch.randn(rows, rank, *(1, 1) if conv else ())
        tensors |= {
            f"{name}.lora_down.weight": down.to(dtype),
            f"{name}.lora_up.weight": up.to(dtype),
        }
        if place % 4 != 3:
            tensors[f"{name}.alpha"] = torch.tensor(1.0 + place / 2, dtype=dtype)
    return tensors


FLUX = {f"lora_unet_double_blocks_{i}_{side}_{part}": shape
        for i in range(2) for side in ("img", "txt")
        for part, shape in {"attn_qkv": (48, 16), "attn_proj": (16, 16), "mlp_0": (64, 16),
                            "mlp_2": (16, 64), "mod_lin": (96, 16)}.items()}  # fmt: skip
FLUX["lora_unet_single_blocks_0_linear1"] = (3 * 3072 + 12288, 8)  # sizes that diffusers expects
BLOCK = "down_blocks_1_attentions_0_transformer_blocks_0"
SD = {f"lora_unet_{BLOCK}_attn1_to_q": (16, 16), f"lora_unet_{BLOCK}_ff_net_0_proj": (64, 16),
      "lora_unet_down_blocks_1_resnets_0_conv1": (16, 8),
      "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (8, 8),
      "lora_te2_text_model_encoder_layers_0_mlp_fc1": (16, 8)}  # fmt: skip
SD_MODULES = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "unet.down_blocks.1.resnets.0.conv1",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
}


def kohya_round_trip(tensors: dict[str, Tensor], place: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file after an import and an export, and ΔW of every module."""
    metadata = {"ss_network_dim": "4", "ss_tag_frequency": '{"Δ": 1}'}
    save_file(tensors, place / "mine.safetensors", metadata=metadata)
    folder = imported(place / "mine.safetensors", place / "lib", "--base", "owner/image")
    for _ in range(3):  # the same adapter, and the same id, however the reader orders tensors
        assert run("import", place / "mine.safetensors", "--library", place / "lib",
                   "--base", "owner/image") == 0  # fmt: skip
    assert [record["id"] for record in stored(place / "lib")] == [folder.name]
    out = exported(folder, place / "out", "--format", "kohya") / "mine.safetensors"
    assert same_file(out, place / "mine.safetensors")
    return out, tiny.deltas(read_peft(folder))


def test_a_kohya_flux_lora_comes_back_and_means_what_diffusers_reads(tmp_path: Path) -> None:
    out, deltas = kohya_round_trip(kohya(FLUX, torch.float32), tmp_path)
    theirs: Any = FluxPipeline.lora_state_dict(out)
    assert len(deltas) == len(FLUX)
    attention = "transformer.transformer_blocks.1.attn."
    for side, parts in (("img", "to_q to_k to_v"), ("txt", "add_q_proj add_k_proj add_v_proj")):
        pairs = [[theirs[f"{attention}{p}.lora_{x}.weight"] for x in "BA"] for p in parts.split()]
        expected = torch.cat([b @ a for b, a in pairs])
        torch.testing.assert_close(deltas[f"unet.double_blocks.1.{side}_attn.qkv"], expected)
    pair = [
        theirs[f"transformer.single_transformer_blocks.0.proj_mlp.lora_{x}.weight"] for x in "BA"
    ]
    linear1 = deltas["unet.single_blocks.0.linear1"]
    torch.testing.assert_close(linear1[3 * 3072 :], pair[0] @ pair[1])


def test_a_kohya_lora_of_unet_and_encoders_comes_back(tmp_path: Path) -> None:
    tensors = kohya(SD, torch.bfloat16)
    out, deltas = kohya_round_trip(tensors, tmp_path)
    StableDiffusionXLPipeline.lora_state_dict(out)
    assert set(deltas) == SD_MODULES
    name = "lora_unet_down_blocks_1_resnets_0_conv1"
    down, up = (tensors[f"{name}.lora_{x}.weight"].float().flatten(1) for x in ("down", "up"))
    expected = tensors[f"{name}.alpha"].item() / len(down) * up @ down
    torch.testing.assert_close(deltas["unet.down_blocks.1.resnets.0.conv1"], expected)


XLABS = {f"double_blocks.{i}.processor.{part}_lora{stream}": shape
         for i in range(2) for stream in "12"
         for part, shape in {"qkv": (24, 8), "proj": (8, 8)}.items()}  # fmt: skip
XLABS |= {"single_blocks.1.processor.qkv_lora": (24, 8),
          "single_blocks.1.processor.proj_lora": (8, 8 + 32)}  # fmt: skip


def xlabs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    sides = {"down": lambda o, i: torch.randn(2, i), "up": lambda o, i: torch.randn(o, 2)}
    return {
        f"{name}.{side}.weight": make(*shape)
        for name, shape in XLABS.items()
        for side, make in sides.items()
    }


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_xlabs_flux_loras_come_back_and_mean_what_diffusers_reads(
    prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.safetensors"
    save_file({prefix + key: tensor for key, tensor in xlabs().items()}, file)
    folder = imported(file, tmp_path / "lib", "--base", "owner/flux")
    for options in ((), ("--format", "xlabs")):
        out = exported(folder, tmp_path / f"out{len(options)}", *options)
        assert same_file(out / "x.safetensors", file)
    deltas = tiny.deltas(read_peft(folder))
    theirs: Any = FluxPipeline.lora_state_dict(file)

    def delta(module: str) -> Tensor:
        a, b = (theirs[f"transformer.{module}.lora_{x}.weight"] for x in "AB")
        return b @ a

    block, single = "transformer_blocks.1.attn.", "single_transformer_blocks.1."
    expected = {
        "double_blocks.1.img_attn.qkv": [f"{block}to_{x}" for x in "qkv"],
        "double_blocks.1.txt_attn.qkv": [f"{block}add_{x}_proj" for x in "qkv"],
        "double_blocks.1.img_attn.proj": [f"{block}to_out.0"],
        "double_blocks.1.txt_attn.proj": [f"{block}to_add_out"],
        "single_blocks.1.linear1": [f"{single}attn.to_{x}" for x in "qkv"],
        "single_blocks.1.linear2": [f"{single}proj_out"],
    }
    assert len(deltas) == len(XLABS)
    for name, modules in expected.items():
        stacked = torch.cat([delta(module) for module in modules])
        ours = deltas[prefix + name]
        torch.testing.assert_close(ours[: len(stacked)], stacked)
        assert not ours[len(stacked) :].any()
    assert deltas[f"{prefix}single_blocks.1.linear1"].shape == (3 * 8 + 32, 8)


def test_an_xlabs_lora_without_the_size_of_linear1_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lone = {k: v for k, v in xlabs().items() if "single_blocks.1.processor.proj" not in k}
    save_file(lone, tmp_path / "x.safetensors")
    assert run("import", tmp_path / "x.safetensors", "--library", tmp_path / "lib",
               "--base", "o/b") == 1  # fmt: skip
    assert "tells linear1's size" in tiny.one_sentence(capsys.readouterr())


def test_the_old_names_of_diffusers_come_back(tmp_path: Path) -> None:
    block, encoder = "unet.mid_block.attn1.processor.to_", "text_encoder.layers.0."
    stems = (f"{block}q_lora", f"{block}out_lora", f"{encoder}mlp.fc1.lora_linear_layer",
             f"{encoder}self_attn.to_q_lora", "unet.time_embedding.linear_1.lora")  # fmt: skip
    tensors = {f"{s}.{side}.weight": torch.randn(3, 3) for s in stems for side in ("down", "up")}
    save_file(tensors, tmp_path / "old.safetensors")
    folder = imported(tmp_path / "old.safetensors", tmp_path / "lib", "--base", "owner/sd")
    assert same_file(
        exported(folder, tmp_path / "out") / "old.safetensors", tmp_path / "old.safetensors"
    )
    names = {site.name for site in read_peft(folder).layout.sites}
    assert names == {"unet.mid_block.attn1.to_q", "unet.mid_block.attn1.to_out.0",
                     f"{encoder}self_attn.q_proj", f"{encoder}mlp.fc1",
                     "unet.time_embedding.linear_1"}  # fmt: skip


def test_what_is_no_plain_lora_of_an_image_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = "lora_unet_mid_block_attn1_to_q"
    pair = {f"{stem}.lora_{side}.weight": torch.ones(2, 2) for side in ("down", "up")}
    modern = {f"unet.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}

    def said(**config: Any) -> dict[str, str]:
        told = {"r": 2, "target_modules": ["to_q"], **config}
        parts = {f"unet.{key}": value for key, value in told.items()}
        return {"lora_adapter_metadata": json.dumps(parts)}

    cases: dict[str, tuple[dict[str, Tensor], dict[str, str] | None]] = {
        "hada_w1_a": ({**pair, f"{stem}.hada_w1_a": torch.ones(2, 2)}, None),
        "dora_scale": ({**pair, f"{stem}.dora_scale": torch.ones(2)}, None),
        "other.alpha": ({**pair, "lora_unet_other.alpha": torch.ones(())}, None),
        "single number": ({**pair, f"{stem}.alpha": torch.ones(2)}, None),
        "alpha are of one module": (
            {**modern, **{f"unet.to_q{x}.alpha": torch.ones(()) for x in ("", "_lora")}},
            None,
        ),
        "not a pair": ({k: v for k, v in pair.items() if "down" in k}, None),
        "of one module": ({**modern, "unet.to_q.lora.down.weight": torch.ones(2, 2)}, None),
        "rank 3": (modern, said(r=3)),
        "does not target": (modern, said(target_modules=["to_k"])),
        "use_dora": (modern, said(use_dora=True)),
        "damaged": (modern, {"lora_adapter_metadata": "[1]"}),
        "rsLoRA in some parts": (
            {**modern, **{k.replace("unet", "text_encoder"): v for k, v in modern.items()}},
            said(use_rslora=True),
        ),
    }
    file = tmp_path / "a.safetensors"
    for why, (tensors, metadata) in cases.items():
        save_file({k: v.clone() for k, v in tensors.items()}, file, metadata=metadata)
        assert run("import", file, "--library", tmp_path / "lib", "--base", "o/b") == 1, why
        assert why in capsys.readouterr().err
    save_file(pair, file)
    assert run("import", file, "--library", tmp_path / "lib") == 1
    assert "--base" in capsys.readouterr().err and not (tmp_path / "lib").exists()
    folder = imported(file, tmp_path / "lib", "--base", "o/b")
    weights = folder / "adapter_model.safetensors"
    save_file({key: tensor + 1 for key, tensor in load_file(weights).items()}, weights)
    export = ("export", folder.name, "--library", tmp_path / "lib", "--out", tmp_path / "out")
    assert run(*export) == 1 and "damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
