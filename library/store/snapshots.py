"""Snapshots: the last states of an adapter's training, one file an adapter beside its record."""

from collections.abc import Sequence

from safetensors import SafetensorError
from safetensors.torch import load, save

from library.adapter import Adapter, stack, zeros
from library.errors import AdapterFileError
from library.layout import Layout
from library.store.folder import LibraryFolder
from library.store.plan import JobPlan
from library.store.records import Record


def write_snapshots(
    folder: LibraryFolder, shard: int, job: JobPlan, states: Sequence[Adapter]
) -> None:
    """Store the states of one adapter: `A.<group>` [n, sites, rank, in], `B.<group>` likewise."""
    stacked = stack(states)
    tensors = {f"A.{key}": a for key, a in stacked.A.items()}
    tensors |= {f"B.{key}": b for key, b in stacked.B.items()}
    content = save(dict(sorted(tensors.items())), metadata={"format": "pt"})
    folder.write(_file_name(shard, job), content)


def read_snapshots(folder: LibraryFolder, record: Record, layout: Layout) -> Adapter | None:
    """The states of a record's adapter, in float32, one a row; None if the library kept none.

    Raises AdapterFileError for a damaged file, LayoutMismatch for one of other shapes.
    """
    if record.get("shard") is None:  # imported
        return None
    file = _file_name(record["shard"], JobPlan(record["task"], record["variant"]))
    if not folder.exists(file):
        return None
    try:
        tensors = load(folder.read(file))
        a, b = (
            {group.key: tensors[f"{side}.{group.key}"].float() for group in layout.groups}
            for side in ("A", "B")
        )
    except (SafetensorError, KeyError) as error:
        raise AdapterFileError(f"{folder.location}/{file} is damaged: {error}") from error
    return Adapter(layout, a, b)


def state_moments(adapter: Adapter, states: Adapter | None) -> tuple[Adapter, Adapter]:
    """Mean and variance of every entry of A and of B over an adapter's snapshots.

    Both have one row. Where no snapshots were kept, the adapter itself and zeros. The variance is
    that of the states as they are (divided by their number), in the units of A and B squared.
    """
    if states is None:
        return adapter, zeros(adapter.layout, dtype=adapter.factors()[0].dtype)
    mean = Adapter(
        states.layout,
        {key: a.mean(dim=0, keepdim=True) for key, a in states.A.items()},
        {key: b.mean(dim=0, keepdim=True) for key, b in states.B.items()},
    )
    variance = Adapter(
        states.layout,
        {key: a.var(dim=0, correction=0, keepdim=True) for key, a in states.A.items()},
        {key: b.var(dim=0, correction=0, keepdim=True) for key, b in states.B.items()},
    )
    return mean, variance


def _file_name(shard: int, job: JobPlan) -> str:
    return f"snapshots/{shard:04}/{job.name}.safetensors"
