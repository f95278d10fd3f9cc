"""How far adapters lie from μ* and from the nearest snapshot of a library: variety or memory?"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from index.search.retriever import Retriever
from library.adapter import Adapter, stack
from library.factored import squared_delta_distance
from library.store.snapshots import read_snapshots


@dataclass
class Distances:
    """Adapters of many tasks, whose distances are measured all at once.

    Distances are those of ΔW, relative to ‖ΔW‖ of their task's μ*.
    """

    labels: list[dict[str, Any]] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    means: list[Adapter] = field(default_factory=list)

    def add(self, mean: Adapter, adapter: Adapter, **label: Any) -> None:
        """An adapter beside its task's μ*, both of one row."""
        self.labels.append(label)
        self.adapters.append(adapter.to("cpu", torch.float32))
        self.means.append(mean.to("cpu", torch.float32))

    def measured(self, retriever: Retriever) -> list[dict[str, Any]]:
        """One row for each adapter; `nearest_task` is the task of the nearest snapshot."""
        adapters, means = stack(self.adapters), stack(self.means)
        sizes = squared_distances(means, _nothing(means)).sqrt()
        to_mean = squared_distances(adapters, means).sqrt() / sizes
        nearest, tasks = self._nearest_snapshots(adapters, retriever)
        to_snapshot = (nearest.sqrt() / sizes).tolist()
        return [
            {**label, "to_mean": a, "to_snapshot": b, "nearest_task": task}
            for label, a, b, task in zip(
                self.labels, to_mean.tolist(), to_snapshot, tasks, strict=True
            )
        ]

    def _nearest_snapshots(
        self, adapters: Adapter, retriever: Retriever
    ) -> tuple[Float[Tensor, " n"], list[str]]:
        """Squared distance to the nearest state of training that the library has, and its task."""
        own = squared_distances(adapters, _nothing(adapters))
        best = torch.full_like(own, torch.inf)
        tasks = [""] * len(own)
        for record in retriever.experts:
            states = read_snapshots(retriever.folder, record, retriever.plan.layout)
            states = states or retriever.adapter(record["id"])
            products = adapters.inner_products(states).sum(dim=-1)  # (n, states)
            sizes = squared_distances(states, _nothing(states))
            squares = (own[:, None] + sizes - 2 * products).clamp_min(0.0).amin(dim=1)
            for i in (squares < best).nonzero().flatten().tolist():
                tasks[i] = record["task"]
            best = torch.minimum(best, squares)
        return best, tasks


def squared_distances(one: Adapter, other: Adapter) -> Float[Tensor, " n"]:
    """‖ΔW − ΔW'‖² row by row, summed over modules."""
    groups = [
        squared_delta_distance(a, one.B[key], other.A[key], other.B[key]).sum(dim=-1)
        for key, a in one.A.items()
    ]
    return torch.stack(groups).sum(dim=0)


def _nothing(like: Adapter) -> Adapter:
    return like.scaled(0.0)
