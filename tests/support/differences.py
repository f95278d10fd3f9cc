"""Norms and differences of adapters in ΔW, to hold results to."""

import tiny
import torch
from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter


def difference(one: Adapter, other: Adapter) -> float:
    """Largest relative Frobenius distance of any module's ΔW."""
    ours, theirs = tiny.deltas(one), tiny.deltas(other)
    return max(
        float((ours[k].double() - theirs[k].double()).norm() / theirs[k].double().norm())
        for k in ours
    )


def delta_norm(a: Float[Tensor, "*n r i"], b: Float[Tensor, "*n o r"]) -> Float[Tensor, "*n"]:
    """Frobenius norm of ΔW = B·A, in float64, from the triangles of two QR factorisations."""
    r_b = torch.linalg.qr(b.double(), mode="r").R  # (*n, min(o,r), r)
    r_a = torch.linalg.qr(a.double().mT, mode="r").R  # (*n, min(i,r), r)
    return torch.linalg.matrix_norm(r_b @ r_a.mT)


def delta_distance(
    a1: Float[Tensor, "*n r i"],
    b1: Float[Tensor, "*n o r"],
    a2: Float[Tensor, "*n s i"],
    b2: Float[Tensor, "*n o s"],
) -> Float[Tensor, "*n"]:
    """‖B1·A1 − B2·A2‖, in float64: QR of [B1, −B2] and of [A1; A2], then the small product.

    The trace formula would cancel badly where the two are close.
    """
    return delta_norm(torch.cat([a1, a2], dim=-2), torch.cat([b1, -b2], dim=-1))
