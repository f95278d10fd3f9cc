"""Adapter folders, with PEFT as the oracle: what it reads is what we meant, and the reverse."""

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from library.adapter import Adapter
from library.base.multi_adapter import adapted
from library.canonical import digest
from library.errors import AdapterFileError, LayoutMismatch, MissingPath
from library.files import write_folder
from library.layout import Layout, layout_of
from library.peft.folder import MAX_JSON, UnreadableFile, read_adapter_folder
from library.peft.provenance import Provenance, adapter_id, finish
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, Profile, to_peft

FAMILIES = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "gate_proj"],
    "gemma": ["q_proj", "o_proj", "up_proj"],
    "gpt2": ["c_attn", "c_fc", "c_proj"],
}
IDS = tiny.tokens(3, 9)


def write(folder: Path, adapter: Adapter, profile: Profile = "portable") -> Path:
    files = to_peft(adapter, base_name="owner/base", profile=profile)
    write_folder(folder, {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights})
    return folder


def parts(layout: Layout) -> dict[str, Layout]:
    """A whole layout and what may be left of it."""
    return {
        "whole": layout,
        "ranks": tiny.with_ranks(layout, [2, 5, 1, 4]),
        "one layer": replace(layout, sites=tuple(s for s in layout.sites if s.depth == 1)),
        "scattered": replace(tiny.with_ranks(layout, [3, 1]), sites=layout.sites[1:4:2]),
    }


def our_logits(model: Any, adapter: Adapter) -> Tensor:
    rows = torch.zeros(len(IDS), dtype=torch.long)
    with torch.no_grad(), adapted(model, adapter, rows):
        return model(input_ids=IDS).logits


def peft_model(model: Any, folder: Path) -> Any:
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_what_our_forward_computes(family: str, tmp_path: Path) -> None:
    config = tiny.config(family)
    model = tiny.model(config)
    with torch.no_grad():
        bare = model(input_ids=IDS).logits
    full = layout_of(config, FAMILIES[family], rank=3)
    profiles: tuple[Profile, ...] = ("portable", "lossless")
    for name, layout in parts(full).items():
        for profile in profiles:
            folder = write(tmp_path / name / profile, tiny.adapter(layout), profile)
            theirs = peft_model(model, folder)
            with torch.no_grad():
                expected = theirs(input_ids=IDS).logits
            ours = our_logits(model, read_peft(folder))  # the weights as stored
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
            assert (expected - bare).abs().max() > 0.1
            # Every stored tensor is in use, and nothing but the stored tensors.
            held = {k: v for k, v in theirs.state_dict().items() if ".lora_" in k}
            held = {k.replace(".default.weight", ".weight"): v for k, v in held.items()}
            stored = load_file(folder / WEIGHTS_FILE)
            assert set(held) == set(stored)
            assert all(torch.equal(held[key], value.float()) for key, value in stored.items())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_reading_returns_what_was_written(family: str, tmp_path: Path) -> None:
    full = layout_of(tiny.config(family), FAMILIES[family], rank=3)
    for name, layout in parts(full).items():
        made = tiny.adapter(layout)
        exact = read_peft(write(tmp_path / name / "l", made, "lossless"), layout)
        assert exact.layout == layout
        assert all(torch.equal(exact.A[key], made.A[key]) for key in made.A)
        assert all(torch.equal(exact.B[key], made.B[key]) for key in made.B)
        rounded = read_peft(write(tmp_path / name / "p", made, "portable"), layout)
        assert {site.rank for site in rounded.layout.sites} == {layout.rank}
        for site, other in zip(layout.sites, rounded.layout.sites, strict=True):
            kept_a, kept_b = (f[0].bfloat16().float() for f in made.site(site))
            a, b = (factor[0] for factor in rounded.site(other))
            assert torch.equal(a[: site.rank], kept_a)
            assert torch.equal(b[:, : site.rank], kept_b)
            assert not a[site.rank :].any() and not b[:, site.rank :].any()
        if name != "scattered":  # a file alone tells all but the family and the model's order
            alone = read_peft(tmp_path / name / "l")
            assert set(alone.layout.sites) == set(layout.sites)
            for key, delta in tiny.deltas(alone).items():
                assert torch.equal(delta, tiny.deltas(made)[key])


def test_the_portable_profile_is_what_every_server_reads(tmp_path: Path) -> None:
    layout = tiny.with_ranks(layout_of(tiny.config("gpt2"), FAMILIES["gpt2"]), [8, 2])
    folder = write(tmp_path / "a", tiny.adapter(layout))
    text = (folder / CONFIG_FILE).read_text()
    config = json.loads(text)
    assert list(config) == sorted(config)
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    assert (config["r"], config["lora_alpha"]) == (8, 8)
    assert isinstance(config["lora_alpha"], int)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["fan_in_fan_out"] is True
    assert (config["bias"], config["use_rslora"], config["use_dora"]) == ("none", False, False)
    assert config["base_model_name_or_path"] == "owner/base"
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert f"base_model.model.{layout.sites[0].name}.lora_A.weight" in names
    assert len(names) == 2 * len(layout.sites)


@pytest.mark.parametrize("profile", ["portable", "lossless"])
def test_the_weights_are_what_safetensors_writes(profile: Profile) -> None:
    full = layout_of(tiny.config("llama"), FAMILIES["llama"], rank=3)
    dtype = torch.bfloat16 if profile == "portable" else torch.float32
    for layout in parts(full).values():
        made = tiny.adapter(layout)
        for adapter in (made, made.scaled(2.0), made.to(dtype=torch.float64).detached()):
            held = adapter.with_rank(layout.rank) if profile == "portable" else adapter
            tensors = {
                f"base_model.model.{site.name}.lora_{side}.weight": factor[0].to(dtype).contiguous()
                for site in held.layout.sites
                for side, factor in zip("AB", held.site(site), strict=True)
            }
            expected = save(tensors, metadata={"format": "pt"})
            assert to_peft(adapter, base_name="base", profile=profile).weights == expected


def test_several_adapters_do_not_fit_in_one_folder() -> None:
    with pytest.raises(ValueError, match="not 2"):
        to_peft(tiny.adapter(layout_of(tiny.config("llama")), 2), base_name="b")


SAVED: dict[str, dict[str, Any]] = {
    "alpha": {"r": 4, "lora_alpha": 6},
    "fractional alpha": {"r": 4, "lora_alpha": 1.5},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 3},
        "alpha_pattern": {r"layers\.0\.self_attn\.v_proj": 7, "q_proj": 5},
    },
    "patterns and rslora": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "rank_pattern": {r"^model\.layers\.0\.self_attn\.q_proj": 2},
        "alpha_pattern": {"down_proj": 9},
    },
    "layers": {"r": 2, "lora_alpha": 3, "layers_to_transform": [1]},
    "layers by pattern": {"r": 2, "layers_to_transform": 0, "layers_pattern": "layers"},
    "expression": {"r": 2, "target_modules": r".*\.(q_proj|down_proj)"},
    "all but some": {"r": 2, "exclude_modules": ["layers.0.self_attn.v_proj"]},
}


@pytest.mark.parametrize("case", SAVED)
def test_what_peft_saves_is_read_at_its_strength(case: str, tmp_path: Path) -> None:
    config = tiny.config("llama")
    model = tiny.model(config)
    settings = {"target_modules": FAMILIES["llama"], **SAVED[case]}
    torch.manual_seed(0)
    theirs: Any = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings)).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():  # in float64, where the order of sums does not matter
        expected = theirs.double()(input_ids=IDS).logits
    ours = our_logits(model.double(), read_peft(tmp_path))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter to damage."""
    layout = layout_of(tiny.config("llama"), rank=2)
    return write(tmp_path / "a", tiny.adapter(layout))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, **changes}))


REFUSED: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "another method": {"peft_type": "IA3"},
    "a rank that is not the file's": {"r": 3},
    "a rank pattern that is not the file's": {"rank_pattern": {"q_proj": 1}},
    "untargeted tensors": {"target_modules": ["q_proj"]},
    "layers that are not the file's": {"layers_to_transform": [0]},
    "an expression that misses tensors": {"target_modules": r".*\.q_proj"},
    "excluded tensors": {"exclude_modules": ["v_proj"]},
    "a start that edits the base": {"init_lora_weights": "pissa_niter_4"},
    "alpha that is no number": {"lora_alpha": "high"},
    "no rank": {"r": None},
    "patterns that are no object": {"rank_pattern": ["q_proj"]},
    "a pattern that is no expression": {"rank_pattern": {"(": 2}},
    "targets that are no names": {"target_modules": [3]},
    "layers that are no numbers": {"layers_to_transform": ["0", "1"]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_config_that_is_not_plain_lora_of_these_tensors_is_refused(
    case: str, folder: Path
) -> None:
    change_config(folder, **REFUSED[case])
    with pytest.raises(AdapterFileError):
        read_peft(folder)


def test_tensors_that_are_not_pairs_of_factors_are_refused(folder: Path) -> None:
    sound = load_file(folder / WEIGHTS_FILE)
    first = next(iter(sound))
    broken: list[dict[str, Tensor]] = [
        {key: value for key, value in sound.items() if key != first},
        {**sound, "base_model.model.lm_head.weight": torch.zeros(2, 2)},
        {**sound, first.replace("lora_A", "lora_magnitude_vector"): torch.zeros(2)},
        {**sound, first: sound[first][:1].clone()},
        {**sound, first: sound[first][0].clone()},
        {},
    ]
    for tensors in broken:
        save_file(tensors, folder / WEIGHTS_FILE)
        with pytest.raises(AdapterFileError):
            read_peft(folder)


def test_damaged_and_missing_files_are_refused(folder: Path) -> None:
    with pytest.raises(MissingPath):
        read_peft(folder / "nowhere")
    weights, config = (folder / WEIGHTS_FILE).read_bytes(), (folder / CONFIG_FILE).read_bytes()
    for content in (weights[:-10], weights[: len(weights) // 2], b"", b"\xff" * 64):
        (folder / WEIGHTS_FILE).write_bytes(content)
        with pytest.raises(AdapterFileError, match=WEIGHTS_FILE):
            read_peft(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterFileError, match=WEIGHTS_FILE):
        read_peft(folder)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    for content in (config[:-10], b"[]", b"\xff", b""):
        (folder / CONFIG_FILE).write_bytes(content)
        with pytest.raises(AdapterFileError, match=CONFIG_FILE):
            read_peft(folder)


def test_the_layout_of_another_base_is_a_mismatch(folder: Path) -> None:
    wide = tiny.config("llama", num_key_value_heads=4)
    flat = tiny.config("llama", num_hidden_layers=1)
    for other in (layout_of(wide), layout_of(flat), layout_of(tiny.config("gpt2"))):
        with pytest.raises(LayoutMismatch):
            read_peft(folder, other)


def test_a_part_of_a_bases_modules_is_read_in_the_bases_order(folder: Path) -> None:
    whole = read_peft(folder).layout
    deep = layout_of(tiny.config("llama", num_hidden_layers=3), whole.module_types)
    assert read_peft(folder, deep).layout == deep.with_ranks(whole.ranks)


def test_a_rank_beyond_a_modules_size_is_read(tmp_path: Path) -> None:
    settings = peft.LoraConfig(r=20, target_modules=["v_proj"])  # v_proj is 32 to 16
    model: Any = peft.get_peft_model(tiny.model(tiny.config("llama")), settings)
    model.save_pretrained(tmp_path)
    assert read_peft(tmp_path).layout.rank == 20


def test_the_files_of_a_folder_are_read_within_limits(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    with pytest.raises(MissingPath, match="adapter"):
        read_adapter_folder(folder)
    files = {CONFIG_FILE: b"{}", WEIGHTS_FILE: b"weights", "provenance.json": b"null"}
    write_folder(folder, files | {"other.txt": b""})
    assert read_adapter_folder(folder) == files
    assert read_adapter_folder(folder, optional=("absent.json",)) == {
        CONFIG_FILE: b"{}", WEIGHTS_FILE: b"weights",
    }  # fmt: skip
    (folder / "b.safetensors").write_bytes(b"others")
    assert read_adapter_folder(folder / "b.safetensors")[WEIGHTS_FILE] == b"others"
    with (folder / CONFIG_FILE).open("wb") as file:
        file.truncate(MAX_JSON + 1)
    with pytest.raises(UnreadableFile, match=f"{CONFIG_FILE} has {MAX_JSON + 1} bytes") as caught:
        read_adapter_folder(folder)
    assert (caught.value.reason, caught.value.limit) == ("too-large", MAX_JSON)
    (folder / CONFIG_FILE).unlink()
    os.mkfifo(folder / CONFIG_FILE)  # which nobody writes to: not waited for
    with pytest.raises(UnreadableFile, match="not a regular file"):
        read_adapter_folder(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (folder / name).unlink()
        with pytest.raises(AdapterFileError, match=f"there is no {name}"):
            read_adapter_folder(folder)
        (folder / name).write_bytes(b"{}")


IDENTITY: dict[str, Any] = {
    "checkpoint": "c" * 64,
    "description": "Add.",
    "examples": "e" * 64,
    "generator": "text-to-lora",
    "numerics": "cpu-f64",
    "parents": ["ad_1", "ad_2"],
    "seed": 7,
}
ELSE: dict[str, Any] = {"layout_digest": "l", "base": {"id": "b"}, "neighbours": [], "report": {}}


def test_an_id_is_the_digest_of_config_weights_and_request() -> None:
    content = {**IDENTITY, "adapter_config": {"r": 4}, "sha256": "a" * 64}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    expected = "ad_" + digest(text.encode())[:40]
    assert adapter_id({"r": 4}, "a" * 64, IDENTITY) == expected
    assert adapter_id({"r": 4}, "a" * 64, {**IDENTITY, **ELSE}) == expected
    others = [adapter_id({"r": 5}, "a" * 64, IDENTITY), adapter_id({"r": 4}, "b" * 64, IDENTITY)]
    others += [adapter_id({"r": 4}, "a" * 64, {**IDENTITY, name: None}) for name in IDENTITY]
    assert len({expected, *others}) == 3 + len(IDENTITY)
    without = {name: value for name, value in IDENTITY.items() if name != "parents"}
    assert adapter_id({"r": 4}, "a" * 64, without) == others[2 + [*IDENTITY].index("parents")]


def test_a_finished_adapter_says_what_it_is_and_what_the_check_found() -> None:
    files = to_peft(tiny.adapter(layout_of(tiny.config("llama"), rank=2)), base_name="b")
    provenance = Provenance(**IDENTITY, layout_digest="l", base={"id": "ü"}, details={"b": 1})
    seen: list[Any] = []

    def check(written: Any, content: dict[str, Any]) -> dict[str, Any]:
        seen.append((dict(written), dict(content)))
        return {"accepted": True}

    plain, checked = finish(files, provenance), finish(files, provenance, check)
    sha256 = digest(files.weights)
    identity = adapter_id(files.config, sha256, IDENTITY)
    both = {CONFIG_FILE: files.config_bytes, WEIGHTS_FILE: files.weights}
    unchecked = {**vars(provenance), "id": identity, "sha256": sha256}
    assert seen == [(both, unchecked)]
    for adapter, report in ((plain, None), (checked, {"accepted": True})):
        assert (adapter.id, adapter.sha256) == (identity, sha256)
        assert adapter.provenance == {**unchecked, "report": report}
        text = json.dumps(adapter.provenance, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        assert adapter.files == {**both, "provenance.json": text.encode()}
