"""Norms from a file's bytes: those of the dense ΔW, whatever dtype, rank, scale and factors."""

import json

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from library.adapter import Adapter
from library.base.models import load_config, resolve_base
from library.base.usage import BARE, Usage
from library.layout import layout_of
from library.peft.provenance import PROVENANCE_FILE
from library.peft.read import adapter_of
from library.peft.write import CONFIG_FILE, PREFIX, WEIGHTS_FILE, Profile, to_peft
from verification.artifact import Artifact, Context
from verification.checks.norms import singular_values_of
from verification.checks.screening_bank import shipped_bank
from verification.checks.spectrum import singular_values, statistics
from verification.checks.statistics import check_statistics, statistics_calibration
from verification.hook import Finding

SMALL = tiny.with_ranks(layout_of(tiny.config("llama"), ["q_proj", "v_proj"], rank=4), [4, 2, 3])
Files = dict[str, bytes]


def files_of(adapter: Adapter, profile: Profile = "portable", base: str = "owner/base") -> Files:
    made = to_peft(adapter, base_name=base, profile=profile)
    return {CONFIG_FILE: made.config_bytes, WEIGHTS_FILE: made.weights}


def said(files: Files) -> Finding:
    (finding,) = check_statistics(Artifact(files), Context())
    return finding


@given(st.integers(0, 10_000), st.sampled_from(["portable", "lossless"]))
def test_singular_values_are_those_that_peft_applies(seed: int, profile: Profile) -> None:
    files = files_of(tiny.adapter(SMALL, seed=seed), profile)
    stored = adapter_of(files)
    names, found = singular_values_of(Artifact(files))
    assert names == sorted(site.name for site in stored.layout.sites)
    for name, delta in tiny.deltas(stored).items():
        exact = torch.linalg.svdvals(delta.double())
        here = found[0, names.index(name)]
        count = min(len(here), len(exact))
        torch.testing.assert_close(here[:count], exact[:count], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rslora", [True, False])
def test_every_dtype_and_scale(dtype: torch.dtype, rslora: bool) -> None:
    files = files_of(tiny.adapter(SMALL), "lossless")
    config = json.loads(files[CONFIG_FILE]) | {"use_rslora": rslora, "alpha_pattern": {"q_proj": 7}}
    tensors = {name: tensor.to(dtype) for name, tensor in load(files[WEIGHTS_FILE]).items()}
    changed = {CONFIG_FILE: json.dumps(config).encode(), WEIGHTS_FILE: save(tensors)}
    names, found = singular_values_of(Artifact(changed))
    exact = singular_values(adapter_of(changed), found.shape[-1])
    order = [names.index(site.name) for site in adapter_of(changed).layout.sites]
    torch.testing.assert_close(found[:, order], exact, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 10_000))
def test_statistics_do_not_depend_on_the_factors(seed: int) -> None:
    files = files_of(tiny.adapter(SMALL, seed=seed), "lossless")
    tensors = {name: tensor.double() for name, tensor in load(files[WEIGHTS_FILE]).items()}
    generator = torch.Generator().manual_seed(seed)
    for site in SMALL.sites:
        mix = torch.randn(site.rank, site.rank, generator=generator, dtype=torch.float64)
        mix += 3 * torch.eye(site.rank, dtype=torch.float64)
        a, b = (f"{PREFIX}{site.name}.lora_{half}.weight" for half in "AB")
        tensors[a], tensors[b] = torch.linalg.solve(mix, tensors[a]), tensors[b] @ mix
    mixed = {**files, WEIGHTS_FILE: save({k: t.contiguous() for k, t in tensors.items()})}
    one, other = (statistics(singular_values_of(Artifact(x))[1]) for x in (files, mixed))
    for name in ("norm", "stable_rank", "entropy"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-6)


def test_an_adapter_of_nothing_warns_and_padding_counts_for_nothing() -> None:
    none = tiny.adapter(SMALL).scaled(0.0)
    assert (said(files_of(none)).code, said(files_of(none)).severity) == ("no-effect", "warn")
    adapter = tiny.adapter(SMALL)
    thin, padded = (
        statistics(singular_values_of(Artifact(files_of(x)))[1])
        for x in (adapter, adapter.with_rank(9))
    )
    torch.testing.assert_close(thin.norm, padded.norm, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(thin.entropy, padded.entropy, rtol=1e-6, atol=1e-6)


def test_other_modules_and_other_bases_are_not_compared() -> None:
    base = resolve_base()
    layout = layout_of(load_config(base), ["q_proj", "v_proj"], rank=2)
    elsewhere = files_of(tiny.adapter(layout), base="another/model")
    named = files_of(tiny.adapter(layout), base=base.name)
    for files, reason in (
        (files_of(tiny.adapter(SMALL)), "other modules"),
        (elsewhere, f"{base.name}, and the config names another/model"),
        (files_of(tiny.adapter(layout_of(load_config(base), ["k_proj"])), base=base.name), "other"),
        (on_weights(named, "0" * 64), f"other weights of {base.name}"),
    ):
        assert said(files).code == "statistics-not-comparable"
        assert (
            statistics_calibration(shipped_bank()) in said(files).message
            and reason in said(files).message
        )
    renamed = on_weights(elsewhere, shipped_bank().base_sha256)  # the digest decides, not the name
    assert said(renamed).code == said(named).code == "statistics-outside"


def on_weights(files: Files, sha256: str) -> Files:
    """With a provenance that gives the base's digest."""
    return {**files, PROVENANCE_FILE: json.dumps({"base": {"sha256": sha256}}).encode()}


def test_what_lies_outside_the_library_is_counted_and_the_library_is_named() -> None:
    """Random factors have norms far above any trained adapter's; nothing refuses for that."""
    base = resolve_base()
    layout = layout_of(load_config(base), ["q_proj", "v_proj"], rank=8)
    found = said(files_of(tiny.adapter(layout), base=base.name))
    assert (found.code, found.severity) == ("statistics-outside", "info")
    assert found.evidence["outside"]["norm"] == len(layout.sites)
    assert (
        found.evidence["calibration"] == statistics_calibration(shipped_bank())
        and statistics_calibration(shipped_bank()) in found.message
    )


def test_a_generated_or_refined_adapter_is_not_compared() -> None:
    base = resolve_base()
    layout = layout_of(load_config(base), ["q_proj", "v_proj"], rank=8)
    files = files_of(tiny.adapter(layout), base=base.name)
    for usage in (BARE, Usage.of("prompted", "Add.")):
        stated = json.dumps({"usage": usage.to_dict()}).encode()
        told = said({**files, PROVENANCE_FILE: stated})
        assert (told.code, told.severity) == ("statistics-not-comparable", "info")
        low, high = told.evidence["norm"]
        assert 0 < low <= high and "central 99 %" not in told.message
    nothing = files_of(tiny.adapter(layout).scaled(0.0), base=base.name)
    assert said({**nothing, PROVENANCE_FILE: stated}).code == "no-effect"
    for other in ({}, {"checkpoint": "c" * 64}, {"usage": None}, {"usage": "bare"}):
        stated = json.dumps(other).encode()
        assert said({**files, PROVENANCE_FILE: stated}) == said(files)
