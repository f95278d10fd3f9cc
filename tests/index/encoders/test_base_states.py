"""The base as reader of descriptions: its states are a prompt's, and a checkpoint keeps it."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from benchmarks.calibrate.base_states import below
from generator.engine import read_generator
from generator.layers.config import TextToLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from generator.request import Query, Request
from generator.resources import Resources
from index.encoders.base_states import BaseStates, BaseStatesConfig, StateEncoder
from index.encoders.texts import encoder_files, recorded_encoder, text_encoder
from library.adapter import Adapter
from library.base.models import described, load_base, load_config, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.base.prompts import ids_before_user, prompt_ids, user_turn
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import CheckpointError, LayoutMismatch, UsageError
from library.layout import layout_of

TEXTS = ["Say red or blue.", "Copy the last word of the text, and nothing else.", "x"]


@pytest.fixture(scope="module")
def whole(tiny_base: Path) -> Adapter:
    """An adapter for all layers of the tiny base."""
    layout = layout_of(load_config(resolve_base(str(tiny_base))), rank=2)
    return tiny.adapter(layout)


@pytest.fixture
def reading(tiny_base: Path, whole: Adapter) -> BaseStates:
    width = load_config(resolve_base(str(tiny_base))).hidden_size
    some = below(whole, 1)
    made = BaseStates(BaseStatesConfig(1, width), some.layout)
    made.read_with(some)
    return made


@pytest.fixture
def folder(tmp_path: Path, reading: BaseStates, tiny_base: Path) -> Path:
    info = CheckpointInfo(described(resolve_base(str(tiny_base))))
    save_checkpoint(tmp_path / "reader", reading, info)
    return tmp_path / "reader"


def test_states_are_those_of_a_prompt_with_the_description(
    tiny_base: Path, whole: Adapter, reading: BaseStates
) -> None:
    base = resolve_base(str(tiny_base))
    encoder = StateEncoder(reading, base)
    (row,) = encoder.encode_batch([TEXTS[1]])
    # A whole prompt through the whole base under the whole adapter, in float64.
    loaded = load_base(base, dtype=torch.float64)
    ids = prompt_ids(loaded.tokenizer, user_turn("prompted", TEXTS[1], "an input"))
    before, count = len(ids_before_user(loaded.tokenizer)), row.tokens.shape[1]
    decoder = loaded.model.get_decoder()
    with closing(MultiAdapter(loaded.model, whole.layout)) as hooks, torch.inference_mode():
        hooks.set(whole, torch.zeros(1, dtype=torch.long))
        states = decoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
        expected = decoder.norm(states[0, before : before + count - 1])
    # The last token may be another where the blank line follows.
    torch.testing.assert_close(row.tokens[0, : count - 1], expected)
    words = loaded.model.get_input_embeddings()(torch.tensor(ids[before : before + count - 1]))
    torch.testing.assert_close(row.words[0, : count - 1], words)
    assert row.pooled.norm().item() == pytest.approx(1)


def test_a_batch_gives_what_each_text_gives_alone(tiny_base: Path, reading: BaseStates) -> None:
    encoder = StateEncoder(reading, resolve_base(str(tiny_base)))
    together = encoder.encode_batch(TEXTS, batch_size=2)
    for text, row in zip(TEXTS, together, strict=True):
        alone = encoder.encode([text])
        torch.testing.assert_close(row.tokens, alone.tokens)
        torch.testing.assert_close(row.pooled, alone.pooled)
    joined = encoder.encode(TEXTS)
    assert joined.mask.sum(1).tolist() == [row.tokens.shape[1] for row in together]


def test_standardised_states_have_mean_zero_and_deviation_one(
    tiny_base: Path, reading: BaseStates
) -> None:
    encoder = StateEncoder(reading, resolve_base(str(tiny_base)))
    many = [f"{text} {number}" for text in TEXTS for number in range(20)]
    for _ in range(2):  # the second time it is so already
        reading.standardise(torch.cat([r.tokens[0] for r in encoder.encode_batch(many)]))
        states = torch.cat([row.tokens[0] for row in encoder.encode_batch(many)])
        width = states.shape[1]
        nought = torch.zeros(width, dtype=states.dtype)
        torch.testing.assert_close(states.mean(0), nought, atol=1e-5, rtol=0)
        torch.testing.assert_close(states.std(0), nought + 1, atol=1e-4, rtol=0)


def test_the_adapter_changes_what_is_read(tiny_base: Path, reading: BaseStates) -> None:
    base = resolve_base(str(tiny_base))
    plain = BaseStates(reading.config, reading.layout)
    (with_it,), (without,) = (
        StateEncoder(r, base).encode_batch(TEXTS[:1]) for r in (reading, plain)
    )
    assert (with_it.tokens - without.tokens).abs().max() > 1e-3


def test_a_stored_reader_reads_the_same_and_refuses_another_base(
    folder: Path, reading: BaseStates, tiny_base: Path, tmp_path: Path
) -> None:
    base = resolve_base(str(tiny_base))
    stored = text_encoder(str(folder), base)
    expected = StateEncoder(reading, base).encode(TEXTS)
    assert torch.equal(stored.encode(TEXTS).tokens, expected.tokens)
    assert stored.name == recorded_encoder(str(folder))
    other = tmp_path / "other"
    tiny.write_base(other, end=3)
    with pytest.raises(LayoutMismatch, match="reads descriptions by"):
        text_encoder(str(folder), resolve_base(str(other)))


@pytest.fixture
def generator_of(folder: Path, tiny_base: Path, tmp_path: Path) -> Callable[[], Path]:
    """Write a Text-to-LoRA checkpoint that reads by the stored states; its folder."""

    def write() -> Path:
        base = resolve_base(str(tiny_base))
        config = load_config(base)
        width = config.hidden_size
        architecture = TextToLoRAConfig(
            width, latent=16, head_in=24, queries=2, words_dim=width, reader_dim=8
        )
        module = TextToLoRA(architecture, layout_of(config, rank=2))
        tiny.randomise(module, std=0.2)
        info = CheckpointInfo(described(base), recorded_encoder(str(folder)))
        save_checkpoint(tmp_path / "made", module, info, beside=encoder_files(str(folder)))
        return tmp_path / "made"

    return write


def test_a_generator_takes_its_reader_along(
    generator_of: Callable[[], Path], folder: Path, tiny_base: Path
) -> None:
    checkpoint, base = generator_of(), resolve_base(str(tiny_base))
    name = recorded_encoder(str(folder))
    shutil.rmtree(folder)
    loaded = read_generator(checkpoint)
    module, resources = loaded.module.double(), Resources()  # as it serves
    assert resources.reader(loaded.info.encoder, base).name == name

    def factor(description: str) -> Any:
        query = Query(Request(description), base, resources)
        with torch.inference_mode():
            return module(query.condition(module, loaded.info.encoder)).factors()[0]

    assert torch.equal(factor(TEXTS[0]), factor(TEXTS[0]))
    assert not torch.equal(factor(TEXTS[0]), factor(TEXTS[1]))


def test_a_generator_without_its_reader_is_refused(generator_of: Callable[[], Path]) -> None:
    checkpoint = generator_of()
    shutil.rmtree(checkpoint / "encoder")
    with pytest.raises(CheckpointError, match="lacks its encoder"):
        read_generator(checkpoint)


def test_more_layers_than_the_base_has_are_refused(tiny_base: Path, reading: BaseStates) -> None:
    deeper = BaseStates(replace(reading.config, layers=99), reading.layout)
    with pytest.raises(LayoutMismatch, match="2 layers, not the 99"):
        StateEncoder(deeper, resolve_base(str(tiny_base)))


def test_an_adapter_above_the_layers_is_refused(whole: Adapter) -> None:
    with pytest.raises(UsageError, match="not read"):
        BaseStates(BaseStatesConfig(1, 8), whole.layout)
    with pytest.raises(UsageError, match="whole numbers"):
        BaseStatesConfig(0, 8)
