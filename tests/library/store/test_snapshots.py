"""Snapshots: what a build stores is what is read, and its moments."""

from pathlib import Path

import pytest
import tiny
import torch

from library.errors import AdapterFileError, LayoutMismatch
from library.layout import layout_of
from library.store.folder import LibraryFolder
from library.store.plan import JobPlan
from library.store.records import new_record
from library.store.snapshots import read_snapshots, state_moments, write_snapshots

LAYOUT = layout_of(tiny.config("llama"), rank=2)


def record(shard: int | None, variant: int = 0) -> dict[str, object]:
    base = {"id": "b", "sha256": None}
    return new_record(
        task="t", description="d", recipe="lora", base=base, shard=shard, variant=variant
    )


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    folder, states = LibraryFolder(tmp_path), tiny.adapter(LAYOUT, 5)
    write_snapshots(folder, 3, JobPlan("t", 1), [states[[0]], states[[1, 2]], states[[3, 4]]])
    found = read_snapshots(folder, record(3, 1), LAYOUT)
    assert found is not None
    for x, y in zip(found.factors(), states.factors(), strict=True):
        assert torch.equal(x, y)
    for other in (record(3), record(2, 1), record(None)):
        assert read_snapshots(folder, other, LAYOUT) is None
    with pytest.raises(LayoutMismatch):
        read_snapshots(folder, record(3, 1), LAYOUT.with_rank(3))
    (file,) = (tmp_path / "snapshots" / "0003").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(AdapterFileError, match="is damaged"):
        read_snapshots(folder, record(3, 1), LAYOUT)


def test_moments_of_states_and_of_an_adapter_without_any() -> None:
    adapter, states = tiny.adapter(LAYOUT), tiny.adapter(LAYOUT, 6, seed=1)
    mean, variance = state_moments(adapter, states)
    for x, mu, sigma2 in zip(states.factors(), mean.factors(), variance.factors(), strict=True):
        torch.testing.assert_close(mu[0], sum(x) / 6)
        torch.testing.assert_close(sigma2[0], sum((x - mu) ** 2) / 6)
    mean, variance = state_moments(adapter, None)
    assert mean is adapter and len(variance) == 1
    assert not any(factor.any() for factor in variance.factors())
    one, zero = state_moments(adapter, states[[2]])
    assert torch.equal(one.factors()[0], states[[2]].factors()[0])
    assert not any(factor.any() for factor in zero.factors())
