"""Adapters with trained weights beside their LoRA: kept to the bit, and in nothing that is made."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from round_trip import (
    CONFIG,
    Q_AND_V,
    WEIGHTS,
    exported,
    imported,
    randomised,
    run,
    same_file,
    stored,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from api.cli.main import main
from library.errors import MoreThanLora
from library.exchange.gguf_lora import gguf_lora
from library.peft.keys import parted
from library.peft.read import adapter_of, read_peft
from library.store.catalogue import files_of
from library.store.folder import LibraryFolder

IDS = tiny.tokens(3, 9)


def vit() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 8, "patch_size": 4, "num_labels": 3}
    config = ViTConfig(**sizes)
    return ViTForImageClassification(config).eval()


def classifier() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        tiny.config("llama", pad_token_id=0, num_labels=3)
    ).eval()


def lm(family: str = "llama") -> Any:
    return tiny.model(tiny.config(family)).requires_grad_(True)


KINDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a classifier's head": (classifier, {"task_type": "SEQ_CLS"}, "score.weight"),
    "an image classifier's head": (vit, {"modules_to_save": ["classifier"]}, "classifier.bias"),
    "norms": (lm, {"modules_to_save": ["input_layernorm", "norm"]}, "model.norm.weight"),
    "biases": (
        lambda: lm("gpt2"),
        {"bias": "all", "target_modules": ["c_attn"]},
        "transformer.h.1.mlp.c_fc.bias",
    ),
    "biases of the modules": (
        lambda: lm("gpt2"),
        {"bias": "lora_only", "target_modules": ["c_attn"]},
        "transformer.h.0.attn.c_attn.base_layer.bias",
    ),
    "LoRA's biases": (
        lambda: lm("gpt2"),
        {"lora_bias": True, "target_modules": ["c_attn"]},
        "transformer.h.0.attn.c_attn.lora_B.bias",
    ),
    "tokens": (
        lm,
        {"trainable_token_indices": [3, 5]},
        "model.embed_tokens.token_adapter.trainable_tokens_delta",
    ),
}  # fmt: skip


def logits(model: Any) -> torch.Tensor:
    if isinstance(getattr(model, "base_model", model).model, ViTForImageClassification):
        return model(pixel_values=torch.ones(2, 3, 8, 8)).logits
    return model(input_ids=IDS).logits


def written(folder: Path, kind: str, seed: int = 0) -> Any:
    """PEFT's own adapter of a kind, everything in it trained; returns the model."""
    make, settings, _ = KINDS[kind]
    config = peft.LoraConfig(**{"r": 2, "target_modules": Q_AND_V, **settings})
    model: Any = randomised(peft.get_peft_model(make(), config), seed)
    model.peft_config["default"].base_model_name_or_path = "owner/base"
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_comes_back_and_acts_as_before(kind: str, tmp_path: Path) -> None:
    model = written(tmp_path / "a", kind)
    folder = imported(tmp_path / "a", tmp_path / "lib")
    out = exported(folder, tmp_path / "out")
    assert same_file(out / WEIGHTS, tmp_path / "a" / WEIGHTS)
    assert (out / CONFIG).read_bytes() == (tmp_path / "a" / CONFIG).read_bytes()
    (record,) = stored(tmp_path / "lib")
    extras = {k for k in load_file(out / WEIGHTS) if ".lora_" not in k or k.endswith("B.bias")}
    assert {f"base_model.model.{name}" for name in record["extras"]} == extras
    assert KINDS[kind][2] in record["extras"]
    provenance = json.loads((folder / "provenance.json").read_text())
    found = {f["code"]: f for f in provenance["report"]["findings"]}
    assert found["extras"]["evidence"]["tensors"] == record["extras"]
    served: Any = peft.PeftModel.from_pretrained(KINDS[kind][0](), str(out)).eval()
    assert torch.equal(logits(served), logits(model))
    files = files_of(LibraryFolder(str(tmp_path / "lib")), record["id"])
    for name, delta in tiny.deltas(adapter_of(files, leave_extras=True)).items():
        expected = model.base_model.model.get_submodule(name).get_delta_weight("default")
        expected = expected.T if "gpt2" in str(type(model.base_model.model)) else expected
        torch.testing.assert_close(delta, expected.float(), atol=1e-6, rtol=0)


def test_another_head_is_another_adapter(tmp_path: Path) -> None:
    written(tmp_path / "a", "a classifier's head")
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    tensors["base_model.model.score.weight"] += 1
    (tmp_path / "b").mkdir()
    save_file(tensors, tmp_path / "b" / WEIGHTS, metadata={"format": "pt"})
    (tmp_path / "b" / CONFIG).write_bytes((tmp_path / "a" / CONFIG).read_bytes())
    first, second = (imported(tmp_path / name, tmp_path / "lib") for name in "ab")
    assert first.name != second.name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_made_of_the_lora_alone(
    kind: str, tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a", kind)
    folder = imported(tmp_path / "a", tmp_path / "lib")
    with pytest.raises(MoreThanLora):
        read_peft(folder)
    files = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    with pytest.raises(MoreThanLora):
        gguf_lora(files, str(tiny_base))
    out, rows = tmp_path / "made", tmp_path / "rows.jsonl"
    rows.write_text('{"input": "a", "output": "b"}\n')
    commands = [
        ["compose", folder, folder, "--out", out],
        ["refine", folder, "--examples", rows, "--steps", "1", "--out", out],
        ["export", folder, "--as", "gguf", "--out", out],
        ["library", "export", folder.name, "--library", tmp_path / "lib", "--out", out,
         "--profile", "portable"],
    ]  # fmt: skip
    for command in commands:
        capsys.readouterr()
        assert main([str(word) for word in command]) == 1, command
        said = tiny.one_sentence(capsys.readouterr())
        assert "trained weights beside its LoRA" in said and not out.exists()


def test_a_library_s_strategies_and_packing_pass_it_over(
    small_library: Path, tmp_path: Path, tiny_base: Path, base: Any, encoder: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from index.search.retriever import Retriever

    library = tmp_path / "lib"
    shutil.copytree(small_library / "lib", library)
    bare: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    settings = peft.LoraConfig(r=4, target_modules=Q_AND_V, modules_to_save=["norm"])
    randomised(peft.get_peft_model(bare, settings)).save_pretrained(tmp_path / "a")
    shelf = Retriever(LibraryFolder(str(library)), base, encoder)
    before = {record["task"] for record in shelf.records}
    imported(tmp_path / "a", library, "--base", tiny_base, "--task", "normed")
    assert "normed" in {record["task"] for record in stored(library)}
    shelf = Retriever(LibraryFolder(str(library)), base, encoder)
    assert {record["task"] for record in shelf.records} == before
    capsys.readouterr()
    assert run("pack", "--library", library, "--out", tmp_path / "packed") == 1
    assert "trained weights beside its LoRA" in tiny.one_sentence(capsys.readouterr())


def test_extras_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "a", "norms")
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    save_file(parted(tensors, config)[1], tmp_path / "a" / WEIGHTS)
    capsys.readouterr()
    assert run("import", tmp_path / "a", "--library", tmp_path / "lib") == 1
    assert "no pair of factors" in tiny.one_sentence(capsys.readouterr())
    stray = tensors | {"base_model.model.model.layers.0.mlp.x": torch.ones(2)}
    save_file(stray, tmp_path / "a" / WEIGHTS)
    assert run("import", tmp_path / "a", "--library", tmp_path / "lib") == 1
    assert "mlp.x" in tiny.one_sentence(capsys.readouterr())
