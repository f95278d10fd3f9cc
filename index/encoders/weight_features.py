"""What an adapter does to the inputs of its modules: features that only depend on ΔW.

ΔWᵀΔW says which directions of a module's input an adapter reads, and how strongly. It is the same
for every factorisation (A, B) → (G⁻¹A, BG), every order and every padding of the ranks, and there
is no basis to choose among equal or zero singular values. What an adapter writes (ΔWΔWᵀ) and ΔW
itself depend more on the A that its training began from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from library.adapter import Adapter
from library.errors import LayoutMismatch
from library.layout import Layout, Site

# Modules of one layer that read one and the same vector.
_SAME_INPUT: Mapping[str, str] = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp",
}  # fmt: skip
SOFT = 1e-3  # below this share of ΔWᵀΔW the square root turns linear: its slope at 0 is finite


@dataclass(frozen=True)
class Input:
    """One vector inside the base, `width` long, and the target modules that read it."""

    width: int
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Reading:
    """How n adapters read one input.

    Attributes:
        a: the factors A of its modules one below the other, scaled so that aᵀ·core·a is the mean
            over modules of ΔWᵀΔW / ‖ΔWᵀΔW‖.
        core: BᵀB of each module, on the diagonal.
        present: whether any ΔW here is not zero.
    """

    a: Float[Tensor, "n r i"]
    core: Float[Tensor, "n r r"]
    present: Bool[Tensor, " n"]

    def rows(self) -> Float[Tensor, "n r i"]:
        """C with CᵀC = aᵀ·core·a."""
        values, vectors = torch.linalg.eigh(self.core)
        return (vectors * values.clamp_min(0).sqrt()[..., None, :]).mT @ self.a


def inputs_of(layout: Layout) -> tuple[Input, ...]:
    """The inputs that a layout's modules read, in its order."""
    found: dict[tuple[int, str, int], list[Site]] = {}
    for site in layout.sites:
        name = _SAME_INPUT.get(site.module_type, site.name)
        width = site.in_features * site.kernel
        found.setdefault((site.depth, name, width), []).append(site)
    return tuple(Input(width, tuple(sites)) for (_, _, width), sites in found.items())


def readings(adapter: Adapter, inputs: Sequence[Input]) -> list[Reading]:
    """How n adapters read each of the inputs, in float64; modules that they lack are not present.

    Raises LayoutMismatch for a module that reads none of the inputs.
    """
    theirs = {site.name: site for site in adapter.layout.sites}
    known = {site.name: site for item in inputs for site in item.sites}
    for name, site in theirs.items():
        if name not in known:
            raise LayoutMismatch(
                f"the adapter changes {name}, which is not among the {len(known)} modules that "
                f"the weight encoder knows ({', '.join(sorted(_types(known.values())))})"
            )
        ours = known[name]
        if _shape(ours) != _shape(site):
            raise LayoutMismatch(
                f"the adapter's {name} is {site.in_features}x{site.out_features}; the weight "
                f"encoder's is {ours.in_features}x{ours.out_features}"
            )
    parts = _parts(adapter)
    return [_reading(parts, item, adapter) for item in inputs]


def gram(reading: Reading, basis: Float[Tensor, "q i"]) -> Float[Tensor, "n q q"]:
    """ΔWᵀΔW in the directions of `basis`."""
    seen = reading.a @ basis.to(reading.a).mT  # (n, r, q)
    return seen.mT @ reading.core @ seen


def features(grams: Float[Tensor, "*n q q"]) -> Float[Tensor, "*n q*(q+1)//2"]:
    """What `gram` gives, as a unit vector of its signed square roots; zero where it is zero."""
    upper = torch.triu_indices(*grams.shape[-2:], device=grams.device)
    twice = torch.where(upper[0] == upper[1], 1.0, 2.0**0.5).to(grams)
    entries = grams[..., upper[0], upper[1]] * twice
    return torch.nn.functional.normalize(entries / (entries.abs() + SOFT).sqrt(), dim=-1)


def width_of_features(q: int) -> int:
    """Entries of a symmetric q × q matrix."""
    return q * (q + 1) // 2


def _parts(adapter: Adapter) -> dict[str, Reading]:
    """The reading of each module alone, all modules of a group at once."""
    found = {}
    for group in adapter.layout.groups:
        a, b = adapter.A[group.key].double(), adapter.B[group.key].double()
        core = b.mT @ b
        inside = core @ (a @ a.mT)  # tr(inside²) = ‖ΔWᵀΔW‖²
        size = (inside * inside.mT).sum(dim=(-2, -1)).clamp_min(0).sqrt()
        scaled = torch.where(size > 0, 1 / size, 0.0)[..., None, None] * core
        present = core.flatten(2).any(dim=2)
        for place, site in enumerate(group.sites):
            found[site.name] = Reading(a[:, place], scaled[:, place], present[:, place])
    return found


def _reading(parts: Mapping[str, Reading], item: Input, adapter: Adapter) -> Reading:
    mine = [parts[site.name] for site in item.sites if site.name in parts]
    if not mine:
        n, device = len(adapter), next(iter(adapter.A.values())).device
        empty = torch.zeros(n, 1, item.width, dtype=torch.float64, device=device)
        return Reading(empty, empty[..., :1], torch.zeros(n, dtype=torch.bool, device=device))
    there = torch.stack([part.present for part in mine])
    weight = 1 / there.sum(dim=0).clamp_min(1)
    core = _block_diagonal([part.core for part in mine]) * weight[:, None, None]
    return Reading(torch.cat([part.a for part in mine], dim=1), core, there.any(dim=0))


def _block_diagonal(parts: Sequence[Float[Tensor, "n _ _"]]) -> Float[Tensor, "n r r"]:
    sizes = [part.shape[-1] for part in parts]
    made = parts[0].new_zeros(len(parts[0]), sum(sizes), sum(sizes))
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        made[:, start : start + size, start : start + size] = part
        start += size
    return made


def _types(sites) -> set[str]:
    return {site.module_type for site in sites}


def _shape(site: Site) -> tuple[int, int, int]:
    return site.in_features, site.out_features, site.kernel
