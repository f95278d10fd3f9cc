"""A GGUF becomes the folder of the model that it was written from."""

from pathlib import Path

import pytest
import tiny
import torch
from gguf import GGMLQuantizationType
from gguf_files import END, MERGED, STOP, VOCABULARY, qwen2, rounded_as, write_gguf
from safetensors.torch import load_file

from api.cli.main import main
from library.base.gguf_file import convert_gguf
from library.base.models import BaseModel, load_base, resolve_base
from library.base.prompts import answer_ids, prompt_ids
from library.errors import BaseModelError, MissingPath


def converted(file: Path) -> BaseModel:
    out = file.with_suffix("")
    out.mkdir()
    convert_gguf(file, out, torch.float32)
    return load_base(resolve_base(str(out)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """Of a file with the tied model in float32."""
    file = tmp_path_factory.mktemp("gguf") / "plain.gguf"
    write_gguf(file, qwen2(tied=True))
    return converted(file)


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_the_one_that_was_written(tied: bool, tmp_path: Path) -> None:
    model, ids = qwen2(tied=tied), tiny.tokens(2, 9)
    write_gguf(tmp_path / "m.gguf", model)
    made = converted(tmp_path / "m.gguf").model
    torch.testing.assert_close(made(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert made.config.tie_word_embeddings == tied
    assert made.model.layers[0].self_attn.k_proj.bias.abs().min() > 0
    settings = (made.config, made.generation_config)
    assert [(s.eos_token_id, s.pad_token_id) for s in settings] == [(STOP, END)] * 2


def test_one_matrix_that_was_rounded_twice_is_one_again(tmp_path: Path) -> None:
    model = qwen2(tied=True)
    kinds = {
        "token_embd.weight": GGMLQuantizationType.Q4_0,
        "output.weight": GGMLQuantizationType.Q8_0,
    }
    write_gguf(tmp_path / "m.gguf", model, kinds)
    made = converted(tmp_path / "m.gguf").model
    assert made.config.tie_word_embeddings
    assert made.get_output_embeddings().weight is made.get_input_embeddings().weight
    finer = rounded_as(model.get_input_embeddings().weight, GGMLQuantizationType.Q8_0)
    torch.testing.assert_close(made.get_input_embeddings().weight, finer, rtol=0, atol=0)


def test_the_tokenizer_cuts_as_the_published_one(plain: BaseModel) -> None:
    tokenizer = plain.tokenizer
    ids = tokenizer("the 12<|im_end|><|file_sep|><tool>")["input_ids"]
    cut = ["the", "Ġ", "1", "2", "<|im_end|>", "<|file_sep|>", "<tool>"]
    assert tokenizer.convert_ids_to_tokens(ids) == cut
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the 12<tool>"
    assert tokenizer("e\u0301")["input_ids"] == [VOCABULARY.index(MERGED[-1])]  # NFC: one é
    assert (
        tokenizer.decode(tokenizer("naïve — 日本\n\ta 12")["input_ids"]) == "naïve — 日本\n\ta 12"
    )
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (STOP, END)
    assert tokenizer.model_max_length == 2048


def test_prompts_take_the_template_with_its_own_system_turn(plain: BaseModel) -> None:
    tokenizer = plain.tokenizer
    asked = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    system = "<|im_start|>system\nHelp.<|im_end|>\n"
    assert tokenizer.decode(prompt_ids(tokenizer, "hi")) == system + asked
    assert answer_ids(tokenizer, "the") == [VOCABULARY.index("the"), STOP]


def test_digits_stand_alone_where_transformers_does_not_know_the_rule(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", qwen2(tied=True), pre_tokenizer="smollm")
    tokenizer = converted(tmp_path / "m.gguf").tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("a 12")["input_ids"]) == ["a", "Ġ", "1", "2"]


def test_what_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no such thing")
    write_gguf(tmp_path / "new.gguf", qwen2(tied=True), architecture="unheard-of")
    for name in ("text.gguf", "new.gguf"):
        with pytest.raises(BaseModelError, match=f"{name} cannot be converted"):
            convert_gguf(tmp_path / name, tmp_path, torch.float32)
        assert main(["base", "convert", str(tmp_path / name), "--out", str(tmp_path / "o")]) == 1
    with pytest.raises(MissingPath):
        convert_gguf(tmp_path / "none.gguf", tmp_path, torch.float32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.gguf", "text.gguf"]


def test_the_command_writes_a_base_in_bfloat16(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "m.gguf", qwen2(tied=True))
    command = ["base", "convert", str(tmp_path / "m.gguf"), "--out", str(tmp_path / "base")]
    assert main(command) == 0
    assert str(tmp_path / "base") in capsys.readouterr().out
    weights = load_file(tmp_path / "base" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in (tmp_path / "base").iterdir())
    assert main(command) == 2  # it is there already
