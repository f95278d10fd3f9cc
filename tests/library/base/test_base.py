"""Base models: what a name means, and what is loaded from a folder."""

import hashlib
import json
from pathlib import Path

import pytest
import tiny
import torch

from library.base.models import (
    DEFAULT_BASE,
    BaseReference,
    base_layout,
    identity,
    load_base,
    load_config,
    resolve_base,
    same_base,
)
from library.errors import BaseModelError, MissingPath, UnknownName, UsageError
from library.layout import layout_of


def test_names_of_base_models(tmp_path: Path) -> None:
    default = resolve_base()
    assert default.packaged
    assert default.name == DEFAULT_BASE == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert resolve_base(DEFAULT_BASE) == resolve_base("SmolLM2-135M-Instruct") == default
    published = resolve_base(f"hub:{DEFAULT_BASE}")
    assert published == BaseReference(DEFAULT_BASE, DEFAULT_BASE)
    assert resolve_base("owner/model") == BaseReference("owner/model", "owner/model")
    assert resolve_base(str(tmp_path)).path == str(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(MissingPath):
        resolve_base(name)


@pytest.mark.parametrize("name", ["", " ", "model", "a b/c"])
def test_a_name_that_nothing_has(name: str) -> None:
    with pytest.raises(UnknownName):
        resolve_base(name)


def test_a_request_never_names_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    paths = ["./x", "../x", "a/b/c", "~/x", "hub:../x", "hub:.", f"hub:{tmp_path}", str(tmp_path)]
    for name in [*paths, "owner/model", "hub:owner/model"]:
        with pytest.raises(UsageError):
            resolve_base(name, allow_folder=False)


def test_a_folder_is_loaded_frozen_with_its_identity(tiny_base: Path) -> None:
    reference = resolve_base(str(tiny_base))
    base = load_base(reference)
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.tokenizer.padding_side == "left"
    weights = (tiny_base / "model.safetensors").read_bytes()
    assert (base.sha256, base.source) == (hashlib.sha256(weights).hexdigest(), "folder")
    assert identity(resolve_base("owner/model")) == (None, "hub:owner/model")
    layout = tiny.with_ranks(layout_of(load_config(reference), ["v_proj", "q_proj"]), [3, 2])
    assert base_layout(reference, layout) == layout


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    for content in (None, "{}", "{", json.dumps({"model_type": "nothing-known"})):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        for load in (load_base, load_config):
            with pytest.raises(BaseModelError, match="cannot be read"):
                load(resolve_base(str(tmp_path)))


@pytest.mark.slow
def test_the_packaged_base_is_what_its_config_says() -> None:
    base = load_base(resolve_base())
    layout = layout_of(load_config(base.reference))
    assert layout == layout_of(base.model.config)
    assert [(g.key, len(g.sites)) for g in layout.groups] == [
        ("q_proj_576x576", 30),
        ("v_proj_576x192", 30),
    ]
    assert base.sha256 == identity(base.reference)[0]
    ids = base.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likely = base.model(ids).logits[0, -1].topk(3).indices
    assert " Paris" in [base.tokenizer.decode([token]) for token in likely.tolist()]


def test_a_folder_is_one_base_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert same_base("base", str(tmp_path / "base")) and same_base("a/b", "a/b")
    assert not same_base("base", "a/b") and not same_base("base", str(tmp_path))
