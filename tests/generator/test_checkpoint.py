"""Generator checkpoints: exact, strict, and readable without a base or an encoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load, save
from torch import Tensor

import pretrained
from generator.engine import read_generator
from generator.layers.config import TextToLoRAConfig
from generator.models.icm_lora import ICMLoRA, ICMLoRAConfig
from generator.models.text_to_lora import TextToLoRA
from library.base.models import identity, load_config, resolve_base
from library.canonical import digest
from library.checkpoint import (
    CHECKPOINT_CONFIG,
    CHECKPOINT_WEIGHTS,
    SCALE,
    CheckpointInfo,
    Storage,
    save_checkpoint,
)
from library.errors import CheckpointError, MissingPath, OutputExists
from library.layout import layout_of

INFO = CheckpointInfo({"id": "b", "sha256": None, "source": "s"}, "e", ["t1", "t2"], {"steps": 3})
STORAGES: tuple[Storage, ...] = ("float32", "int8")


def module() -> TextToLoRA:
    layout = tiny.with_ranks(layout_of(tiny.config("llama")), [4, 2, 1, 3])
    made = TextToLoRA(TextToLoRAConfig(12, latent=16, head_in=96, queries=2), layout)
    tiny.randomise(made)
    return made


@pytest.fixture(params=STORAGES)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    save_checkpoint(tmp_path / "c", module(), INFO, storage=request.param)
    return tmp_path / "c"


def state(folder: Path) -> dict[str, Tensor]:
    return load((folder / CHECKPOINT_WEIGHTS).read_bytes())


def test_float32_comes_back_exactly(tmp_path: Path) -> None:
    saved = module()
    save_checkpoint(tmp_path / "c", saved, INFO)
    found = read_generator(tmp_path / "c")
    assert (found.kind, found.info) == ("text-to-lora", INFO)
    assert found.module.layout == saved.layout
    assert found.module.config == saved.config
    assert not found.module.training
    expected = saved.state_dict()
    assert list(found.module.state_dict()) == list(expected)
    assert all(torch.equal(found.module.state_dict()[k], v) for k, v in expected.items())


def test_int8_is_within_half_a_step_and_saves_itself_again(tmp_path: Path) -> None:
    saved = module()
    save_checkpoint(tmp_path / "a", saved, INFO, storage="int8")
    save_checkpoint(tmp_path / "f", saved, INFO)
    quantised = read_generator(tmp_path / "a")
    stored = state(tmp_path / "a")
    assert any(value.dtype == torch.int8 for value in stored.values())
    for key, value in saved.state_dict().items():
        error = (quantised.module.state_dict()[key] - value).abs()
        if stored[key].dtype == torch.int8:
            step = value.abs().amax(dim=1, keepdim=True) / 127
            assert (error <= 0.5001 * step).all() and error.any()
        else:
            assert not error.any()
    save_checkpoint(tmp_path / "b", quantised.module, INFO, storage="int8")
    for name in (CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    sizes = [(tmp_path / name / CHECKPOINT_WEIGHTS).stat().st_size for name in "af"]
    assert sizes[0] < 0.5 * sizes[1]


def test_a_channel_of_a_convolution_has_one_scale(tmp_path: Path) -> None:
    layout = layout_of(tiny.config("llama"), rank=2)
    saved = ICMLoRA(ICMLoRAConfig(6, latent=8, channels=(8, 96, 8)), layout)
    tiny.randomise(saved)
    save_checkpoint(tmp_path / "a", saved, INFO, storage="int8")
    found, stored = read_generator(tmp_path / "a"), state(tmp_path / "a")
    name = "encoder.layers.3.weight"  # (96, 8, 7)
    assert stored[name].dtype == torch.int8 and stored[name].shape == (96, 8, 7)
    assert stored[name + SCALE].shape == (96,)
    value = saved.state_dict()[name]
    step = value.abs().flatten(1).amax(dim=1) / 127
    error = (found.module.state_dict()[name] - value).abs().flatten(1)
    assert (error <= 0.5001 * step[:, None]).all() and error.any()
    # A scale for each row, as files were written before, is read as well.
    old = {**stored, name + SCALE: stored[name + SCALE][:, None].repeat(1, 8)}
    (tmp_path / "a" / CHECKPOINT_WEIGHTS).write_bytes(save(old, metadata={"format": "pt"}))
    again = read_generator(tmp_path / "a").module.state_dict()
    assert torch.equal(again[name], found.module.state_dict()[name])


def test_a_row_of_zeros_survives_int8(tmp_path: Path) -> None:
    saved = module()
    for head in saved.heads.values():
        torch.nn.init.zeros_(head.get_parameter("linear.weight"))
    save_checkpoint(tmp_path / "c", saved, INFO, storage="int8")
    for head in read_generator(tmp_path / "c").module.heads.values():
        assert not head.get_parameter("linear.weight").any()


def test_the_digest_is_of_the_content_alone(folder: Path, tmp_path: Path) -> None:
    first = read_generator(folder).digest
    assert first == read_generator(folder).digest
    content = [(folder / name).read_bytes() for name in (CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS)]
    assert first == digest(b"".join(content))
    shutil.copytree(folder, tmp_path / "copy")
    assert read_generator(tmp_path / "copy").digest == first
    changed = {key: value.clone() for key, value in state(folder).items()}
    changed["trunk.block1.1.bias"][0] += 1
    (folder / CHECKPOINT_WEIGHTS).write_bytes(save(changed, metadata={"format": "pt"}))
    assert read_generator(folder).digest != first


def test_saving_does_not_overwrite_unasked(folder: Path) -> None:
    with pytest.raises(OutputExists):
        save_checkpoint(folder, module(), INFO)
    save_checkpoint(folder, module(), INFO, overwrite=True)


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
BIAS = "trunk.block1.1.bias"
HEAD = "heads.q_proj_32x32.linear.weight"
WEIGHT_DAMAGE: dict[str, Change] = {
    "missing": lambda s: {k: v for k, v in s.items() if k != BIAS},
    "extra": lambda s: {**s, "more": torch.zeros(2)},
    "extra scale": lambda s: {**s, "more.row_scale": torch.zeros(2)},
    "shape": lambda s: {**s, BIAS: s[BIAS][:-1].clone()},
    "head shape": lambda s: {**s, HEAD: s[HEAD][:-1].clone()},
    "transposed": lambda s: {**s, HEAD: s[HEAD].T.contiguous()},
    "type": lambda s: {**s, BIAS: s[BIAS].double()},
    "integers": lambda s: {**s, BIAS: s[BIAS].to(torch.int8)},
    "nan": lambda s: {**s, BIAS: s[BIAS] * float("nan")},
    "infinite": lambda s: {**s, BIAS: s[BIAS] + float("inf")},
    "scale of one number": lambda s: {**s, HEAD + ".row_scale": torch.ones(1)},
    "nan as scale": lambda s: {**s, HEAD + ".row_scale": torch.nan * torch.ones(len(s[HEAD]))},
    "nothing": lambda s: {},
}


@pytest.mark.parametrize("case", WEIGHT_DAMAGE)
def test_weights_that_do_not_fit_exactly_are_refused(folder: Path, case: str) -> None:
    damaged = WEIGHT_DAMAGE[case](state(folder))
    (folder / CHECKPOINT_WEIGHTS).write_bytes(save(damaged, metadata={"format": "pt"}))
    with pytest.raises(CheckpointError, match=str(folder)):
        read_generator(folder)


CONFIG_DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "foreign": lambda c: {"model_type": "llama"},
    "list": lambda c: [c],
    "text": lambda c: "config",
    "null": lambda c: None,
    "format": lambda c: {**c, "format": 1},
    "unknown kind": lambda c: {**c, "kind": "gan"},
    "kind of another": lambda c: {**c, "kind": "weight-encoder"},
    "no storage": lambda c: {k: v for k, v in c.items() if k != "storage"},
    "unknown storage": lambda c: {**c, "storage": "int4"},
    "no tasks": lambda c: {k: v for k, v in c.items() if k != "tasks"},
    "unknown architecture": lambda c: {**c, "architecture": {**c["architecture"], "heads": 2}},
    "another architecture": lambda c: {**c, "architecture": {**c["architecture"], "latent": 20}},
    "odd architecture": lambda c: {**c, "architecture": {**c["architecture"], "latent": 18}},
    "words for numbers": lambda c: {**c, "architecture": {**c["architecture"], "head_in": "96"}},
    "negative": lambda c: {**c, "architecture": {**c["architecture"], "head_in": -96}},
    "layout digest": lambda c: {**c, "layout_digest": "0" * 64},
    "layout": lambda c: {**c, "layout": {**c["layout"], "depth": 3}},
    "layout rows": lambda c: {**c, "layout": {**c["layout"], "sites": [[1, 2, 3]]}},
    "empty layout": lambda c: {**c, "layout": {**c["layout"], "sites": []}},
    "no layout": lambda c: {**c, "layout": None},
}


@pytest.mark.parametrize("case", CONFIG_DAMAGE)
def test_a_config_of_something_else_is_refused(folder: Path, case: str) -> None:
    config = json.loads((folder / CHECKPOINT_CONFIG).read_text())
    (folder / CHECKPOINT_CONFIG).write_text(json.dumps(CONFIG_DAMAGE[case](config)))
    with pytest.raises(CheckpointError, match=str(folder)):
        read_generator(folder)


@pytest.mark.parametrize("name", [CHECKPOINT_CONFIG, CHECKPOINT_WEIGHTS])
def test_damaged_files_are_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for damaged in (content[:-20], content[: len(content) // 2], b"", b"\xff" * 100):
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(folder)):
            read_generator(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=str(folder)):
        read_generator(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPath, match="nowhere"):
        read_generator(tmp_path / "nowhere")


LOAD_ALONE = """
import sys
for name in ("transformers", "sentence_transformers", "lightning", "peft"):
    sys.modules[name] = None
from pathlib import Path
from generator.engine import read_generator
print(read_generator(Path(sys.argv[1])).digest)
"""


def test_loading_needs_neither_base_nor_encoder(small_checkpoint: Path) -> None:
    process = tiny.start_python(LOAD_ALONE, str(small_checkpoint))
    assert tiny.output_of(process).strip() == read_generator(small_checkpoint).digest


def test_the_shipped_checkpoint_is_for_the_packaged_base() -> None:
    found = read_generator(pretrained.folder("text-to-lora"))
    targets = list(dict.fromkeys(site.module_type for site in found.module.layout.sites))
    base = resolve_base()
    assert found.module.layout == layout_of(
        load_config(base), targets, rank=found.module.layout.rank
    )
    assert found.info.base["id"] == base.name
    assert found.info.base["sha256"] == identity(base)[0]
    assert found.info.tasks == sorted(set(found.info.tasks))
