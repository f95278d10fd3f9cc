"""Other PEFT types as LoRA: all that are listed, on bases that are no causal models, too."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from round_trip import CONFIG, Q_AND_V, WEIGHTS, imported, randomised
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from library.exchange.convert import class_of_base
from library.peft.merging import MERGEABLE

IDS = tiny.tokens(3, 9)
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 64}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32}

QV: dict[str, Any] = {"target_modules": Q_AND_V}
TYPES: dict[str, Any] = {
    "ADALORA": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, **QV),
    "ADAMSS": lambda: peft.AdamssConfig(**QV),
    "BOFT": lambda: peft.BOFTConfig(boft_block_size=4, **QV),
    "C3A": lambda: peft.C3AConfig(block_size=8, **QV),
    "DEFT": lambda: peft.DeftConfig(**QV),
    "DELORA": lambda: peft.DeloraConfig(r=4, **QV),
    "FOURIERFT": lambda: peft.FourierFTConfig(n_frequency=40, **QV),
    "GLORA": lambda: peft.GloraConfig(r=4, **QV),
    "GRALORA": lambda: peft.GraloraConfig(r=4, gralora_k=2, **QV),
    "HIRA": lambda: peft.HiraConfig(r=4, **QV),
    "HRA": lambda: peft.HRAConfig(r=4, **QV),
    "IA3": lambda: peft.IA3Config(feedforward_modules=[], **QV),
    "LOHA": lambda: peft.LoHaConfig(r=3, **QV),
    "LOKR": lambda: peft.LoKrConfig(r=3, **QV),
    "LORA": lambda: peft.LoraConfig(r=4, use_dora=True, **QV),
    "MISS": lambda: peft.MissConfig(r=4, **QV),
    "OFT": lambda: peft.OFTConfig(oft_block_size=8, **QV),
    "OSF": lambda: peft.OSFConfig(**QV),
    "PEANUT": lambda: peft.PeanutConfig(r=4, **QV),
    "PSOFT": lambda: peft.PsoftConfig(r=4, **QV),
    "PVERA": lambda: peft.PveraConfig(r=4, **QV),
    "RANDLORA": lambda: peft.RandLoraConfig(r=4, **QV),
    "ROAD": lambda: peft.RoadConfig(group_size=8, **QV),
    "TINYLORA": lambda: peft.TinyLoraConfig(**QV),
    "UNILORA": lambda: peft.UniLoraConfig(**QV),
    "VBLORA": lambda: peft.VBLoRAConfig(r=4, num_vectors=20, vector_length=8, **QV),
    "VERA": lambda: peft.VeraConfig(r=4, **QV),
    "WAVEFT": lambda: peft.WaveFTConfig(n_frequency=40, **QV),
}


def converted(source: Path, library: Path, base: Path) -> Path:
    """The adapter after a conversion at full rank."""
    return imported(source, library, "--base", base, "--rank", "64")


def test_every_type_is_tried() -> None:
    assert tuple(TYPES) == MERGEABLE


@pytest.mark.parametrize("kind", TYPES)
def test_logits_are_those_of_peft(kind: str, tmp_path: Path, tiny_base: Path) -> None:
    def bare() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_base)

    model = randomised(peft.get_peft_model(bare(), TYPES[kind]()))
    expected = model(input_ids=IDS).logits
    assert (expected - bare()(input_ids=IDS).logits).abs().max() > 0.01
    model.save_pretrained(str(tmp_path / "a"))
    folder = converted(tmp_path / "a", tmp_path / "lib", tiny_base)
    served: Any = peft.PeftModel.from_pretrained(bare(), str(folder)).eval()
    rounding = 1e-4 if kind in ("FOURIERFT", "RANDLORA") else 3e-5  # both sum many float32 terms
    torch.testing.assert_close(served(input_ids=IDS).logits, expected, atol=rounding, rtol=0)


def output(model: Any) -> Tensor:
    """What a model of any of these classes says, as one tensor."""
    kind = type(model.get_base_model())
    if kind is ViTForImageClassification:
        return model(pixel_values=torch.ones(2, 3, 8, 8)).logits
    if kind is T5ForConditionalGeneration:
        return model(input_ids=IDS % 60, decoder_input_ids=IDS[:, :3] % 60).logits
    said = model(input_ids=IDS % 60)
    return said.logits if "logits" in said else said.last_hidden_state


DORA = {"r": 4, "use_dora": True, "target_modules": Q_AND_V}
# The base as it is saved, the class that it is then loaded by, and the adapter.
BASES: dict[str, tuple[Any, Any, Any]] = {
    "a decoder with a head": (
        lambda: tiny.model(tiny.config("llama", pad_token_id=0)),
        lambda path: AutoModelForSequenceClassification.from_pretrained(path, num_labels=3),
        peft.LoraConfig(task_type="SEQ_CLS", **DORA),
    ),
    "BERT with a head": (
        lambda: BertForSequenceClassification(BertConfig(vocab_size=64, num_labels=3, **SMALL)),
        lambda path: AutoModelForSequenceClassification.from_pretrained(path),
        peft.LoHaConfig(r=3, task_type="SEQ_CLS", target_modules=["query", "value"]),
    ),
    "encoder and decoder": (
        lambda: T5ForConditionalGeneration(T5Config(**T5)),
        lambda path: T5ForConditionalGeneration.from_pretrained(path),
        peft.LoHaConfig(r=3, task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"]),
    ),
    "a bare model": (
        lambda: tiny.model(tiny.config("llama")),
        lambda path: AutoModel.from_pretrained(path),
        peft.LoraConfig(task_type="FEATURE_EXTRACTION", **DORA),
    ),
    "a class by its name": (
        lambda: ViTForImageClassification(
            ViTConfig(image_size=8, patch_size=4, num_labels=3, **SMALL)
        ),
        lambda path: ViTForImageClassification.from_pretrained(path),
        peft.LoraConfig(modules_to_save=["classifier"], **DORA),
    ),
}


@pytest.mark.parametrize("case", BASES)
def test_other_bases_than_causal_ones_convert(case: str, tmp_path: Path) -> None:
    make, load, settings = BASES[case]
    torch.manual_seed(0)
    make().save_pretrained(tmp_path / "base")
    torch.manual_seed(1)  # a head that the base lacks begins at random
    model = randomised(peft.get_peft_model(load(tmp_path / "base"), settings))
    expected = output(model)
    model.save_pretrained(str(tmp_path / "a"))
    folder = converted(tmp_path / "a", tmp_path / "lib", tmp_path / "base")
    said = json.loads((folder / CONFIG).read_text())
    assert (said["peft_type"], said["task_type"]) == ("LORA", settings.task_type)
    theirs, ours = load_file(tmp_path / "a" / WEIGHTS), load_file(folder / WEIGHTS)
    heads = [key for key in theirs if "score" in key or "classifier" in key]
    assert all(torch.equal(ours[key], theirs[key]) for key in heads)
    assert bool(heads) == (case not in ("encoder and decoder", "a bare model"))
    torch.manual_seed(1)
    served: Any = peft.PeftModel.from_pretrained(load(tmp_path / "base"), str(folder)).eval()
    torch.testing.assert_close(output(served), expected, atol=3e-5, rtol=0)


def test_a_config_names_no_class_but_transformers_own_models() -> None:
    for named in ("system", "pipeline", "AutoTokenizer", "", "__builtins__"):
        mapping = {"base_model_class": named, "parent_library": "os"}
        assert class_of_base({"auto_mapping": mapping}) == "AutoModelForCausalLM"
    mapping = {"base_model_class": "ViTModel", "parent_library": "os"}
    assert class_of_base({"auto_mapping": mapping}) == "ViTModel"
    assert class_of_base({"auto_mapping": "x", "task_type": ["y"]}) == "AutoModelForCausalLM"
