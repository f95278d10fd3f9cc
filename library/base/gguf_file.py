"""GGUF files of causal LMs, dequantised to a Hugging Face folder: the form that bases load from.

transformers reads the weights, of every architecture that it knows, and builds the tokenizer. What
it leaves out is put right here: cuts and normalisation that a file names by `tokenizer.ggml.pre`
alone, special tokens, the longest input, and that llama.cpp may have rounded a tied matrix twice.
"""

from pathlib import Path
from typing import Any

import torch

from library.errors import BaseModelError, first_line
from library.files import require_present

# Rounding to four bits changes a matrix by 8 %; two matrices of a model differ by 100 % and more.
_SAME_MATRIX = 0.2


def convert_gguf(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Write config, weights (safetensors, of `dtype`) and tokenizer of a GGUF into a folder.

    Raises:
        MissingPath: there is no file.
        BaseModelError: it is no GGUF, or of an architecture that transformers does not read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require_present(source)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        rule, tokens, kinds = _of_tokenizer(source, "pre", "tokens", "token_type")
        _cut(tokenizer, rule)
        _keep_whole(tokenizer, tokens, kinds)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=dtype
        )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise BaseModelError(f"{source} cannot be converted: {first_line(error)}") from error
    _tie(model)
    _forget_quantisation(model)
    _agree(tokenizer, model.config)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    for file in target.iterdir():  # safetensors writes files that are their owner's alone
        file.chmod(0o644)


def _of_tokenizer(source: Path, *keys: str) -> list[Any]:
    """What a file says of its tokenizer; None for what it does not say."""
    from gguf import GGUFReader

    reader = GGUFReader(source)
    fields = [reader.get_field(f"tokenizer.ggml.{key}") for key in keys]
    return [None if field is None else field.contents() for field in fields]


def _cut(tokenizer: Any, rule: str | None) -> None:
    """Cut and normalise as the published tokenizer does, by the rule's name in llama.cpp."""
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if rule == "smollm":  # transformers does not know that digits are split one by one
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [
                Digits(individual_digits=True),
                ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        )
    elif rule == "qwen2":
        tokenizer.backend_tokenizer.normalizer = NFC()


def _keep_whole(tokenizer: Any, tokens: list[str] | None, kinds: list[int] | None) -> None:
    """Tokens that are never cut, most of which some versions of transformers leave out."""
    from gguf import TokenType
    from tokenizers import AddedToken

    special = {TokenType.CONTROL: True, TokenType.USER_DEFINED: False}
    known = tokenizer.get_vocab()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=special[TokenType(kind)], normalized=False)
            for token, kind in zip(tokens or (), kinds or (), strict=False)
            if kind in special and token in known
        ]
    )


def _agree(tokenizer: Any, config: Any) -> None:
    """The file's own special tokens and length: a family's tokenizer may bring others."""
    tokenizer.model_max_length = config.max_position_embeddings
    for name in ("bos_token", "eos_token", "pad_token"):
        number = getattr(config, f"{name}_id")
        if number is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))


def _tie(model: Any) -> None:
    """One matrix for embedding and output where a file holds it twice, rounded differently.

    llama.cpp rounds the output's copy less, so that is the one to keep.
    """
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding is output or embedding.shape != output.shape:
        return
    with torch.no_grad():
        if (embedding.float() - output.float()).norm() > _SAME_MATRIX * output.float().norm():
            return
    model.config.tie_word_embeddings = True
    model.get_input_embeddings().weight = output


def _forget_quantisation(model: Any) -> None:
    """transformers refuses to save what it believes is still quantised."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
