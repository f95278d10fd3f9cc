"""The weight encoder: what it must not see, what it refuses, and its checkpoint."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import pretrained
from index.encoders.weight_features import features, gram, inputs_of, readings
from index.encoders.weights import (
    WeightEncoder,
    WeightEncoderConfig,
    load_weight_encoder,
)
from library.adapter import Adapter, summed, zeros
from library.base.models import load_config, resolve_base
from library.checkpoint import CHECKPOINT_CONFIG, CheckpointInfo, save_checkpoint
from library.errors import CheckpointError, LayoutMismatch, MissingPath, UsageError
from library.layout import Layout, Site, layout_of

INFO = CheckpointInfo({"id": "b", "sha256": None, "source": "s"}, "e", ["t1"], {"steps": 3})
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def layout(targets: list[str] | None = None, rank: int = 4) -> Layout:
    return layout_of(tiny.config("llama"), targets, rank=rank)


@cache
def encoder() -> WeightEncoder:
    model = WeightEncoder(WeightEncoderConfig(12, directions=8, dimension=16), layout())
    tiny.randomise(model)
    model.get_buffer("mean").fill_(0.01)
    return model.double().eval()


def mapped(adapter: Adapter, change) -> Adapter:
    pairs = {key: change(adapter.A[key], adapter.B[key]) for key in adapter.A}
    a, b = ({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
    return Adapter(adapter.layout, a, b)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_modules_of_two_towers_read_inputs_of_their_own() -> None:
    """Though depth, type and width are the same; in a decoder, q, k and v read one vector."""
    names = [f"{tower}.layers.0.attn.{kind}_proj" for tower in ("text", "vision") for kind in "qkv"]
    towers = Layout("", 1, tuple(Site(name, 8, 8, 2) for name in names))
    assert [[s.name for s in item.sites] for item in inputs_of(towers)] == [names[:3], names[3:]]
    kinds = [[s.module_type[:-5] for s in item.sites] for item in inputs_of(layout(ALL))]
    assert kinds == 2 * [["q", "k", "v"], ["o"], ["gate", "up"], ["down"]]


@given(seed=st.integers(0, 99), rank=st.integers(1, 6))
def test_the_gauge_and_the_order_of_ranks_are_invisible(seed: int, rank: int) -> None:
    """In float32, as files hold them, and by an ill-conditioned G too."""
    adapter = tiny.adapter(layout(rank=rank), 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    u, v = (
        torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64)).Q
        for _ in range(2)
    )
    g = u @ torch.diag(torch.logspace(-1, 1, rank, dtype=torch.float64)) @ v
    turned = mapped(
        adapter,
        lambda a, b: (torch.linalg.solve(g, a.double()).float(), (b.double() @ g).float()),
    )
    order = torch.randperm(rank, generator=generator)
    shuffled = mapped(adapter, lambda a, b: (a[..., order, :], b[..., order]))
    expected = encoder().encode(adapter)
    torch.testing.assert_close(expected.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    same(encoder().encode(turned), expected)
    same(encoder().encode(shuffled), expected)


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0, 2.0], [3.0, 1.0, 1.0, 0.0], [1.0, 0, 0, 0]])
def test_repeated_and_zero_singular_values(values: list[float]) -> None:
    """Inside a block of equal singular values any basis is as good as another."""
    plain = tiny.adapter(layout(), 2)

    def with_values(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q_a, q_b = torch.linalg.qr(a.double().mT).Q, torch.linalg.qr(b.double()).Q
        return q_a.mT, q_b * torch.tensor(values, dtype=torch.float64)

    adapter = mapped(plain, with_values)
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    turned = mapped(adapter, lambda a, b: (turn.mT @ a, b @ turn))
    expected = encoder().encode(adapter)
    same(encoder().encode(turned), expected)
    same(encoder().encode(turned.to(dtype=torch.float32)), expected)
    again = adapter.with_rank(3) if values[-1] == 0 else adapter.with_rank(7)
    same(encoder().encode(again), expected)


def test_strength_and_sign_are_invisible() -> None:
    adapter = tiny.adapter(layout(), 2)
    expected = encoder().encode(adapter)
    for strength in (1e-3, -1.0, 50.0):
        same(encoder().encode(adapter.scaled(strength)), expected)


@pytest.mark.parametrize("targets", [None, ALL])
def test_features_are_those_of_the_dense_update(targets: list[str] | None) -> None:
    adapter = tiny.adapter(tiny.with_ranks(layout(targets), [4, 2, 3]), 1, dtype=torch.float64)
    deltas = tiny.deltas(adapter)
    basis = torch.randn(5, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = inputs_of(adapter.layout)
    assert len(inputs) == (2 if targets is None else 8)
    for item, reading in zip(inputs, readings(adapter, inputs), strict=True):
        grams = [deltas[site.name].mT @ deltas[site.name] for site in item.sites]
        mean = torch.stack([gram / gram.norm() for gram in grams]).mean(dim=0)
        rows = reading.rows()[0]
        torch.testing.assert_close(rows.mT @ rows, mean)
        directions = basis[:, : item.width]
        dense = directions @ mean @ directions.mT
        i, j = torch.triu_indices(5, 5)
        entries = dense[i, j] * torch.where(i == j, 1.0, 2.0**0.5)
        rooted = entries / (entries.abs() + 1e-3).sqrt()
        torch.testing.assert_close(features(gram(reading, directions))[0], rooted / rooted.norm())


def test_parts_of_adapters() -> None:
    """Fewer modules are welcome, and what is zero is the same as what is not there."""
    full = layout()
    part = replace(full, sites=tuple(s for s in full.sites if s.depth == 1))
    adapter = tiny.adapter(part, 2)
    padded = zeros(full, 2)
    for group in part.groups:
        padded.A[group.key][:, 1] = adapter.A[group.key][:, 0]
        padded.B[group.key][:, 1] = adapter.B[group.key][:, 0]
    same(encoder().encode(adapter), encoder().encode(padded))
    assert not encoder().encode(zeros(full)).any()
    other = tiny.adapter(layout(["k_proj"]), 1, seed=3)  # which the encoder does not know
    same(encoder().encode(adapter[[0]]), encoder().encode(summed(other, adapter[[0]])))
    mixed = tiny.adapter(tiny.with_ranks(full, [1, 4, 2, 3]), 2)
    same(encoder().encode(mixed.with_rank(6)), encoder().encode(mixed))


def test_one_adapter_does_not_see_its_neighbours() -> None:
    adapter = tiny.adapter(layout(), 5)
    together = encoder().encode(adapter)
    for i in range(5):
        torch.testing.assert_close(encoder().encode(adapter[[i]])[0], together[i])


def test_other_modules_and_shapes_are_refused() -> None:
    with pytest.raises(LayoutMismatch, match=r"none of the 4 modules .*\(q_proj, v_proj\)"):
        encoder().encode(tiny.adapter(layout(["k_proj"])))
    wide = layout_of(tiny.config("llama", hidden_size=64))
    with pytest.raises(LayoutMismatch, match="64x32"):
        encoder().encode(tiny.adapter(wide))
    for wrong in ({"directions": 33}, {"dimension": 0}, {"embedding": -1}):
        with pytest.raises(UsageError):
            WeightEncoder(WeightEncoderConfig(**wrong), layout())


def test_the_checkpoint_comes_back(tmp_path: Path) -> None:
    saved, adapter = encoder(), tiny.adapter(layout(), 3)
    texts = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    for storage, error in (("float32", 1e-6), ("int8", 0.03)):
        save_checkpoint(tmp_path / storage, saved, INFO, storage=storage)
        loaded = load_weight_encoder(tmp_path / storage)
        assert (loaded.info, loaded.layout, loaded.config) == (INFO, saved.layout, saved.config)
        assert len(loaded.digest) == 64
        assert loaded.encode(adapter).dtype == torch.float64
        for actual, expected in (
            (loaded.encode(adapter), saved.encode(adapter)),
            (loaded.describe(texts), saved.describe(texts)),
        ):
            torch.testing.assert_close(actual, expected, atol=error, rtol=0)


def test_checkpoints_of_something_else_are_refused(tmp_path: Path, small_checkpoint: Path) -> None:
    with pytest.raises(MissingPath, match="nowhere"):
        load_weight_encoder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=str(small_checkpoint)):
        load_weight_encoder(small_checkpoint)
    folder = tmp_path / "c"
    save_checkpoint(folder, encoder(), INFO)
    config = json.loads((folder / CHECKPOINT_CONFIG).read_text())
    for damage in ({"format": 9}, {"layout_digest": "0"}, {"architecture": {"directions": 9}}):
        (folder / CHECKPOINT_CONFIG).write_text(json.dumps({**config, **damage}))
        with pytest.raises(CheckpointError, match=str(folder)):
            load_weight_encoder(folder)


def test_the_shipped_encoder_is_for_the_packaged_base() -> None:
    shipped, base = load_weight_encoder(), resolve_base()
    assert shipped.layout == layout_of(load_config(base), rank=shipped.layout.rank)
    assert shipped.info.base["id"] == base.name
    data = shipped.info.training["data"]
    assert not set(shipped.info.tasks) & set(data["set_aside"])
    assert data["excluded_license_classes"] == ["restricted"]
    assert (
        sum(file.stat().st_size for file in pretrained.folder("weight-encoder").iterdir()) < 1.4e6
    )
