"""A library as training data: targets, statistics, and experts, never of the task itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from generator.request import Query, Request
from generator.resources import Resources
from index.encoders.descriptions import DescriptionEncoder
from index.search.retriever import Retriever
from library.adapter import Adapter
from library.base.models import BaseReference
from library.errors import MissingPath
from library.store.catalogue import records
from library.store.open import open_library
from library.store.snapshots import read_snapshots, state_moments
from training.data.adapters import AdapterBatch, LibraryDataModule

CPU = torch.device("cpu")


def loaded(library: str, **options: Any) -> LibraryDataModule:
    data = LibraryDataModule(library, **options)
    data.setup("fit")
    return data


def batch_of_all(data: LibraryDataModule) -> AdapterBatch:
    return data.transfer_batch_to_device([*range(len(data.adapters))], CPU, 0)


def equal_rows(many: Adapter, one: Adapter) -> list[int]:
    """The rows of many that are one."""
    pairs = zip(many.factors(), one.factors(), strict=True)
    same = [(x == y).flatten(1).all(dim=1) for x, y in pairs]
    return torch.stack(same).all(dim=0).nonzero().flatten().tolist()


def states_by_task(library: str) -> Iterator[tuple[str, Adapter]]:
    """Everything that a library says of a task: means of snapshots, snapshots, adapters."""
    folder = open_library(library)
    layout = folder.plan().layout
    data = loaded(library, experts=0)
    for row, record in enumerate(records(folder)):
        states = read_snapshots(folder, record, layout)
        assert states is not None
        adapter = data.adapters[[row]]
        for state in (adapter, state_moments(adapter, states)[0], *(states[[i]] for i in range(3))):
            yield record["task"], state


def test_a_library_gives_targets_tasks_and_statistics(small_library: Path) -> None:
    data = loaded(str(small_library / "lib"), steps=2, experts=2)
    assert data.task_names == sorted(tiny.LIBRARY_TASKS)  # so that they count as seen
    _, spread_b = data.spread()
    for key, value in data.adapters.B.items():
        torch.testing.assert_close(spread_b[key], value.std(dim=0, correction=0))
    experts = batch_of_all(data).condition.experts
    assert experts is not None and experts.similarities.shape == (3, 2)
    for means, variances in zip(experts.means, experts.variances, strict=True):
        assert not any(factor.any() for factor in variances.factors())  # it kept no snapshots
        assert all(equal_rows(data.adapters, means[[i]]) for i in range(2))
    assert loaded(str(small_library / "lib"), experts=0)._experts([0], CPU) is None
    with pytest.raises(MissingPath):
        LibraryDataModule("/no/such/library").setup("fit")


@pytest.mark.parametrize("snapshots", [False, True])
def test_no_expert_is_of_the_task_itself(snapshots: bool, snapshot_library: str) -> None:
    """The leave-one-out guard: with an expert of its own the answer stands in the condition."""
    data = loaded(snapshot_library, snapshots=snapshots, experts=4)
    batch = batch_of_all(data)
    experts = batch.condition.experts
    assert experts is not None
    assert len(batch.targets) == 6 * (4 if snapshots else 1)
    known = [*states_by_task(snapshot_library)]
    checked = 0
    for row, means in enumerate(experts.means):
        own = {task for task, state in known if equal_rows(batch.targets[[row]], state)}
        assert len(own) == 1
        for i in range(len(means)):
            of = {task for task, state in known if equal_rows(means[[i]], state)}
            assert len(of) == 1 and not of & own
            checked += 1
    assert checked == len(batch.targets) * 2  # two other tasks, and variant 0 alone of each


def test_experts_are_those_that_a_request_without_the_task_gets(
    snapshot_library: str, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    """Training and serving agree, in order, mean, variance and similarity."""
    data = loaded(snapshot_library, experts=4)
    experts = batch_of_all(data).condition.experts
    assert experts is not None
    resources = Resources(open_library(snapshot_library), encoders=[encoder])
    retriever = resources.retriever(base)
    for row, record in enumerate(records(resources.library or pytest.fail())):
        query = Query(Request(record["description"]), base, resources, without=record["task"])
        near = query.nearest_experts(4)
        assert [n.task for n in near] and record["task"] not in [n.task for n in near]
        assert len(query.nearest_experts(1)) == 1
        for i, neighbour in enumerate(near):
            mean, variance = retriever.moments(neighbour.id)
            assert equal_rows(experts.means[row], mean) == [i]
            assert equal_rows(experts.variances[row], variance) == [i]
            cosine = experts.similarities[row, i].item()
            assert cosine == pytest.approx(neighbour.similarity, abs=1e-5)
    everything = Query(Request(tiny.LIBRARY_TASKS["sum"]), base, resources)
    assert everything.nearest_experts(1)[0].task == "sum"  # unless it is left out


def test_moments_are_those_of_the_snapshots(
    snapshot_library: str, base: BaseReference, encoder: DescriptionEncoder
) -> None:
    folder = open_library(snapshot_library)
    retriever = Retriever(folder, base, encoder)
    for record in retriever.experts:
        states = read_snapshots(folder, record, retriever.plan.layout)
        assert states is not None and len(states) == 3
        mean, variance = retriever.moments(record["id"])
        for x, mu, sigma2 in zip(states.factors(), mean.factors(), variance.factors(), strict=True):
            torch.testing.assert_close(mu[0], x.mean(dim=0))
            torch.testing.assert_close(sigma2[0], ((x - mu) ** 2).mean(dim=0))
        assert any(factor.any() for factor in variance.factors())
