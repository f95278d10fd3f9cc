"""Spectra of ΔW, module by module, from its factors: what screening looks at.

Singular values belong to ΔW and not to the factors that it is written in: (A, B) and (G⁻¹A, BG)
give the same ones for any invertible G. Modules stand in the layout's order, everything is float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter

FLOOR = 1e-12  # stands for a singular value of zero where logarithms are taken


def singular_values(adapter: Adapter, rank: int) -> Float[Tensor, "n sites rank"]:
    """The `rank` largest singular values of every module's ΔW, descending, then zeros.

    They come from the triangles of two QR factorisations, so ΔW is never formed.
    """
    layout = adapter.layout
    result = torch.zeros(len(adapter), len(layout.sites), rank, dtype=torch.float64)
    for group in layout.groups:
        r_a = torch.linalg.qr(adapter.A[group.key].double().mT, mode="r").R  # (n, s, min(i,r), r)
        r_b = torch.linalg.qr(adapter.B[group.key].double(), mode="r").R  # (n, s, min(o,r), r)
        values = torch.linalg.svdvals(r_b @ r_a.mT)[..., :rank]
        result[:, group.indices, : values.shape[-1]] = values.cpu()
    return result


@dataclass(frozen=True)
class Statistics:
    """Three numbers that sum up a module's spectrum; `[n, sites]` each.

    Attributes:
        norm: ‖ΔW‖, Frobenius.
        stable_rank: ‖ΔW‖² / σ₁², from 1 to the rank (Rudelson and Vershynin 2007).
        entropy: of the shares σᵢ² / ‖ΔW‖², in nats (Roy and Vetterli 2007).
    """

    norm: Float[Tensor, "n sites"]
    stable_rank: Float[Tensor, "n sites"]
    entropy: Float[Tensor, "n sites"]


def statistics(values: Float[Tensor, "n sites rank"]) -> Statistics:
    """Statistics of singular values; all three are zero for a module whose ΔW is zero."""
    energy = values.square()
    total = energy.sum(dim=-1)
    safe = torch.where(total > 0, total, 1.0)
    share = energy / safe[..., None]
    top = torch.where(total > 0, energy[..., 0], 1.0)
    return Statistics(total.sqrt(), total / top, torch.special.entr(share).sum(dim=-1))


def log_spectrum(values: Float[Tensor, "n sites rank"]) -> Float[Tensor, "n features"]:
    """log σ of every module less their mean, in one row: the features of the known-kind score.

    Taking out the mean makes them blind to the adapter's strength.
    """
    logs = values.clamp_min(FLOOR).log().flatten(1)  # (n, sites · rank)
    return logs - logs.mean(dim=-1, keepdim=True)


def log_profile(values: Float[Tensor, "n sites rank"]) -> Float[Tensor, "n sites"]:
    """log ‖ΔW‖ of each module less the adapter's own median: blind to the adapter's strength."""
    norms = values.norm(dim=-1).clamp_min(FLOOR).log()
    return norms - norms.median(dim=-1, keepdim=True).values
