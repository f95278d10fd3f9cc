"""How far an adapter is from those of a library: cosines, distances, E-DIEM.

All in float64 through inner products ⟨B₁A₁, B₂A₂⟩ = Σ (A₁A₂ᵀ)∘(B₁ᵀB₂); a distance below about
1e-8 of the norms cannot be told from zero. E-DIEM is SPLoRA's distance that does not depend on a
module's size (arXiv 2506.18931): (d − mean d) / deviation of d, where mean and deviation are those
of a reference set. There the reference are projections on an alignment matrix, here distances
between pairs of the library's adapters.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter, stack
from library.errors import UsageError
from library.layout import Layout
from library.peft.read import shape_of
from library.store.catalogue import read_adapter, records
from library.store.folder import LibraryFolder
from library.store.open import open_library
from library.store.records import Record

REFERENCE = 24  # adapters, evenly spaced by task, whose pairs E-DIEM is held against


def factored_inner_products(one: Adapter, others: Adapter) -> Float[Tensor, "n m sites"]:
    """⟨ΔW, ΔW'⟩ of every module, for n adapters and m others of the same modules at any ranks."""
    place = {site.name: position for position, site in enumerate(one.layout.sites)}
    found = torch.zeros(len(one), len(others), len(place), dtype=torch.float64)
    theirs = {group.key: [site.name for site in group.sites] for group in others.layout.groups}
    for group in one.layout.groups:
        order = [theirs[group.key].index(site.name) for site in group.sites]
        a, b = one.A[group.key].double(), one.B[group.key].double()
        a2, b2 = (x[group.key].double() for x in (others.A, others.B))
        if order != sorted(order):
            a2, b2 = a2[:, order], b2[:, order]
        n, sites, r, _ = a.shape
        m, s = len(others), a2.shape[-2]
        left = a.transpose(0, 1).reshape(sites, n * r, -1)
        right = a2.transpose(0, 1).reshape(sites, m * s, -1)
        of_a = (left @ right.mT).view(sites, n, r, m, s)
        left = b.permute(1, 0, 3, 2).reshape(sites, n * r, -1)
        right = b2.permute(1, 0, 3, 2).reshape(sites, m * s, -1)
        of_b = (left @ right.mT).view(sites, n, r, m, s)
        where = [place[site.name] for site in group.sites]
        found[..., where] = (of_a * of_b).sum(dim=(2, 4)).permute(1, 2, 0)
    return found


def same_modules(one: Layout, other: Layout) -> bool:
    """Whether two layouts have the same modules, in any order and at any ranks."""
    return sorted(map(shape_of, one.sites)) == sorted(map(shape_of, other.sites))


def squared_norms(adapter: Adapter) -> Float[Tensor, "n sites"]:
    """‖ΔW‖² of every module, by the same formula."""
    rows = [factored_inner_products(adapter[[i]], adapter[[i]])[0, 0] for i in range(len(adapter))]
    return torch.stack(rows)


@dataclass(frozen=True)
class Distances:
    """Of n adapters to m others: the cosine of the whole ΔW, and ‖ΔW − ΔW'‖ of each module."""

    cosine: Float[Tensor, "n m"]
    by_module: Float[Tensor, "n m sites"]
    relative: Float[Tensor, "n m"]  # of the whole: ‖ΔW − ΔW'‖ / ‖ΔW‖


def distances(
    one: Adapter, others: Adapter, norms: Float[Tensor, "m sites"] | None = None
) -> Distances:
    """`norms` are the others' squared norms, where they are known. A zero ΔW has cosine zero."""
    products = factored_inner_products(one, others)
    own = squared_norms(one)
    theirs = squared_norms(others) if norms is None else norms
    squared = (own[:, None] + theirs[None] - 2 * products).clamp_min(0)
    size, their_size = own.sum(dim=-1), theirs.sum(dim=-1)
    scale = (size[:, None] * their_size).sqrt()
    cosine = products.sum(dim=-1) / torch.where(scale > 0, scale, 1.0)
    whole = squared.sum(dim=-1).sqrt() / torch.where(size > 0, size, 1.0).sqrt()[:, None]
    return Distances(cosine, squared.sqrt(), whole)


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
    found = distances(adapters[rows], adapters, norms)
    other = torch.arange(m)[None] != rows[:, None]
    pairs = found.by_module[:, rows][other[:, rows]]
    nearest = found.cosine.masked_fill(~other, -1).amax(dim=1).sort().values
    spread = pairs.std(dim=0).clamp_min(1e-12)
    return Neighbours(name, ids, tasks, adapters, norms, pairs.mean(dim=0), spread, nearest)


def _site_major(adapters: Adapter) -> Adapter:
    """The same in float64, laid out in memory as `inner_products` reads it, without a copy."""
    a = {k: x.double().transpose(0, 1).contiguous().transpose(0, 1) for k, x in adapters.A.items()}
    b = {
        k: x.double().permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2)
        for k, x in adapters.B.items()
    }
    return Adapter(adapters.layout, a, b)


def trained(folder: LibraryFolder, layout: Layout) -> list[Record]:
    """Records of a library's adapters of a layout, one a task, sorted by task."""
    return [
        record
        for record in records(folder)
        if record["layout_digest"] == layout.digest
        and record["variant"] == 0
        and record["id"] is not None
    ]


def read_neighbours(place: str) -> Neighbours:
    """Those of a library, by folder or URL.

    Raises MissingPath, OutputError or AdapterFileError if it cannot be read, and as `gather`.
    """
    folder = open_library(place)
    layout = folder.plan().layout
    found = trained(folder, layout)
    if not found:
        raise UsageError(f"the library {place} holds no adapter to compare with")
    adapters = stack([read_adapter(folder, record["id"], layout) for record in found])
    ids, tasks = (tuple(record[key] for record in found) for key in ("id", "task"))
    rank, recipe = found[0]["rank"], found[0]["recipe"]
    name = f"a library of {len(ids)} adapters of rank {rank}, recipe {recipe}"
    return gather(name, ids, tasks, adapters)
