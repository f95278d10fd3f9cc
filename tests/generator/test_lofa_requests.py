"""Requests to LoFA: the base's weights come with the query; what is missing is one sentence."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

from generator.engine import Engine, read_generator
from generator.layers.lofa_config import LoFAConfig
from generator.models.lofa import LoFA
from generator.request import Request
from generator.resources import Resources
from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder
from library.base.models import BaseReference, described, load_config, resolve_base
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import BaseModelError, LayoutMismatch, UsageError
from library.layout import layout_of
from library.tasks.files import Example

TASK = "Decide whether the sentence is positive or negative."


@pytest.fixture(scope="module")
def engine(
    tiny_base: Path, encoder: DescriptionEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """An engine over a LoFA with random weights for the tiny base."""
    base = resolve_base(str(tiny_base))
    module = LoFA(LoFAConfig(width=16, blocks=2, heads=2), layout_of(load_config(base), rank=4))
    tiny.randomise(module, std=0.2)
    folder = tmp_path_factory.mktemp("lofa") / "checkpoint"
    save_checkpoint(folder, module, CheckpointInfo(described(base), DEFAULT_ENCODER))
    return Engine([read_generator(folder)], Resources(encoders=[encoder]))


def test_the_same_bytes_whatever_else_is_asked_for_and_with_any_threads(
    engine: Engine, base: BaseReference
) -> None:
    first = engine.generate(LoFA.kind, Request(TASK), base)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            other = engine.generate(LoFA.kind, Request(f"Number {threads}."), base)
            assert engine.generate(LoFA.kind, Request(TASK), base).files == first.files
    finally:
        torch.set_num_threads(before)
    assert other.files.sha256 != first.files.sha256
    assert engine.strategy(LoFA.kind).unavailable(base) == ""


def test_another_checkpoint_of_the_base_gives_another_adapter(
    engine: Engine, base: BaseReference, tiny_base: Path, tmp_path: Path
) -> None:
    """Its weights are read, not only its layout."""
    config = load_config(base)
    tiny.model(config, seed=5).save_pretrained(tmp_path / "other")
    for file in tiny_base.glob("*token*"):
        shutil.copy(file, tmp_path / "other")
    made = [
        engine.propose(LoFA.kind, Request(TASK), reference).adapter
        for reference in (base, resolve_base(str(tmp_path / "other")))
    ]
    for one, other in zip(made[0].factors(), made[1].factors(), strict=True):
        assert not torch.allclose(one, other, rtol=1e-2)


def test_what_it_cannot_do_without_is_one_sentence(
    engine: Engine, base: BaseReference, tiny_base: Path, tmp_path: Path
) -> None:
    examples = Request(None, examples=(Example.pair("a", "b"),) * 5)
    with pytest.raises(UsageError, match="a description is needed for this"):
        engine.propose(LoFA.kind, examples, base)
    with pytest.raises(LayoutMismatch, match="and the lofa checkpoint has layout"):
        engine.propose(LoFA.kind, Request(TASK), resolve_base())
    broken = shutil.copytree(tiny_base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="broken' cannot be read") as raised:
        engine.propose(LoFA.kind, Request(TASK), resolve_base(str(broken)))
    assert "\n" not in str(raised.value)
