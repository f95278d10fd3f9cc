"""The neighbours hook: an adapter's cosines, distances and E-DIEM to those of a library.

All in float64 through inner products of ΔW (library.factored). It refuses nothing. E-DIEM is
SPLoRA's distance that does not depend on a module's size (arXiv 2506.18931): (d − mean d) /
deviation of d, where mean and deviation are those of a reference set. There the reference are
projections on an alignment matrix, here distances between pairs of the library's adapters.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack_padded
from library.errors import UsageError
from library.layout import Layout
from library.peft.read import shape_of
from library.store.catalogue import read_adapter, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import Record
from verification.hook import Finding

NEIGHBOURS_HOOK = "neighbours"
NEAREST, COPY, E_DIEM = "neighbours-nearest", "neighbours-copy", "neighbours-e-diem"
INCOMPARABLE = "neighbours-not-comparable"
_NEAREST = 5  # library adapters that a finding lists
SAME = 5e-3  # a relative distance below this is the same ΔW, up to rounding to bfloat16
REFERENCE = 24  # adapters, evenly spaced by task, whose pairs E-DIEM is held against


def same_modules(one: Layout, other: Layout) -> bool:
    """Equality of two layouts' modules, in any order and at any ranks."""
    return sorted(map(shape_of, one.sites)) == sorted(map(shape_of, other.sites))


def squared_norms(adapter: Adapter) -> Float[Tensor, "n sites"]:
    """‖ΔW‖² of every module, by the same formula."""
    rows = (adapter[[i]] for i in range(len(adapter)))
    return torch.stack([row.inner_products(row)[0, 0] for row in rows])


@dataclass(frozen=True)
class Distances:
    """Distances of n adapters to m others.

    Attributes:
        cosine: of the whole ΔW.
        by_module: ‖ΔW − ΔW'‖ of each module.
        relative: ‖ΔW − ΔW'‖ / ‖ΔW‖ of the whole.
    """

    cosine: Float[Tensor, "n m"]
    by_module: Float[Tensor, "n m sites"]
    relative: Float[Tensor, "n m"]


def distances(
    one: Adapter, others: Adapter, norms: Float[Tensor, "m sites"] | None = None
) -> Distances:
    """`norms` are the others' squared norms, where they are known. A zero ΔW has cosine zero."""
    products = one.inner_products(others)
    norms1 = squared_norms(one)  # (n, sites)
    norms2 = squared_norms(others) if norms is None else norms  # (m, sites)
    squared = (norms1[:, None] + norms2[None] - 2 * products).clamp_min(0)  # (n, m, sites)
    total1, total2 = norms1.sum(dim=-1), norms2.sum(dim=-1)
    scale = (total1[:, None] * total2).sqrt()  # (n, m)
    cosine = products.sum(dim=-1) / torch.where(scale > 0, scale, 1.0)
    length = torch.where(total1 > 0, total1, 1.0).sqrt()
    relative = squared.sum(dim=-1).sqrt() / length[:, None]  # (n, m)
    return Distances(cosine, squared.sqrt(), relative)


def e_diem(
    distance: Float[Tensor, "*n sites"],
    mean: Float[Tensor, " sites"],
    spread: Float[Tensor, " sites"],
) -> Float[Tensor, "*n sites"]:
    """(d − mean) / spread of each module; 0 is as far as two clean adapters are on average."""
    return (distance - mean) / spread


@dataclass(frozen=True)
class Neighbours:
    """A library's adapters, ready to be compared with.

    Attributes:
        name: how findings name it.
        ids, tasks: of each adapter.
        adapters, norms: stacked in float64, with ‖ΔW‖² of each module.
        mean, spread: of ‖ΔW₁ − ΔW₂‖ by module, over pairs of at most REFERENCE adapters.
        nearest: for each of those, the cosine with its nearest other in the library, ascending.
    """

    name: str
    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    adapters: Adapter
    norms: Float[Tensor, "m sites"]
    mean: Float[Tensor, " sites"]
    spread: Float[Tensor, " sites"]
    nearest: Float[Tensor, " reference"]


def gather(
    name: str, ids: tuple[str, ...], tasks: tuple[str, ...], adapters: Adapter
) -> Neighbours:
    """Measure the reference pairs, once. Raises UsageError for fewer than three adapters."""
    if len(adapters) < 3:
        raise UsageError(f"{name} is too small to compare with: it takes at least 3 adapters")
    adapters = _site_major(adapters)
    norms, m = squared_norms(adapters), len(adapters)
    rows = torch.linspace(0, m - 1, min(m, REFERENCE)).round().long()
    measured = distances(adapters[rows], adapters, norms)
    other = torch.arange(m)[None] != rows[:, None]  # (reference, m)
    pairs = measured.by_module[:, rows][other[:, rows]]  # (pairs, sites)
    nearest = measured.cosine.masked_fill(~other, -1).amax(dim=1).sort().values
    spread = pairs.std(dim=0).clamp_min(1e-12)
    return Neighbours(name, ids, tasks, adapters, norms, pairs.mean(dim=0), spread, nearest)


def _site_major(adapters: Adapter) -> Adapter:
    """Adapters in float64, laid out in memory so that `inner_products` reshapes without a copy."""
    # A of (n, sites, r, i) lies as (sites, n, r, i); B of (n, sites, o, r) as (sites, n, r, o).
    a = {k: x.double().transpose(0, 1).contiguous().transpose(0, 1) for k, x in adapters.A.items()}
    b = {
        k: x.double().permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2)
        for k, x in adapters.B.items()
    }
    return Adapter(adapters.layout, a, b)


def trained(folder: LibraryFolder, layout: Layout) -> list[Record]:
    """Records of what a library built, or has of its layout, one a task, sorted by task."""
    return [
        record
        for record in records(folder)
        if (record["layout_digest"] == layout.digest or record.get("shard") is not None)
        and record["variant"] == 0
        and record["id"] is not None
        and not record.get("extras")
    ]


def read_neighbours(url: str) -> Neighbours:
    """The adapters of a library, by folder or URL.

    Raises MissingPath, OutputError or AdapterFileError if it cannot be read, and as `gather`.
    """
    folder = open_library(url)
    layout = folder.plan().layout
    rows = trained(folder, layout)
    if not rows:
        raise UsageError(f"the library {url} holds no adapter to compare with")
    adapters = stack_padded([read_adapter(folder, record["id"], layout) for record in rows])
    ids, tasks = (tuple(record[key] for record in rows) for key in ("id", "task"))
    rank, recipe = rows[0]["rank"], rows[0]["recipe"]
    name = f"a library of {len(ids)} adapters of rank {rank}, recipe {recipe}"
    return gather(name, ids, tasks, adapters)


def check_neighbours(adapter: Adapter, neighbours: Neighbours) -> list[Finding]:
    """The nearest library adapters by the cosine of ΔW, and E-DIEM of the nearest one."""
    if not same_modules(adapter.layout, neighbours.adapters.layout):
        message = f"the adapter's modules are not those of {neighbours.name}"
        return [Finding(NEIGHBOURS_HOOK, INCOMPARABLE, "info", message)]
    if not adapter.is_finite():
        message = "no neighbours: a weight is not a finite number"
        return [Finding(NEIGHBOURS_HOOK, INCOMPARABLE, "info", message)]
    measured = distances(adapter, neighbours.adapters, neighbours.norms)
    order = measured.cosine[0].argsort(descending=True, stable=True)[:_NEAREST].tolist()
    first = order[0]
    nearest = [
        {
            "id": neighbours.ids[row],
            "task": neighbours.tasks[row],
            "cosine": float(measured.cosine[0, row]),
            "relative_distance": float(measured.relative[0, row]),
        }
        for row in order
    ]
    cosine = float(measured.cosine[0, first])
    closer = float((neighbours.nearest < cosine).double().mean())
    message = (
        f"the nearest is {neighbours.tasks[first]} at cosine {cosine:.3f}, nearer than "
        f"{closer:.0%} of nearest pairs within {neighbours.name}"
    )
    code = COPY if float(measured.relative[0, first]) < SAME else NEAREST
    return [
        Finding(NEIGHBOURS_HOOK, code, "info", message, {"nearest": nearest}),
        _e_diem(measured.by_module[0, first], adapter, neighbours, neighbours.tasks[first]),
    ]


def _e_diem(
    distance: Float[Tensor, " sites"], adapter: Adapter, neighbours: Neighbours, task: str
) -> Finding:
    scores = e_diem(distance, neighbours.mean, neighbours.spread)
    worst = int(scores.abs().argmax())
    name = adapter.layout.sites[worst].name
    message = (
        f"E-DIEM to {task} is {float(scores.mean()):.1f} on average and "
        f"{float(scores[worst]):.1f} in {name}; 0 is an average pair within {neighbours.name}"
    )
    by_module = dict(
        zip((site.name for site in adapter.layout.sites), scores.tolist(), strict=True)
    )
    return Finding(NEIGHBOURS_HOOK, E_DIEM, "info", message, {"by_module": by_module})
