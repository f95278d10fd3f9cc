"""What a gate chooses among, as adapters: whole ones, their B over one A, or single ranks.

All of it on factors: no ΔW is formed.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from index.gate.systems import System
from library.adapter import Adapter
from library.factored import canonical


def experts_of(system: System, adapter: Adapter) -> Adapter:
    """The experts of n adapters: n of them, or n·r of rank 1."""
    if system.among == "adapters":
        return adapter
    adapter = adapter.with_rank(adapter.layout.rank)
    build = _on_one_a if system.among == "shared-a" else _single_ranks
    pairs = {key: build(adapter.A[key], adapter.B[key]) for key in adapter.A}
    layout = adapter.layout.with_rank(1) if system.among == "ranks" else adapter.layout
    return Adapter(layout, *({key: pair[i] for key, pair in pairs.items()} for i in (0, 1)))


def _on_one_a(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The A whose rows span the most of all ΔW together, and each B fitted to it.

    Exact where all adapters have one A. (n, sites, r, in) and (n, sites, out, r), as they came.
    """
    n, _, r, _ = a.shape
    rows = spectral_rows(a, b).double().transpose(0, 1).flatten(1, 2)  # (sites, n·r, in)
    one = torch.linalg.svd(rows, full_matrices=False).Vh[:, :r].to(a)  # (sites, r, in)
    return one.expand(n, -1, -1, -1), b @ (a @ one.mT)


def _single_ranks(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(n·r, sites, 1, in) and (n·r, sites, out, 1): the singular directions of each ΔW."""
    rows, columns = (factor.to(a) for factor in canonical(a, b))
    rows, columns = rows.transpose(1, 2), columns.permute(0, 3, 1, 2)  # both (n, r, sites, -1)
    return rows.flatten(0, 1)[:, :, None], columns.flatten(0, 1)[..., None]


def spectral_rows(
    a: Float[Tensor, "n sites r i"], b: Float[Tensor, "n sites o r"]
) -> Float[Tensor, "n sites k i"]:
    """R·A with B = Q·R: as long as ΔW in every direction, ‖R·A·x‖ = ‖ΔW·x‖."""
    return torch.linalg.qr(b).R @ a


def admitted(adapter: Adapter) -> dict[str, Bool[Tensor, "sites n"]]:
    """More experts above (MoLA): a quarter of them in the lowest quarter of the layers, up to all.

    In each module those of the longest ΔW. By a group's key.
    """
    found, n = {}, len(adapter)
    for group in adapter.layout.groups:
        lengths = spectral_rows(adapter.A[group.key], adapter.B[group.key]).flatten(2).norm(dim=-1)
        rank = lengths.argsort(0, descending=True).argsort(0).mT  # (sites, n): 0 for the longest
        quarters = [4 * site.depth // adapter.layout.depth + 1 for site in group.sites]
        counts = [-(-n * quarter // 4) for quarter in quarters]
        found[group.key] = rank < torch.tensor(counts, device=rank.device)[:, None]
    return found
