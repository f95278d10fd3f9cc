"""Tiny GGUF files as llama.cpp's converter writes them: a random Qwen2 and a byte-level BPE."""

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, TokenType, get_tensor_name_map
from gguf.quants import quantize
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BYTES = list(bytes_to_unicode().values())
MERGED = ["th", "the", "12", "Ġa", "eÌģ", "Ã©"]  # the last two: é of two code points, and of one
MERGES = ["t h", "th e", "1 2", "Ġ a", "e Ìģ", "Ã ©", "Ì ģ"]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|file_sep|>"]
VOCABULARY = [*BYTES, "Ìģ", *MERGED, *CONTROL, "<tool>"]
END, STOP = VOCABULARY.index("<|endoftext|>"), VOCABULARY.index("<|im_end|>")


def qwen2(*, tied: bool, seed: int = 0) -> Any:
    """Two layers with biases on q, k and v, and half as many key heads as query heads."""
    config = tiny.config(
        "qwen2",
        vocab_size=len(VOCABULARY),
        tie_word_embeddings=tied,
        max_position_embeddings=2048,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=STOP,
    )
    return tiny.model(config, seed=seed)


def write_gguf(
    path: Path,
    model: Any,
    rounded: dict[str, GGMLQuantizationType] | None = None,
    *,
    pre_tokenizer: str = "qwen2",
    architecture: str = "qwen2",
) -> None:
    """Write a model in float32.

    Args:
        path: the file.
        model: of `qwen2`.
        rounded: the type of the tensors that are rounded, by their names in the file; an output
            among them is the embedding's copy.
        pre_tokenizer: the rule that cuts text.
        architecture: what the header says.
    """
    rounded, config = rounded or {}, model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, pre_tokenizer)
    for name, value in _tensors(model, "output.weight" in rounded).items():
        if name in rounded:
            data = quantize(value.numpy(), rounded[name])
            writer.add_tensor(name, data, raw_dtype=rounded[name])
        else:
            writer.add_tensor(name, np.ascontiguousarray(value.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, pre_tokenizer: str) -> None:
    kinds = [TokenType.CONTROL if token in CONTROL else TokenType.NORMAL for token in VOCABULARY]
    kinds[-1] = TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_eos_token_id(STOP)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensors(model: Any, copied: bool) -> dict[str, Tensor]:
    """By their names in the file; of a tied matrix one, or two if it is copied."""
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, model.config.num_hidden_layers)
    found = {}
    for name, value in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        found[f"{names.get_name(module)}.{kind}"] = value.float()
    if model.config.tie_word_embeddings and not copied:
        found.pop("output.weight", None)
    return found


def rounded_as(value: Tensor, kind: GGMLQuantizationType) -> Tensor:
    """What is left of a matrix after rounding."""
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(quantize(value.numpy(), kind), kind))
