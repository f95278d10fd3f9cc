"""A GGUF adapter: what llama.cpp adds to its base is what the adapter adds to Hugging Face's."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from gguf import GGUFReader
from gguf_files import END, STOP, VOCABULARY, write_gguf
from torch import Tensor

from api.cli.main import main
from library.adapter import Adapter
from library.base.gguf_file import convert_gguf
from library.base.models import load_base, resolve_base
from library.errors import AdapterFileError, BaseModelError, LayoutMismatch, UnsupportedModel
from library.exchange.gguf_lora import ARCHITECTURES, gguf_lora
from library.files import write_folder
from library.layout import DEFAULT_TARGETS, layout_of
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, Profile, to_peft

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
REORDERED = ("granite", "llama", "mistral", "smollm3")


def base_config(family: str) -> Any:
    size = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 2048}
    return tiny.config(family, **size, pad_token_id=END, bos_token_id=END, eos_token_id=STOP)


def folder_of(config: Any, folder: Path) -> str:
    config.save_pretrained(folder)
    return str(folder)


def files_of(
    adapter: Adapter, base: str, profile: Profile = "portable", **changes: Any
) -> dict[str, bytes]:
    peft = to_peft(adapter, base_name=base, profile=profile)
    config = json.dumps({**peft.config, **changes}).encode()
    return {CONFIG_FILE: config, WEIGHTS_FILE: peft.weights}


def gguf_name(site: str) -> str:
    _, _, layer, module = site.split(".", 3)
    return f"blk.{layer}.{NAMES[module]}.weight"


def stored_delta(tensors: dict[str, Any], name: str, alpha: float) -> Tensor:
    """What llama.cpp adds to a tensor of its base: alpha over the pair's rank, times B·A."""
    a, b = (torch.as_tensor(tensors[f"{name}.lora_{half}"]).double() for half in "ab")
    return b @ a * alpha / len(a)


def rows(heads: int, width: int) -> list[int]:
    """Where llama.cpp takes each row of q or k from: of every head, its halves by turns."""
    half = width // 2
    return [head * width + part * half + i for head in range(heads) for i in range(half)
            for part in range(2)]  # fmt: skip


def in_gguf_order(model: Any) -> Any:
    made, config = copy.deepcopy(model), model.config
    if config.model_type in REORDERED:
        for layer in made.model.layers:
            for projection, heads in (
                (layer.self_attn.q_proj, config.num_attention_heads),
                (layer.self_attn.k_proj, config.num_key_value_heads),
            ):
                projection.weight.copy_(projection.weight[rows(heads, config.head_dim)])
    return made


def read_back(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and tensors, as the gguf package reads them."""
    reader = GGUFReader(file)
    fields = {key: field.contents() for key, field in reader.fields.items() if "." in key}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def converted(model: Any, file: Path) -> Any:
    """The model that transformers makes of a GGUF with these weights."""
    write_gguf(file, model, architecture=ARCHITECTURES[model.config.model_type].lower())
    out = file.with_suffix("")
    out.mkdir()
    convert_gguf(file, out, torch.float32)
    return load_base(resolve_base(str(out))).model


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_gguf_base_with_the_exported_adapter_is_the_merged_model(
    family: str, tmp_path: Path
) -> None:
    config, ids = base_config(family), tiny.tokens(2, 9)
    base = tiny.model(config)
    with torch.no_grad():
        stored = in_gguf_order(base)
        plain = converted(stored, tmp_path / "plain.gguf")
        torch.testing.assert_close(plain(ids).logits, base(ids).logits, rtol=0, atol=0)
        adapter = tiny.adapter(layout_of(config, ALL, rank=3)).to(dtype=torch.bfloat16).to(
            dtype=torch.float32
        )  # fmt: skip
        content = gguf_lora(files_of(adapter, folder_of(config, tmp_path / "base")))
        for site in adapter.layout.sites:
            weight = stored.get_submodule(site.name).weight
            weight += stored_delta(content.tensors, gguf_name(site.name), content.rank).float()
        found = converted(stored, tmp_path / "adapted.gguf")(ids).logits
        torch.testing.assert_close(found, tiny.merged(base, adapter)(ids).logits)
        assert (found - base(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("profile", ["portable", "lossless"])
@pytest.mark.parametrize("family", sorted({*ARCHITECTURES} - {"phi3"}))
def test_every_family_has_its_names_and_order(
    family: str, profile: Profile, tmp_path: Path
) -> None:
    config = base_config(family)
    layout = tiny.with_ranks(layout_of(config, ALL, rank=4), [2, 4, 1])
    files = files_of(tiny.adapter(layout), folder_of(config, tmp_path / "base"), profile)
    content = gguf_lora(files)
    content.write(tmp_path / "a.gguf")
    fields, tensors = read_back(tmp_path / "a.gguf")
    assert fields == {
        "GGUF.version": 3,
        "GGUF.tensor_count": 2 * len(layout.sites),
        "GGUF.kv_count": 4,
        "general.architecture": ARCHITECTURES[family].lower().replace("_", "-"),
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
    }
    names = [gguf_name(site.name) for site in layout.sites]
    assert {*tensors} == {f"{name}.lora_{half}" for name in names for half in "ab"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    adapter = adapter_of(files)
    for site in adapter.layout.sites:
        a, b = (factor[0].numpy() for factor in adapter.site(site))
        stored, kind = gguf_name(site.name), NAMES[site.name.split(".", 3)[3]]
        if family in REORDERED and kind in heads:
            b = b[rows(heads[kind], config.head_dim)]
        missing = 4 - len(a)  # ranks, which are zeros
        for half, factor in (("a", np.pad(a, ((0, missing), (0, 0)))),
                             ("b", np.pad(b, ((0, 0), (0, missing))))):  # fmt: skip
            found = tensors[f"{stored}.lora_{half}"]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, factor)


def test_fused_projections_keep_their_order(tmp_path: Path) -> None:
    config = base_config("phi3")
    adapter = tiny.adapter(layout_of(config, ["qkv_proj", "gate_up_proj"], rank=2))
    files = files_of(adapter, folder_of(config, tmp_path / "base"), "lossless")
    content = gguf_lora(files)
    stem = {"qkv_proj": "attn_qkv", "gate_up_proj": "ffn_up"}
    for site in adapter.layout.sites:
        name = f"blk.{site.depth}.{stem[site.module_type]}.weight"
        delta = tiny.deltas(adapter)[site.name].double()
        torch.testing.assert_close(stored_delta(content.tensors, name, 2), delta)


def test_rslora_and_patterns_become_the_strength_that_peft_applies(tmp_path: Path) -> None:
    config = base_config("qwen2")
    base, adapter = folder_of(config, tmp_path / "base"), tiny.adapter(layout_of(config, rank=4))
    changes = {"use_rslora": True, "lora_alpha": 6, "alpha_pattern": {"v_proj": 10}}
    content = gguf_lora(files_of(adapter, base, "lossless", **changes))
    for name, delta in tiny.deltas(adapter).items():
        right = delta.double() * (10 if name.endswith("v_proj") else 6) / 2  # the root of 4
        found = stored_delta(content.tensors, gguf_name(name), content.rank)
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


def test_equal_adapters_give_equal_bytes(tmp_path: Path) -> None:
    config = base_config("llama")
    files = files_of(tiny.adapter(layout_of(config)), folder_of(config, tmp_path / "base"))
    for name in ("one", "other"):
        gguf_lora(files).write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_cannot_be_exported_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = base_config("llama")
    base, layout = folder_of(config, tmp_path / "base"), layout_of(config)
    adapter = tiny.adapter(layout)
    with pytest.raises(AdapterFileError, match="DoRA"):
        gguf_lora(files_of(adapter, base, use_dora=True))
    for unsure in ("gpt2", "gpt_neox", "opt", "phi", "stablelm", "starcoder2"):
        assert unsure in DEFAULT_TARGETS and unsure not in ARCHITECTURES
    other = tiny.config("gpt2")
    turned = files_of(tiny.adapter(layout_of(other)), folder_of(other, tmp_path / "gpt2"))
    with pytest.raises(UnsupportedModel, match="gpt2"):
        gguf_lora(turned)
    wide = folder_of(base_config("llama").__class__(**{**config.to_dict(), "head_dim": 16}),
                     tmp_path / "wide")  # fmt: skip
    with pytest.raises(LayoutMismatch, match="q_proj"):
        gguf_lora(files_of(adapter, base), wide)
    strange = replace(layout, sites=tuple(replace(s, name=f"{s.name}x") for s in layout.sites))
    with pytest.raises(LayoutMismatch, match="q_projx"):
        gguf_lora(files_of(tiny.adapter(strange), base))
    for name in ("owner/not-downloaded", str(tmp_path / "none"), "", None):
        with pytest.raises(BaseModelError, match="--base"):
            gguf_lora(files_of(adapter, "x", base_model_name_or_path=name))


def test_the_command_writes_it_whole_and_says_what(tmp_path: Path, capsys: Any) -> None:
    config = base_config("llama")
    base = folder_of(config, tmp_path / "base")
    files = files_of(tiny.adapter(layout_of(config, rank=2)), base)
    write_folder(tmp_path / "adapter", files)
    out = tmp_path / "new" / "a.gguf"
    command = ["export", str(tmp_path / "adapter"), "--as", "gguf", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["architecture"] == "llama" and told["rank"] == 2
    assert told["bytes"] == len(out.read_bytes()) and told["out"] == str(out)
    gguf_lora(files).write(tmp_path / "same.gguf")
    assert out.read_bytes() == (tmp_path / "same.gguf").read_bytes()
    assert main(command) == 2
    assert "--overwrite" in tiny.one_sentence(capsys.readouterr())
    assert main([*command, "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{told['digest']}  {out}\n"
    write_folder(tmp_path / "adapter", files_of(tiny.adapter(layout_of(config)), base,
                 use_dora=True), overwrite=True)  # fmt: skip
    before = out.read_bytes()
    assert main([*command, "--overwrite"]) == 1
    assert "DoRA" in tiny.one_sentence(capsys.readouterr())
    assert out.read_bytes() == before and [f.name for f in out.parent.iterdir()] == [out.name]


def test_a_command_line_that_is_wrong_is_exit_2(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "adapter").mkdir()
    for arguments in (
        [str(tmp_path / "none"), "--as", "gguf"],
        [str(tmp_path / "adapter"), "--as", "zip"],
        [str(tmp_path / "adapter"), "--as", "oci", "--base", "owner/base"],
    ):
        assert main(["export", *arguments, "--out", str(tmp_path / "out")]) == 2
        tiny.one_sentence(capsys.readouterr())
    assert main(["export", str(tmp_path / "adapter"), "--as", "oci", "--out", str(tmp_path / "o")])
    tiny.one_sentence(capsys.readouterr())
    assert not (tmp_path / "o").exists()
