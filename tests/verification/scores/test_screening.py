"""Screening: spectra of ΔW alone, scores fitted as they say, findings that say where they hold."""

import dataclasses
import functools
import math
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.quality.screening_fits import QUANTILES, bank_json, fit_linear, fit_profile
from library.adapter import Adapter, zeros
from library.calibration import read_calibration
from library.errors import CheckpointError
from library.layout import Layout, layout_of
from library.peft.read import shape_of
from verification.checks.screening_bank import Bank, shipped_bank
from verification.checks.spectrum import (
    FLOOR,
    log_profile,
    log_spectrum,
    singular_values,
    statistics,
)
from verification.hook import Finding
from verification.scores.screening import (
    Linear,
    check_spectra,
    known_kind,
    profile,
)

close = torch.testing.assert_close
SEEDS = st.integers(0, 10_000)
RANK = 3
BASE = "0" * 64
OWN = ("oracle:lora", BASE)  # what an adapter's provenance says where the bank holds


def layout(ranks: tuple[int, ...] = (RANK,)) -> Layout:
    return tiny.with_ranks(layout_of(tiny.config("llama"), rank=RANK), list(ranks))


def regauged(adapter: Adapter, seed: int) -> Adapter:
    """The same ΔW in other factors: A becomes G⁻¹A and B becomes BG."""
    generator = torch.Generator().manual_seed(seed)
    a, b = {}, {}
    for group in adapter.layout.groups:
        shape = (len(adapter), len(group.sites), group.rank, group.rank)
        q, _ = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
        g = q * torch.rand((*shape[:-2], 1, group.rank), generator=generator).double().add(0.2)
        a[group.key] = torch.linalg.solve(g, adapter.A[group.key].double())
        b[group.key] = adapter.B[group.key].double() @ g
    return Adapter(adapter.layout, a, b)


def population(n: int, seed: int, decay: float = 1.0) -> Tensor:
    """Spectra of random adapters; `decay` below 1 makes the tail of the first module thinner."""
    values = singular_values(tiny.adapter(layout(), n, seed=seed), RANK)
    values[:, 0, 1:] *= decay
    return values


@functools.cache
def bank(seed: int = 0) -> Bank:
    """A bank of random adapters: clean ones, and ones with a thin tail in the first module."""
    clean, planted = population(80, seed), population(40, seed + 1, decay=0.2)
    linear, norms = fit_linear(clean, planted), fit_profile(clean)
    cuts = torch.tensor([0.005, 0.5, 0.995], dtype=torch.float64)
    found = statistics(clean)
    return Bank(
        name="80 random adapters",
        recipe="oracle:lora",
        base_sha256=BASE,
        modules=tuple(map(shape_of, layout().sites)),
        rank=RANK,
        clean=80,
        poisoned=40,
        tasks=("a", "b"),
        poison="a thin tail",
        bias=linear.bias,
        centre=linear.centre,
        spread=linear.spread,
        weight=linear.weight,
        known_scores=linear(population(400, seed + 2)).quantile(QUANTILES),
        profile_centre=norms.centre,
        profile_spread=norms.spread,
        outlier_scores=norms(population(400, seed + 3)).quantile(QUANTILES),
        limits={
            name: getattr(found, name).quantile(cuts, dim=0)
            for name in ("norm", "stable_rank", "entropy")
        },
    )


@given(SEEDS, st.integers(1, 5))
def test_singular_values_are_those_of_the_dense_product(seed: int, kept: int) -> None:
    adapter = tiny.adapter(layout((1, 3, 2)), 2, seed=seed, dtype=torch.float64)
    found = singular_values(adapter, kept)
    for row in range(2):
        for place, delta in enumerate(tiny.deltas(adapter, row).values()):
            dense = torch.linalg.svdvals(delta)[:kept]
            close(found[row, place, : len(dense)], dense, rtol=1e-9, atol=1e-12)


@given(SEEDS)
def test_spectra_and_scores_do_not_depend_on_the_factors(seed: int) -> None:
    adapter = tiny.adapter(layout(), 2, seed=seed, dtype=torch.float64)
    one, other = (singular_values(x, RANK) for x in (adapter, regauged(adapter, seed)))
    close(one, other, rtol=1e-9, atol=1e-12)
    for score in (known_kind(bank()), profile(bank())):
        close(score(one), score(other), rtol=1e-6, atol=1e-6)


def test_a_row_of_a_batch_is_what_it_is_alone_and_padding_counts_for_nothing() -> None:
    adapter = tiny.adapter(layout((1, 3, 2)), 4, seed=3)
    whole = singular_values(adapter, RANK)
    alone = singular_values(adapter[[2]], RANK)
    close(whole[[2]], alone, rtol=1e-12, atol=1e-12)
    padded = singular_values(adapter.with_rank(6), 6)
    close(padded[..., :RANK], whole, rtol=1e-5, atol=1e-7)
    assert padded[..., RANK:].abs().max() < 1e-6


@given(SEEDS, st.floats(1e-3, 1e3))
def test_scores_are_blind_to_strength(seed: int, strength: float) -> None:
    values = population(3, seed)
    close(log_spectrum(values * strength), log_spectrum(values))
    close(log_profile(values * strength), log_profile(values))


@given(SEEDS)
def test_statistics_stay_in_their_bounds(seed: int) -> None:
    adapter = tiny.adapter(layout(), 2, seed=seed, dtype=torch.float64)
    found = statistics(singular_values(adapter, RANK))
    assert (found.stable_rank >= 1).all() and (found.stable_rank <= RANK).all()
    assert (found.entropy >= 0).all()
    assert (found.entropy <= torch.tensor(RANK).double().log() + 1e-9).all()
    for place, delta in enumerate(tiny.deltas(adapter).values()):
        close(found.norm[0, place], delta.norm())


def test_statistics_of_rank_one_and_of_zero() -> None:
    one = statistics(torch.tensor([[[2.0, 0.0, 0.0]]], dtype=torch.float64))
    assert (one.norm.item(), one.stable_rank.item(), one.entropy.item()) == (2, 1, 0)
    none = statistics(singular_values(zeros(layout()), RANK))
    assert not any(getattr(none, f.name).any() for f in dataclasses.fields(none))
    assert log_spectrum(singular_values(zeros(layout()), RANK)).isfinite().all()
    assert FLOOR > 0


def loss(score: Linear, clean: Tensor, planted: Tensor, ridge: float) -> Tensor:
    """What `fit_linear` promises to minimise, written out."""
    n, terms = len(clean) + len(planted), []
    for values, sign in ((clean, 1.0), (planted, -1.0)):
        terms.append(torch.nn.functional.softplus(sign * score(values)).mean() * n / 2)
    return terms[0] + terms[1] + ridge / 2 * score.weight.square().sum()


def test_the_known_kind_score_minimises_its_loss_and_separates() -> None:
    clean, planted = population(60, 0), population(30, 1, decay=0.3)
    score = fit_linear(clean, planted, ridge=5.0)
    weight = score.weight.clone().requires_grad_()
    loss(dataclasses.replace(score, weight=weight), clean, planted, 5.0).backward()
    assert weight.grad is not None and weight.grad.abs().max() < 1e-5
    held_out = score(population(50, 2)), score(population(50, 3, decay=0.3))
    assert (held_out[1][:, None] > held_out[0][None]).double().mean() > 0.9
    mixed = fit_linear(clean.flip(0), planted.flip(0), ridge=5.0)
    close(mixed.weight, score.weight, rtol=1e-6, atol=1e-9)


def test_the_outlier_score_sees_one_scaled_module() -> None:
    found = fit_profile(population(200, 0))
    values = population(1, 1)
    before = found(values)
    values[0, 1] *= 30
    assert found(values) > 5 * before
    assert found.deviations(values)[0].argmax() == 1


def test_a_bank_comes_back_from_its_file_and_damage_is_named(tmp_path: Path) -> None:
    file, text = tmp_path / "bank.json", bank_json(bank())
    file.write_text(text)
    again = read_calibration(file, Bank.from_dict)
    assert bank_json(again) == text
    values = population(5, 9)
    close(known_kind(again)(values), known_kind(bank())(values), rtol=1e-3, atol=1e-3)
    for damaged in ("{}", "[]", text.replace('"weight"', '"height"'), text[:-40]):
        file.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"bank\.json"):
            read_calibration(file, Bank.from_dict)


def codes(findings: list[Finding]) -> list[str]:
    assert all(finding.severity != "refuse" for finding in findings)
    for finding in findings:
        assert "random adapters" in finding.message or "applicable" in finding.code
    return [finding.code for finding in findings]


def test_findings_warn_within_the_recipe_and_only_there() -> None:
    reference = bank()
    adapter = tiny.adapter(layout(), seed=77)
    assert codes(check_spectra(adapter, reference, *OWN))[0] == "screening-quiet"
    loud = {key: b.clone() for key, b in adapter.B.items()}
    group = adapter.layout.groups[1]
    loud[group.key][0, 0] *= 200
    scaled = dataclasses.replace(adapter, B=loud)
    found = check_spectra(scaled, reference, *OWN)
    assert "screening-outlier" in codes(found)
    flagged = next(f for f in found if f.code == "screening-outlier")
    assert flagged.evidence["outlier"]["module"] == group.sites[0].name
    assert flagged.severity == "warn"
    for recipe, base in (("oracle:lora-fa", BASE), (None, None), ("oracle:lora", "1")):
        found = check_spectra(scaled, reference, recipe, base)
        assert codes(found)[0] == "screening-uncalibrated"
        assert {finding.severity for finding in found} == {"info"}


def around(score: float) -> Tensor:
    """Quantiles of a calibration set whose 95th is exactly a score."""
    return torch.arange(-95, 6).double() + score


def test_a_score_warns_above_its_threshold_and_not_at_it() -> None:
    reference, adapter = bank(), tiny.adapter(layout(), seed=77)
    values = reference.in_order(adapter.layout, singular_values(adapter, RANK))
    known, outlier = float(known_kind(reference)(values)), float(profile(reference)(values))
    scores = {"known_scores": known, "outlier_scores": outlier}
    exact = {name: around(score) for name, score in scores.items()}
    (quiet,) = check_spectra(adapter, dataclasses.replace(reference, **exact), *OWN)
    assert (quiet.code, quiet.severity) == ("screening-quiet", "info")
    worst = int(profile(reference).deviations(values)[0].argmax())
    assert quiet.evidence == {
        "known_kind": {"score": known, "threshold": known, "clean_below": 0.95},
        "outlier": {
            "score": outlier, "threshold": outlier, "clean_below": 0.95,
            "module": reference.modules[worst][0],
        },
        "poison": "a thin tail",
    }  # fmt: skip
    below = {name: around(math.nextafter(score, -math.inf)) for name, score in scores.items()}
    for name, code in (
        ("known_scores", "screening-known-kind"), ("outlier_scores", "screening-outlier"),
    ):  # fmt: skip
        lower = dataclasses.replace(reference, **{**exact, name: below[name]})
        (warning,) = check_spectra(adapter, lower, *OWN)
        assert (warning.code, warning.severity) == (code, "warn")
    both = check_spectra(adapter, dataclasses.replace(reference, **below), *OWN)
    assert codes(both) == ["screening-known-kind", "screening-outlier"]
    undefined = dataclasses.replace(reference, **exact, bias=math.nan)
    assert codes(check_spectra(adapter, undefined, *OWN)) == ["screening-known-kind"]


def test_scores_are_what_they_are_said_to_be() -> None:
    values = population(6, 4)
    x = log_spectrum(values)
    linear = Linear(
        0.5, x[0], torch.full_like(x[0], 2.0), torch.linspace(-1, 1, x.shape[1]).double()
    )
    expected = 0.5 + (linear.weight * (x - x[0]) / 2).sum(dim=1)
    close(linear(values), expected)
    assert linear(values[:1]).item() == 0.5
    norms = fit_profile(values)
    y = log_profile(values)
    close(norms.centre, y.sort(dim=0).values[2])  # the lower of the two in the middle
    quartiles = y.quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    close(norms.spread, ((quartiles[1] - quartiles[0]) / 1.349).clamp_min(1e-6))
    close(norms(values), ((y - norms.centre) / norms.spread).abs().max(dim=1).values)
    alike = fit_profile(values[:1].repeat(3, 1, 1))
    close(alike.spread, torch.full_like(alike.spread, 1e-6))


def test_what_the_bank_was_fitted_on_is_found_in_other_factors_too() -> None:
    reference = bank()
    adapter = tiny.adapter(layout(), seed=5, dtype=torch.float64)
    group = adapter.layout.groups[0]
    u, s, vh = torch.linalg.svd(tiny.deltas(adapter)[group.sites[0].name], full_matrices=False)
    s[1:] *= 0.2
    adapter.A[group.key][0, 0] = vh[:RANK]
    adapter.B[group.key][0, 0] = u[:, :RANK] * s[:RANK]
    for made in (adapter, regauged(adapter, 1), adapter.scaled(3.0)):
        assert "screening-known-kind" in codes(check_spectra(made, reference, *OWN))


def test_modules_in_another_order_are_the_same_and_other_modules_are_refused_a_score() -> None:
    reference = bank()
    adapter = tiny.adapter(layout(), seed=8)
    turned = dataclasses.replace(adapter.layout, sites=adapter.layout.sites[::-1])
    mirrored = Adapter(
        turned,
        {key: a.flip(1) for key, a in adapter.A.items()},
        {key: b.flip(1) for key, b in adapter.B.items()},
    )
    assert check_spectra(mirrored, reference, *OWN) == check_spectra(adapter, reference, *OWN)
    adapter.A[adapter.layout.groups[0].key][0, 0, 0, 0] = float("inf")
    assert codes(check_spectra(adapter, reference, *OWN)) == ["screening-not-applicable"]
    for other in (layout((2,)), layout_of(tiny.config("llama"), ["k_proj"], rank=RANK)):
        found = check_spectra(tiny.adapter(other), reference, *OWN)
        assert codes(found) == ["screening-not-applicable"]


def test_the_shipped_bank_is_small_and_of_the_default_base() -> None:
    found = shipped_bank()
    assert len(bank_json(found)) < 100_000
    assert found.recipe == "oracle:lora" and len(found.base_sha256) == 64
    assert found.clean == len(found.tasks) and found.poisoned > 0
    assert found.centre.shape == (len(found.modules) * found.rank,)
    assert (found.known_scores.diff() >= 0).all() and (found.outlier_scores.diff() >= 0).all()
