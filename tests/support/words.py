"""A base whose tokens are ten words, so that answers can be guessed, and tasks of these words."""

import json
from pathlib import Path

import pytest
import tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

WORDS = ["<pad>", "<end>", "<unk>", "red", "blue", "green", "sun", "sea", "tree", "sky"]


@pytest.fixture(scope="session")
def word_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama whose tokens are ten words, so that answers can be guessed."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = tiny.config("llama", vocab_size=len(WORDS), eos_token_id=1, pad_token_id=0)
    tiny.model(config).save_pretrained(folder)
    return folder


def write_tasks(folder: Path, answers: dict[str, str]) -> Path:
    """Tasks of 70 rows whose answer is always the same."""
    folder.mkdir()
    for name, answer in answers.items():
        inputs = (" ".join(WORDS[6 + (i + j) % 4] for j in range(1 + i % 4)) for i in range(70))
        lines = [json.dumps({"input": text, "output": answer}) for text in inputs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        (folder / f"{name}.txt").write_text(f"Always answer with {answer}.")
    return folder
