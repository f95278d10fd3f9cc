"""Distances to a library: those of the dense matrices, at any rank and in any order of modules."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import pretrained
from library.adapter import Adapter, zeros
from library.errors import MissingPath, UsageError
from library.layout import layout_of
from verification.scores.neighbours import (
    check_neighbours,
    distances,
    e_diem,
    gather,
    read_neighbours,
)

SEEDS = st.integers(0, 10_000)
LAYOUT = layout_of(tiny.config("llama"), rank=3)


def library(n: int = 6, seed: int = 0) -> Adapter:
    return tiny.adapter(LAYOUT, n, seed=seed)


@given(SEEDS, st.integers(1, 4))
def test_products_and_distances_are_those_of_dense_matrices(seed: int, rank: int) -> None:
    one = tiny.adapter(LAYOUT.with_rank(rank), 2, seed=seed, dtype=torch.float64)
    others = tiny.adapter(LAYOUT, 3, seed=seed + 1, dtype=torch.float64)
    products, found = one.inner_products(others), distances(one, others)
    for i in range(2):
        for j in range(3):
            ours, theirs = tiny.deltas(one, i), tiny.deltas(others, j)
            dense = torch.stack([(ours[k] * theirs[k]).sum() for k in ours])
            apart = torch.stack([(ours[k] - theirs[k]).norm() for k in ours])
            torch.testing.assert_close(products[i, j], dense)
            torch.testing.assert_close(found.by_module[i, j], apart)
            sizes = [torch.stack([d.norm() for d in x.values()]).norm() for x in (ours, theirs)]
            torch.testing.assert_close(found.cosine[i, j], dense.sum() / (sizes[0] * sizes[1]))
            torch.testing.assert_close(found.relative[i, j], apart.norm() / sizes[0])


def test_a_copy_is_at_distance_zero_and_zero_is_near_nobody() -> None:
    adapters = library()
    found = distances(adapters[[2]], adapters)
    assert found.cosine[0].argmax() == 2 and found.relative[0, 2] < 1e-6
    none = distances(zeros(LAYOUT), adapters)
    assert not none.cosine.any() and none.relative.isfinite().all()


@given(SEEDS)
def test_the_order_of_modules_does_not_matter(seed: int) -> None:
    one, others = library(1, seed), library(3, seed + 1)
    turned = replace(LAYOUT, sites=LAYOUT.sites[::-1])
    mirrored = Adapter(
        turned,
        {key: a.flip(1) for key, a in others.A.items()},
        {key: b.flip(1) for key, b in others.B.items()},
    )
    torch.testing.assert_close(one.inner_products(mirrored), one.inner_products(others))


def test_e_diem_is_zero_on_average_over_the_reference() -> None:
    adapters = library(8)
    found = gather("eight", tuple("abcdefgh"), tuple("abcdefgh"), adapters)
    by_module = distances(adapters, adapters).by_module
    pairs = by_module[~torch.eye(8, dtype=torch.bool)]
    scores = e_diem(pairs, found.mean, found.spread)
    torch.testing.assert_close(scores.mean(dim=0), torch.zeros(len(LAYOUT.sites)).double())
    torch.testing.assert_close(scores.std(dim=0), torch.ones(len(LAYOUT.sites)).double())
    assert len(found.nearest) == 8 and (found.nearest.diff() >= 0).all()


def test_findings_name_the_nearest_and_tell_a_copy() -> None:
    adapters = library(5)
    near = gather("a library of 5", tuple("abcde"), tuple("vwxyz"), adapters)
    copy = check_neighbours(adapters[[3]], near)
    assert [finding.code for finding in copy] == ["neighbours-copy", "neighbours-e-diem"]
    assert copy[0].evidence["nearest"][0]["task"] == "y"
    cosines = [item["cosine"] for item in copy[0].evidence["nearest"]]
    assert len(cosines) == 5 and cosines == sorted(cosines, reverse=True)
    stored = adapters[[3]].to(dtype=torch.bfloat16).to(dtype=torch.float32)
    assert check_neighbours(stored, near)[0].code == "neighbours-copy"
    other = check_neighbours(library(1, seed=9), near)
    assert other[0].code == "neighbours-nearest" and "a library of 5" in other[0].message
    broken = library(1)
    broken.A[LAYOUT.groups[0].key][0, 0, 0, 0] = float("nan")
    assert [f.code for f in check_neighbours(broken, near)] == ["neighbours-not-comparable"]
    strange = tiny.adapter(layout_of(tiny.config("llama"), ["k_proj"], rank=2))
    assert [f.code for f in check_neighbours(strange, near)] == ["neighbours-not-comparable"]
    assert {f.severity for f in (*copy, *other)} == {"info"}


def test_a_library_that_is_not_there_or_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pair is too small"):
        gather("a pair", ("a", "b"), ("v", "w"), library(2))
    with pytest.raises(MissingPath, match="there is no library"):
        read_neighbours(str(tmp_path / "none"))


@pytest.mark.slow
def test_an_adapter_of_the_shipped_library_finds_itself() -> None:
    near = read_neighbours(str(Path(pretrained.__file__).parent / "library"))
    found = check_neighbours(near.adapters[[4]], near)
    assert found[0].code == "neighbours-copy"
    assert found[0].evidence["nearest"][0]["id"] == near.ids[4]
    assert near.nearest.max() < 0.9
